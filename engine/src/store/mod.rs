//! The store: typed keyspaces over an ordered key-value engine.
//!
//! Invariant: every write is part of one batch that a transaction made, and only `engine.rs` commits batches.

mod backend;
mod batch;
mod cache;
mod hash;
mod intern;
mod key;
mod key_bytes;
mod numbers;
mod overlay;
mod random;
// Public for the tests and fuzz targets of this repository, and for the few types that the crate's root shows; rows and their
// keyspaces are nobody else's.
#[doc(hidden)]
pub mod schema;
#[cfg(feature = "testing")]
pub mod testing;
mod time_marks;
mod tx;
mod value;

#[cfg(feature = "rocksdb")]
pub use backend::rocks::{OPEN_FILES_MAX, Rocks};
pub use backend::{
    Backend, Change, Direction, Durability, Family, Read,
    memory::{Faults, Memory},
};
pub(crate) use batch::Batch;
pub(crate) use cache::Cache;
pub(crate) use hash::NumberHash;
pub(crate) use intern::{CarriedName, InternedKind, Interner, next_numbers};
pub(crate) use key::RestOfKey;
pub use key::{Key, KeyReader, KeyWriter};
pub use key_bytes::KeyBytes;
pub(crate) use overlay::Overlay;
pub(crate) use time_marks::{HOUR_MS, expired, old_marks};
pub(crate) use tx::Base;
pub use tx::{Reader, Tx};
pub use value::{Encoded, Positioned, Value, ValueWriter};
pub(crate) use value::{read_record, read_record_before, record, write_record};

/// What can be wrong with the store itself. Only the operator can act on it.
#[derive(Clone, Debug, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum StorageError {
    /// The disk or the operating system refused.
    #[error("the store could not read or write: {0}")]
    Io(String),
    /// Something stored is not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// Another process has the database open.
    #[error("another process is using this database")]
    InUse,
    /// The database is not Warren's.
    #[error("the folder holds a database that is not Warren's; it was left untouched")]
    Foreign,
    /// There is no database, and none was to be made.
    #[error("there is no database")]
    Absent,
    /// A part of the database is missing, as in a copy that was not put back whole.
    #[error(
        "the database is incomplete, {0} is missing in its folder: put the copy back whole; what is there was left untouched"
    )]
    Incomplete(&'static str),
    /// The database was written by a newer version, or by one from before the first release.
    #[error(
        "the database has schema version {found}, this version of Warren knows {known}; it was left untouched"
    )]
    OtherSchema {
        /// The version in the database.
        found: u32,
        /// The version this code reads.
        known: u32,
    },
    /// The database belongs to a server of another name.
    #[error("the database is of the server {0}; a database keeps its server's name for ever")]
    OtherServer(String),
    /// A key, value or batch is over the limits of the backend.
    #[error("a write is larger than the store takes")]
    TooLarge,
    /// An earlier write of the same group failed, so that this one was given up too; it may be tried again.
    #[error("a write that this one builds on failed")]
    Abandoned,
}

impl From<std::io::Error> for StorageError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// The bytes of a key, or of the first parts of one, for the few that name rows outside of a transaction.
pub(crate) fn encode_key<K: Key, V: Value, P: Key>(keyspace: &schema::Keyspace<K, V>, key: &P) -> Vec<u8> {
    key::encode(keyspace.id, key).bytes.into()
}
