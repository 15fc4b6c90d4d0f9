//! The data folder: made with private permissions, and used by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Holds the folder until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Makes the folder if need be and takes it. Errors: a sentence; in use by another process for instance.
pub fn lock(folder: &Path) -> Result<Lock, String> {
    let failed = |error: std::io::Error| format!("cannot use the data folder {}: {error}", folder.display());
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
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
}
