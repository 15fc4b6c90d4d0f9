//! Clears the folder of media of files that no media id names: an upload whose row was never written, a thumbnail whose
//! file is gone. What is named and not there is only told: a disk that is not mounted must not cost anybody their media.
//!
//! Invariant: a file that an upload has just brought is never removed, also if there was one of the same content before.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::store::{FileStore, hex};

/// A file younger than this may be of an upload whose row is still to be written.
const AGE_MIN: Duration = Duration::from_secs(60 * 60);

/// What a sweep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files that nothing named, removed.
    pub removed: u64,
    /// Files that are named and not there.
    pub missing: u64,
}

impl FileStore {
    /// Removes the files whose hashes do not begin with any of `used`, which are the first eight bytes of hashes.
    pub fn sweep(&self, mut used: HashSet<u64>) -> io::Result<Swept> {
        let mut swept = Swept::default();
        let before = SystemTime::now().checked_sub(AGE_MIN).unwrap_or(SystemTime::UNIX_EPOCH);
        self.sweep_folder("thumbnails", before, &mut swept, |hash| used.contains(&hash))?;
        let mut there = HashSet::new();
        self.sweep_folder("content", before, &mut swept, |hash| {
            there.insert(hash);
            used.contains(&hash)
        })?;
        used.retain(|hash| !there.contains(hash));
        swept.missing = used.len() as u64;
        Ok(swept)
    }

    fn sweep_folder(
        &self,
        kind: &str,
        before: SystemTime,
        swept: &mut Swept,
        mut is_used: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        for folder in fs::read_dir(self.folder().join(kind))? {
            for file in fs::read_dir(folder?.path())? {
                let path = file?.path();
                // What is not called by a hash is not ours.
                let Some(hash) = hash_of(&path) else { continue };
                if !is_used(hash) && self.remove_old(&path, before)? {
                    swept.removed += 1;
                }
            }
        }
        Ok(())
    }

    /// Removes a file unless it is young. No file can take its place in between.
    fn remove_old(&self, path: &Path, before: SystemTime) -> io::Result<bool> {
        let _alone = self.keeping().write();
        let is_old = fs::metadata(path)?.modified()? < before;
        if is_old {
            fs::remove_file(path)?;
        }
        Ok(is_old)
    }
}

/// The first eight bytes of the hash that a file is called by.
fn hash_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.split('-').next()?;
    if digits.len() != hex(&[0; 32]).len() {
        return None;
    }
    u64::from_str_radix(digits.get(..16)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::store::{MediaStore, Sha256};
    use super::*;

    fn keep(store: &FileStore, content: &[u8]) -> Sha256 {
        let mut deposit = store.begin().expect("a file");
        deposit.write(content).expect("space");
        deposit.keep().expect("kept").0
    }

    fn age(folder: &Path) {
        let old = SystemTime::now() - 2 * AGE_MIN;
        for kind in ["content", "thumbnails"] {
            for folder in fs::read_dir(folder.join(kind)).expect("a folder") {
                for file in fs::read_dir(folder.expect("an entry").path()).expect("a folder") {
                    let file = File::options().write(true).open(file.expect("an entry").path());
                    file.expect("opened").set_modified(old).expect("set");
                }
            }
        }
    }

    fn start(sha256: &Sha256) -> u64 {
        u64::from_be_bytes(*sha256.first_chunk().expect("eight bytes"))
    }

    #[test]
    fn only_old_files_that_nothing_names_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(folder.path()).expect("opened");
        let (used, orphan) = (keep(&store, b"used"), keep(&store, b"orphan"));
        for sha256 in [used, orphan] {
            store.keep_thumbnail(&sha256, "96x96-crop", b"small").expect("kept");
        }
        let lost = 7;
        let names = HashSet::from([start(&used), lost]);
        let swept = store.sweep(names.clone()).expect("swept");
        assert_eq!(swept, Swept { removed: 0, missing: 1 }, "all are young");
        age(folder.path());
        let again = keep(&store, b"orphan");
        let swept = store.sweep(names.clone()).expect("swept");
        assert_eq!(swept, Swept { removed: 1, missing: 1 }, "the thumbnail; the file has come again");
        assert!(store.open(&again).expect("readable").is_some());
        age(folder.path());
        assert_eq!(store.sweep(names).expect("swept"), Swept { removed: 1, missing: 1 });
        assert!(store.open(&orphan).expect("readable").is_none());
        assert!(store.open(&used).expect("readable").is_some());
        assert!(store.open_thumbnail(&used, "96x96-crop").expect("readable").is_some());
    }
}
