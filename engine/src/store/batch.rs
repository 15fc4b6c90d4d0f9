//! A batch: the writes of one command, with placeholders for positions that are assigned when it is staged.

use bytes::Bytes;

use super::{
    backend::{Change, Family},
    key::{Slot, position_bytes},
};
use crate::core::num::StreamPos;

/// One write of a batch, before its positions are known.
#[derive(Debug)]
pub(crate) struct Write {
    pub family: Family,
    pub key: Vec<u8>,
    pub key_slot: Option<Slot>,
    pub kind: WriteKind,
}

#[derive(Debug)]
pub(crate) enum WriteKind {
    Put(Vec<u8>, Option<Slot>),
    Delete,
    DeleteRange(Vec<u8>),
}

/// The writes of one command.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub writes: Vec<Write>,
    /// How many positions it takes.
    pub positions: u32,
}

fn fill(bytes: &mut [u8], slot: Option<Slot>, first: StreamPos) {
    if let Some(Slot { offset, index }) = slot {
        let offset = offset as usize;
        if let Some(place) = bytes.get_mut(offset..offset + 8) {
            place.copy_from_slice(&position_bytes(StreamPos(first.0 + i64::from(index))));
        }
    }
}

impl Batch {
    /// Fills in the positions, the first of which is `first`.
    pub fn resolve(self, first: StreamPos) -> Vec<Change> {
        let resolve = |mut write: Write| {
            fill(&mut write.key, write.key_slot, first);
            match write.kind {
                WriteKind::Put(mut value, slot) => {
                    fill(&mut value, slot, first);
                    Change::Put(write.family, write.key, Bytes::from(value))
                }
                WriteKind::Delete => Change::Delete(write.family, write.key),
                WriteKind::DeleteRange(end) => Change::DeleteRange(write.family, write.key, end),
            }
        };
        self.writes.into_iter().map(resolve).collect()
    }
}
