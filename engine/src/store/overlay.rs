//! What is staged and not yet known to be on disk: rows over the store, visible to the transactions that come after.
//!
//! Small batches lie in one map, because there may be many of them; a large one is a layer of its own, so that its rows are
//! neither copied nor looked through when it goes. Invariant: of several rows under one key, that of the batch staged last
//! counts.

use std::{
    collections::{BTreeMap, btree_map::Range},
    ops::Bound,
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Change, key::prefix_end, key_bytes::KeyBytes, schema::family_of};

/// Rows from which on a batch is a layer of its own.
pub(super) const LAYER_ROWS_MIN: usize = 512;

/// Rows that were written but are not in the base they lie over; `None` for a removed key. A key begins with the id of its
/// keyspace, which is in one family, so that families need not be told apart.
pub(super) type Rows = BTreeMap<KeyBytes, Option<Bytes>>;

/// One of them.
pub(super) type Row = (KeyBytes, Option<Bytes>);

/// A removed range of keys.
pub(super) type RemovedRange = (Vec<u8>, Vec<u8>);

/// What one large batch lays over the store: first it removes ranges, then it writes rows.
pub(crate) struct Laid {
    pub rows: Rows,
    pub removed: Vec<RemovedRange>,
}

impl Laid {
    /// The changes that make it, in the order of their keys, in which stores take rows in fastest. Nothing if it removes
    /// ranges, or has a key of no keyspace.
    pub fn changes(&self) -> Option<Vec<Change>> {
        let change = |(key, value): (&KeyBytes, &Option<Bytes>)| {
            let family = family_of(key)?;
            Some(match value {
                Some(value) => Change::Put(family, key.clone(), value.clone()),
                None => Change::Delete(family, key.clone()),
            })
        };
        self.removed.is_empty().then(|| self.rows.iter().map(change).collect()).flatten()
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Overlay {
    layers: RwLock<Layers>,
}

#[derive(Default)]
struct Layers {
    /// Of small batches, each with the number of its batch.
    rows: BTreeMap<KeyBytes, (u64, Option<Bytes>)>,
    /// Of large batches, the oldest first.
    large: Vec<(u64, Rows)>,
    removed: Vec<(u64, RemovedRange)>,
}

impl Layers {
    fn remove(&mut self, ticket: u64, range: RemovedRange) {
        self.rows.retain(|key, _| !covers(&range, key));
        self.large.iter_mut().for_each(|(_, rows)| rows.retain(|key, _| !covers(&range, key)));
        self.removed.push((ticket, range));
    }

    /// The row that counts under a key.
    fn row(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        let small = self.rows.get(key).map(|(ticket, value)| (*ticket, value));
        let large = self.large.iter().rev().find_map(|(ticket, rows)| Some((*ticket, rows.get(key)?)));
        match (small, large) {
            (Some(small), Some(large)) => Some(if small.0 > large.0 { small.1 } else { large.1 }),
            (small, large) => small.or(large).map(|row| row.1),
        }
    }
}

impl Overlay {
    /// Lays the changes of the batch staged as number `ticket` over what is there.
    pub fn lay(&self, ticket: u64, changes: &[Change]) {
        let mut layers = self.layers.write();
        for change in changes {
            match change {
                Change::Put(_, key, value) => {
                    layers.rows.insert(key.clone(), (ticket, Some(value.clone())));
                }
                Change::Delete(_, key) => {
                    layers.rows.insert(key.clone(), (ticket, None));
                }
                Change::DeleteRange(_, start, end) => layers.remove(ticket, (start.clone(), end.clone())),
            }
        }
    }

    /// Lays a large batch over what is there.
    pub fn lay_large(&self, ticket: u64, laid: Laid) {
        let mut layers = self.layers.write();
        laid.removed.into_iter().for_each(|range| layers.remove(ticket, range));
        layers.large.push((ticket, laid.rows));
    }

    /// Forgets what batches up to `ticket` laid: it is on disk now.
    pub fn lift(&self, ticket: u64) {
        let mut layers = self.layers.write();
        layers.rows.retain(|_, (laid, _)| *laid > ticket);
        layers.removed.retain(|(laid, _)| *laid > ticket);
        let settled = layers.large.partition_point(|(laid, _)| *laid <= ticket);
        let gone: Vec<(u64, Rows)> = layers.large.drain(..settled).collect();
        // Nobody has to wait until it is dropped.
        drop(layers);
        drop(gone);
    }

    /// What lies over the store under `key`; `Some(None)` if it is removed.
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let layers = self.layers.read();
        if let Some(value) = layers.row(key) {
            return Some(value.clone());
        }
        layers.removed.iter().any(|(_, range)| covers(range, key)).then_some(None)
    }

    /// What lies over the store from `start` up to `end`.
    pub fn copy_range(&self, start: &[u8], end: Option<&[u8]>) -> (Rows, Vec<RemovedRange>) {
        let layers = self.layers.read();
        let small = within(&layers.rows, start, end);
        let mut rows: Rows = small.map(|(key, (_, value))| (key.clone(), value.clone())).collect();
        for (ticket, large) in &layers.large {
            for (key, value) in within(large, start, end) {
                if layers.rows.get(&**key).is_none_or(|(laid, _)| laid < ticket) {
                    rows.insert(key.clone(), value.clone());
                }
            }
        }
        (rows, layers.removed.iter().map(|(_, range)| range.clone()).collect())
    }
}

pub(super) fn covers((start, end): &RemovedRange, key: &[u8]) -> bool {
    start.as_slice() <= key && key < end.as_slice()
}

/// The rows from `start` up to `end`; without an end, to that of the keyspace.
pub(super) fn within<'a, V>(
    rows: &'a BTreeMap<KeyBytes, V>,
    start: &[u8],
    end: Option<&[u8]>,
) -> Range<'a, KeyBytes, V> {
    let of_keyspace;
    let end = match end {
        // An empty range written backwards would panic in the map; it is made an empty one instead.
        Some(end) => Some(end.max(start)),
        None => {
            of_keyspace = start.first().and_then(|keyspace| prefix_end(&[*keyspace]));
            of_keyspace.as_deref()
        }
    };
    let end = end.map_or(Bound::Unbounded, Bound::Excluded);
    rows.range::<[u8], _>((Bound::Included(start), end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Family;

    /// What a batch does under one of a few keys, or to a range of them.
    #[derive(Clone, Debug)]
    enum Act {
        Put(u8, u8),
        Delete(u8),
        DeleteRange(u8, u8),
    }

    fn key(number: u8) -> Vec<u8> {
        vec![1, number]
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            (0..8_u8, any::<u8>()).prop_map(|(key, value)| Act::Put(key, value)),
            (0..8_u8).prop_map(Act::Delete),
            (0..8_u8, 0..9_u8).prop_map(|(start, end)| Act::DeleteRange(start, start.max(end))),
        ];
        proptest::collection::vec(act, 0..6)
    }

    fn change(act: &Act) -> Change {
        match act {
            Act::Put(number, value) => Change::Put(Family::Meta, key(*number).into(), vec![*value].into()),
            Act::Delete(number) => Change::Delete(Family::Meta, key(*number).into()),
            Act::DeleteRange(start, end) => Change::DeleteRange(Family::Meta, key(*start), key(*end)),
        }
    }

    /// A batch as a transaction has it.
    fn laid(acts: &[Act]) -> Laid {
        let mut laid = Laid { rows: Rows::new(), removed: Vec::new() };
        for act in acts {
            match act {
                Act::Put(number, value) => {
                    laid.rows.insert(KeyBytes::from(&*key(*number)), Some(vec![*value].into()));
                }
                Act::Delete(number) => {
                    laid.rows.insert(KeyBytes::from(&*key(*number)), None);
                }
                Act::DeleteRange(start, end) => {
                    let range = (key(*start), key(*end));
                    laid.rows.retain(|key, _| !covers(&range, key));
                    laid.removed.push(range);
                }
            }
        }
        laid
    }

    proptest! {
        #[test]
        fn large_and_small_batches_lie_over_each_other_in_their_order(
            batches in proptest::collection::vec((acts(), any::<bool>()), 0..8),
            lifted in 0..8_usize,
        ) {
            let overlay = Overlay::default();
            for (index, (acts, is_large)) in batches.iter().enumerate() {
                match is_large {
                    true => overlay.lay_large(index as u64, laid(acts)),
                    false => overlay.lay(index as u64, &acts.iter().map(change).collect::<Vec<_>>()),
                }
            }
            overlay.lift(lifted as u64);
            // The same, act by act: what lies there of a key that later batches wrote or removed.
            let mut expected: BTreeMap<u8, Option<u8>> = BTreeMap::new();
            for act in batches.iter().skip(lifted + 1).flat_map(|(acts, _)| acts) {
                match act {
                    Act::Put(number, value) => expected.extend([(*number, Some(*value))]),
                    Act::Delete(number) => expected.extend([(*number, None)]),
                    Act::DeleteRange(start, end) => expected.extend((*start..*end).map(|key| (key, None))),
                }
            }
            let (rows, removed) = overlay.copy_range(&[1], None);
            for number in 0..9 {
                let got = overlay.get(&key(number)).map(|value| value.map(|value| value[0]));
                prop_assert_eq!(got, expected.get(&number).copied());
                let row = rows.get(&*key(number)).map(|value| value.as_ref().map(|value| value[0]));
                let is_removed = removed.iter().any(|range| covers(range, &key(number)));
                prop_assert_eq!(row.or(is_removed.then_some(None)), expected.get(&number).copied());
            }
        }
    }
}
