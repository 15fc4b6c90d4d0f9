//! Where the bytes of media lie: the seam, and the store in the data folder.
//!
//! Invariant: what stands under a content's name is the whole content, on disk: it is written elsewhere, synced, and
//! then moved. All of it blocks, so it runs on blocking threads. What a file is called or claims to be is not here:
//! the only names are hashes and our own variants of thumbnails.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use ring::digest::{Context, SHA256};

use crate::data_dir;

/// The hash of a content, which is its name.
pub type Sha256 = [u8; 32];

/// Something that can be read from any place in it.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// A stored content, opened.
pub struct Blob {
    pub source: Box<dyn Source>,
    /// In bytes.
    pub size: u64,
}

/// A store of contents by their hash, and of thumbnails made from them. Errors are those of the disk.
pub trait MediaStore: Send + Sync {
    /// Begins a new content. What is dropped without having been kept leaves nothing behind.
    fn begin(&self) -> io::Result<Box<dyn Deposit>>;

    /// A content; `None` if there is none of that hash.
    fn open(&self, sha256: &Sha256) -> io::Result<Option<Blob>>;

    /// A thumbnail that was made before, by a variant made of ASCII letters, digits and hyphens.
    fn open_thumbnail(&self, sha256: &Sha256, variant: &str) -> io::Result<Option<Blob>>;

    /// Keeps a thumbnail.
    fn keep_thumbnail(&self, sha256: &Sha256, variant: &str, bytes: &[u8]) -> io::Result<()>;
}

/// A content on its way into the store.
pub trait Deposit: Send {
    /// Appends a piece.
    fn write(&mut self, piece: &[u8]) -> io::Result<()>;

    /// Makes it last: when this returns it is on disk under its hash. Answers with the hash and the length.
    fn keep(self: Box<Self>) -> io::Result<(Sha256, u64)>;
}

/// The store in a folder: `content/ab/abcd…`, `thumbnails/ab/abcd…-96x96-crop`, and `temporary/` for what is on its
/// way. Files are for the server's user alone.
pub struct FileStore {
    folder: PathBuf,
    temporary: AtomicU64,
    /// Held for reading while a file takes its place, for writing while one is swept away.
    keeping: Arc<RwLock<()>>,
}

impl FileStore {
    /// Opens the store, making the folder if need be and closing it to others, and removes what an earlier process left half
    /// written. The data folder's lock must be held.
    pub fn open(folder: &Path) -> io::Result<FileStore> {
        let store =
            FileStore { folder: folder.to_owned(), temporary: AtomicU64::new(0), keeping: Arc::default() };
        data_dir::make_private(folder)?;
        for name in ["content", "thumbnails", "temporary"] {
            DirBuilder::new().recursive(true).mode(0o700).create(store.folder.join(name))?;
        }
        for entry in fs::read_dir(store.folder.join("temporary"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(store)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn keeping(&self) -> &RwLock<()> {
        &self.keeping
    }

    fn path(&self, kind: &str, sha256: &Sha256, variant: &str) -> PathBuf {
        let name = hex(sha256);
        let folder = self.folder.join(kind).join(name.get(..2).unwrap_or_default());
        folder.join(if variant.is_empty() { name } else { format!("{name}-{variant}") })
    }

    fn temporary_file(&self) -> io::Result<Temporary> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join("temporary").join(number.to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { file: BufWriter::new(file), path })
    }
}

impl MediaStore for FileStore {
    fn begin(&self) -> io::Result<Box<dyn Deposit>> {
        Ok(Box::new(FileDeposit {
            file: self.temporary_file()?,
            content: self.folder.join("content"),
            hash: Context::new(&SHA256),
            size: 0,
            keeping: self.keeping.clone(),
        }))
    }

    fn open(&self, sha256: &Sha256) -> io::Result<Option<Blob>> {
        open(&self.path("content", sha256, ""))
    }

    fn open_thumbnail(&self, sha256: &Sha256, variant: &str) -> io::Result<Option<Blob>> {
        open(&self.path("thumbnails", sha256, variant))
    }

    fn keep_thumbnail(&self, sha256: &Sha256, variant: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.temporary_file()?;
        file.file.write_all(bytes)?;
        let _place = self.keeping.read();
        file.keep(&self.path("thumbnails", sha256, variant))
    }
}

fn open(path: &Path) -> io::Result<Option<Blob>> {
    match File::open(path) {
        Ok(file) => Ok(Some(Blob { size: file.metadata()?.len(), source: Box::new(file) })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that goes away unless it is kept.
struct Temporary {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Temporary {
    /// Syncs it and moves it to `target`, in a folder that is made if need be and whose entry is synced too.
    fn keep(&mut self, target: &Path) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        let folder = target.parent().unwrap_or(target);
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => File::open(folder.parent().unwrap_or(folder))?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        fs::rename(&self.path, target)?;
        File::open(folder)?.sync_all()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Not there any more if it was kept; if removing fails, the next start removes it.
        let _ = fs::remove_file(&self.path);
    }
}

struct FileDeposit {
    file: Temporary,
    content: PathBuf,
    hash: Context,
    size: u64,
    keeping: Arc<RwLock<()>>,
}

impl Deposit for FileDeposit {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hash.update(piece);
        self.size += piece.len() as u64;
        self.file.file.write_all(piece)
    }

    fn keep(mut self: Box<Self>) -> io::Result<(Sha256, u64)> {
        let digest = self.hash.clone().finish();
        let sha256: Sha256 = digest.as_ref().try_into().map_err(io::Error::other)?;
        let name = hex(&sha256);
        let _place = self.keeping.read();
        // A content that is there already is replaced by itself: that is simpler than looking, and safe.
        self.file.keep(&self.content.join(name.get(..2).unwrap_or_default()).join(&name))?;
        Ok((sha256, self.size))
    }
}

/// A hash as a file name, and as an entity tag.
pub fn hex(sha256: &Sha256) -> String {
    sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// SHA-256 of `abc`: FIPS 180-4, the example of the secure hash standard.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn deposit(store: &FileStore, pieces: &[&[u8]]) -> (Sha256, u64) {
        let mut deposit = store.begin().expect("a file");
        for piece in pieces {
            deposit.write(piece).expect("space");
        }
        deposit.keep().expect("kept")
    }

    fn content(blob: Option<Blob>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        blob?.source.read_to_end(&mut bytes).expect("readable");
        Some(bytes)
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn keeps_contents_by_their_hash_for_its_user_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(&folder.path().join("media")).expect("opened");
        let (sha256, size) = deposit(&store, &[b"a", b"", b"bc"]);
        assert_eq!((hex(&sha256).as_str(), size), (ABC, 3));
        assert_eq!(deposit(&store, &[b"abc"]).0, sha256, "the same again is the same");
        assert_eq!(content(store.open(&sha256).expect("readable")).as_deref(), Some(&b"abc"[..]));
        assert!(store.open(&[0; 32]).expect("readable").is_none());
        let path = folder.path().join("media/content/ba").join(ABC);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(files(&folder.path().join("media/temporary")), 0);
    }

    #[test]
    fn what_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(folder.path()).expect("opened");
        let mut deposit = store.begin().expect("a file");
        deposit.write(b"half").expect("space");
        assert_eq!(files(&folder.path().join("temporary")), 1);
        drop(deposit);
        assert_eq!(files(&folder.path().join("temporary")), 0);
        // A process that was killed could not clean up.
        fs::write(folder.path().join("temporary/0"), b"half").expect("written");
        FileStore::open(folder.path()).expect("opened");
        assert_eq!(files(&folder.path().join("temporary")), 0);
        assert_eq!(files(&folder.path().join("content")), 0);
    }

    #[test]
    fn keeps_thumbnails_by_variant() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(folder.path()).expect("opened");
        store.keep_thumbnail(&[1; 32], "96x96-crop", b"small").expect("kept");
        let found = store.open_thumbnail(&[1; 32], "96x96-crop").expect("readable");
        assert_eq!(content(found).as_deref(), Some(&b"small"[..]));
        assert!(store.open_thumbnail(&[1; 32], "32x32-crop").expect("readable").is_none());
    }
}
