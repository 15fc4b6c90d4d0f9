//! A file that an option names, with where it is named, so that a file of no use is refused like a wrong value.

use std::fmt::Display;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::source::{ConfigError, Origin};

/// The path of a file or folder, and the option that it was given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    path: PathBuf,
    option: &'static str,
    origin: Origin,
}

impl NamedFile {
    pub fn new(path: impl Into<PathBuf>, option: &'static str, origin: Origin) -> NamedFile {
        NamedFile { path: path.into(), option, origin }
    }

    /// The sentence for a file that is not there, cannot be read or is not what it should be.
    pub fn unusable(&self, error: impl Display) -> String {
        let message = format!("{}: cannot use {}: {error}", self.option, self.path.display());
        ConfigError { origin: self.origin.clone(), message }.to_string()
    }
}

impl Deref for NamedFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for NamedFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
