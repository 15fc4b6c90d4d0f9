//! The seam to an ordered key-value engine. Nothing above it may assume local disk, iterators or RocksDB.
//!
//! Invariant: a committed batch is visible whole or not at all; a snapshot never changes.
//!
//! A commit that fails may have been written all the same: a log record that reached the disk though its sync did not
//! return, an answer that the network lost. What holds then is said at [`Backend::commit`], and is as much as both a
//! local disk and a distributed engine can promise.

use std::sync::Arc;

use bytes::Bytes;

use super::{KeyBytes, StorageError};

pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;

/// A group of keyspaces that are stored and tuned together. Few, because each has write buffers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Small singular facts: lineage, schema version, reserved positions, keys.
    Meta = 0,
    /// Names to numbers and back.
    Names = 1,
    /// Event headers and every index over events.
    Events = 2,
    /// Event JSON: large, written once, read to answer clients.
    Bodies = 3,
    /// Rooms: heads, current state, state trees, members, receipts, aliases.
    Rooms = 4,
    /// Users: accounts, sessions, account data, devices, keys, media.
    Users = 5,
    /// Queues that are filled and emptied: to-device messages, outboxes.
    Queues = 6,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 7] =
        [Self::Meta, Self::Names, Self::Events, Self::Bodies, Self::Rooms, Self::Users, Self::Queues];

    /// The family's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Names => "names",
            Self::Events => "events",
            Self::Bodies => "bodies",
            Self::Rooms => "rooms",
            Self::Users => "users",
            Self::Queues => "queues",
        }
    }
}

/// One change of a batch, with positions filled in.
#[derive(Clone, Debug)]
pub enum Change {
    /// Writes a value.
    Put(Family, KeyBytes, Bytes),
    /// Removes a key; no error if it is not there.
    Delete(Family, KeyBytes),
    /// Removes all keys from the first up to, not including, the second.
    DeleteRange(Family, Vec<u8>, Vec<u8>),
}

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Acknowledged means on disk.
    Commit,
    /// Acknowledged means handed to the operating system: lost on power failure, kept when the process dies.
    Relaxed,
}

/// The direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key up.
    Forward,
    /// From the largest key down.
    Backward,
}

/// Receives each key and value of a scan; returns whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// Reads: of the latest state (the backend itself) or of a moment (a snapshot).
pub trait Read: Send + Sync {
    /// The value under `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError>;
    /// The values under many keys, in their order.
    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StorageError>;
    /// Visits the keys in `start..end` (no end: to the family's last key) in `direction` until `visit` says stop.
    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError>;
}

/// An ordered key-value engine.
pub trait Backend: Read {
    /// The state of this moment, for as long as it is held.
    fn snapshot(&self) -> Arc<dyn Read>;
    /// Applies all changes at once, in order. Only one commit at a time is asked for.
    ///
    /// Errors: the batch is visible whole or not at all, and a read tells which; if it is visible, it is as durable as if
    /// the commit had succeeded. If it is not, it may still be there after the store is opened anew, but only until the
    /// next commit that succeeds: from then on it never comes back.
    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StorageError>;
    /// Writes what is only in memory to files, and returns when it is there.
    fn flush(&self) -> Result<(), StorageError>;
    /// Gives the disk back what removed keys in `start..end` (no end: to the family's last key) still take there. Reads
    /// and commits go on meanwhile.
    fn compact(&self, family: Family, start: &[u8], end: Option<&[u8]>) -> Result<(), StorageError>;
    /// Bytes of its log, at least, that it could not read when it was opened: what was written from there on is lost. A power
    /// cut leaves some where it stopped a write, of which nobody was told; a damaged disk, anywhere.
    fn unreadable_bytes(&self) -> u64 {
        0
    }
    /// Figures about the engine for the metrics, by name.
    fn figures(&self) -> Vec<(&'static str, u64)>;
}
