//! The data folder: made with private permissions, and used by one process at a time. One that was there before may be
//! open to others: it is the operator's, and only what is of the server in it is closed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode of a folder that nobody but the server's user can look into.
const PRIVATE: u32 = 0o700;
/// The bits of a mode that say what others may do: the group, and everybody.
const OF_OTHERS: u32 = 0o077;

/// Holds the folder until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Makes the folder if need be and takes it. Errors: a sentence; in use by another process for instance.
pub fn lock(folder: &Path) -> Result<Lock, String> {
    let failed = |error: io::Error| format!("cannot use the data folder {}: {error}", folder.display());
    DirBuilder::new().recursive(true).mode(PRIVATE).create(folder).map_err(failed)?;
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(format!(
            "the data folder {} is in use: another warren runs on it. Stop that one, or set another data_dir",
            folder.display()
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Makes a folder that nobody else can look into, or closes one that is there: whatever modes the files in it are made with,
/// as the database makes its own, they are private then.
pub fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(folder)?;
    match fs::metadata(folder)?.permissions().mode() & OF_OTHERS {
        0 => Ok(()),
        _ => match fs::set_permissions(folder, Permissions::from_mode(PRIVATE)) {
            // A mounted folder may belong to somebody else, or be of a kind that knows no modes.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(folder = %folder.display(), "others can look into this folder, and it cannot be closed");
                Ok(())
            }
            done => done,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("deep/data");
        let first = lock(&data).expect("free");
        assert!(lock(&data).expect_err("taken").contains("another warren"));
        drop(first);
        lock(&data).expect("free again");
    }

    #[test]
    fn a_private_folder_is_closed_whoever_made_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (new, old) = (folder.path().join("deep/new"), folder.path().join("old"));
        fs::create_dir(&old).expect("made");
        fs::set_permissions(&old, Permissions::from_mode(0o755)).expect("opened");
        for folder in [&new, &old, &old] {
            make_private(folder).expect("closed");
            let mode = fs::metadata(folder).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
    }
}
