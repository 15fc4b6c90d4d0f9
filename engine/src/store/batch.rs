//! A batch: the writes of one command, with placeholders for positions that are assigned when it is staged.

use bytes::Bytes;

use super::{
    backend::{Change, Family},
    key::{Slot, position_bytes},
    key_bytes::KeyBytes,
    overlay::Rows,
};
use crate::core::num::StreamPos;

/// One write of a batch, before its positions are known.
#[derive(Debug)]
pub(crate) struct Write {
    pub family: Family,
    pub key: KeyBytes,
    pub key_slot: Option<Slot>,
    pub kind: WriteKind,
}

#[derive(Debug)]
pub(crate) enum WriteKind {
    Put(Bytes, Option<Slot>),
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

fn filled(value: Bytes, slot: Option<Slot>, first: StreamPos) -> Bytes {
    if slot.is_none() {
        return value;
    }
    let mut value = value.to_vec();
    fill(&mut value, slot, first);
    value.into()
}

impl Write {
    /// Fills in its position in `rows`, the batch's as its transaction sees them, if it is what they have under its key.
    pub fn fill_in(&self, rows: &mut Rows, first: StreamPos) {
        let (value, slot) = match &self.kind {
            WriteKind::Put(value, slot) => (Some(value), *slot),
            WriteKind::Delete => (None, None),
            WriteKind::DeleteRange(_) => return,
        };
        let is_open = self.key_slot.is_some() || slot.is_some();
        if !is_open || rows.get(&self.key).is_none_or(|row| row.as_ref() != value) {
            return;
        }
        let mut key = self.key.clone();
        fill(&mut key, self.key_slot, first);
        rows.remove(&self.key);
        rows.insert(key, value.map(|value| filled(value.clone(), slot, first)));
    }
}

impl Batch {
    /// Fills in the positions, the first of which is `first`.
    pub fn resolve(self, first: StreamPos) -> Vec<Change> {
        let resolve = |mut write: Write| {
            fill(&mut write.key, write.key_slot, first);
            match write.kind {
                WriteKind::Put(value, slot) => {
                    Change::Put(write.family, write.key, filled(value, slot, first))
                }
                WriteKind::Delete => Change::Delete(write.family, write.key),
                WriteKind::DeleteRange(end) => Change::DeleteRange(write.family, write.key.into(), end),
            }
        };
        self.writes.into_iter().map(resolve).collect()
    }
}
