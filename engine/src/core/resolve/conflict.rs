//! The conflicted state set, from the differences of the snapshots' trees.

use super::StateGraph;
use super::hash::NumMap;
use crate::core::num::{EventNum, NodeId, StateKeyId};

/// The entries in which snapshots are not all the same, and what each has there.
pub(super) struct Conflicts {
    /// The first snapshot; what is not in conflict is the same in all.
    pub base: NodeId,
    keys: Vec<StateKeyId>,
    /// The rows of the table: one value for each snapshot, row after row in the order of `keys`.
    values: Vec<Option<EventNum>>,
    /// How many snapshots there are, each counted once.
    pub count: usize,
}

impl Conflicts {
    /// `None` where there is nothing to resolve. O(differences), for each snapshot but the first.
    pub fn between<G: StateGraph>(graph: &G, snapshots: &[NodeId]) -> Result<Option<Conflicts>, G::Error> {
        let mut distinct: Vec<NodeId> = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            if !distinct.contains(snapshot) {
                distinct.push(*snapshot);
            }
        }
        let Some((&base, others)) = distinct.split_first() else { return Ok(None) };
        let count = distinct.len();
        let mut conflicts = Conflicts { base, keys: Vec::new(), values: Vec::new(), count };
        let mut rows: NumMap<StateKeyId, usize> = NumMap::default();
        for (index, &other) in others.iter().enumerate() {
            for (key, before, after) in graph.difference(base, other)? {
                // A single difference names no key twice, so that two snapshots need no map.
                let row = match rows.get(&key) {
                    Some(&row) => row,
                    None => {
                        let row = conflicts.keys.len();
                        conflicts.keys.push(key);
                        conflicts.values.resize(conflicts.values.len() + count, before);
                        if others.len() > 1 {
                            rows.insert(key, row);
                        }
                        row
                    }
                };
                if let Some(value) = conflicts.values.get_mut(row * count + index + 1) {
                    *value = after;
                }
            }
        }
        Ok(if conflicts.keys.is_empty() { None } else { Some(conflicts) })
    }

    /// How many entries are in conflict.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Each entry with what the snapshots have there, in their order.
    pub fn rows(&self) -> impl Iterator<Item = (StateKeyId, &[Option<EventNum>])> {
        self.keys.iter().copied().zip(self.values.chunks_exact(self.count))
    }
}
