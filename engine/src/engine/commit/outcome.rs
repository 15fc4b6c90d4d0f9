//! Whether a batch is in effect: what is read back after a commit that failed.
//!
//! Invariant: only asked while nothing else is committed, so that what the batch leaves is what the store holds, or not.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::store::{Backend, Change, Direction, Family, StorageError};

/// What a batch leaves: for each key that it names, its value or nothing, and ranges that hold no other key.
#[derive(Default)]
struct Effect<'a> {
    rows: BTreeMap<(Family, &'a [u8]), Option<&'a Bytes>>,
    emptied: Vec<(Family, &'a [u8], &'a [u8])>,
}

impl<'a> Effect<'a> {
    fn of(changes: &'a [Change]) -> Self {
        let mut effect = Self::default();
        for change in changes {
            match change {
                Change::Put(family, key, value) => {
                    effect.rows.insert((*family, key), Some(value));
                }
                Change::Delete(family, key) => {
                    effect.rows.insert((*family, key), None);
                }
                Change::DeleteRange(family, start, end) => {
                    effect.rows.retain(|(found, key), _| {
                        found != family || *key < start.as_slice() || *key >= end.as_slice()
                    });
                    effect.emptied.push((*family, start, end));
                }
            }
        }
        effect
    }
}

/// Whether the store is as the batch leaves it. The batch is atomic, so it is if and only if it was written, or changes
/// nothing.
pub(super) fn is_in_effect(backend: &dyn Backend, changes: &[Change]) -> Result<bool, StorageError> {
    let effect = Effect::of(changes);
    for ((family, key), value) in &effect.rows {
        if backend.get(*family, key)?.as_ref() != *value {
            return Ok(false);
        }
    }
    for (family, start, end) in &effect.emptied {
        let mut is_empty = true;
        backend.scan(*family, start, Some(end), Direction::Forward, &mut |key, _| {
            is_empty = matches!(effect.rows.get(&(*family, key)), Some(Some(_)));
            is_empty
        })?;
        if !is_empty {
            return Ok(false);
        }
    }
    Ok(true)
}
