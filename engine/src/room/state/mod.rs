//! The state of rooms: snapshots as persistent search trees.
//!
//! Invariant: a snapshot is named by the id of its tree's root and never changes; [`tree::EMPTY`] is the empty one.
//! There are no rows of the current state beside the tree: its upper nodes are always in the cache, so that a look-up
//! costs no read, and state that is stored once cannot disagree with itself.
//! Not here: which events make up the state (`core::resolve`).

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

use crate::{
    core::num::{EventNum, NodeId, RoomNum, StateKeyId, TextNum, UserNum},
    engine,
    room::Event,
    store::{Reader, StorageError, Tx, schema},
};

pub mod node;
pub mod scan;
pub mod tree;

#[cfg(test)]
mod tests;

pub use node::Node;
use tree::{NodeRead, NodeStore, TreeError};

impl From<TreeError> for StorageError {
    fn from(error: TreeError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// A room's trees, for reading.
struct Trees<'a> {
    reader: &'a Reader,
    room: RoomNum,
}

impl NodeRead for Trees<'_> {
    type Error = StorageError;

    fn load(&self, id: u64) -> Result<Arc<Node>, StorageError> {
        load_node(self.reader, self.room, id)
    }
}

/// A room's trees, for writing.
struct TreesMut<'a> {
    tx: &'a mut Tx,
    room: RoomNum,
}

impl NodeRead for TreesMut<'_> {
    type Error = StorageError;

    fn load(&self, id: u64) -> Result<Arc<Node>, StorageError> {
        load_node(self.tx, self.room, id)
    }
}

impl NodeStore for TreesMut<'_> {
    fn store(&mut self, node: Node) -> Result<u64, StorageError> {
        let id = engine::next(&self.tx.shared.counters.nodes);
        let encoded = Bytes::from(node.encode());
        self.tx.put(&schema::STATE_NODES, &(self.room, NodeId(id)), &encoded);
        let node = Arc::new(node);
        // Ids are never given out twice, so a node of a batch that fails is only dead weight in the cache.
        self.tx.shared.nodes.insert(NodeId(id), node.clone(), node.memory_bytes());
        Ok(id)
    }
}

fn load_node(reader: &Reader, room: RoomNum, id: u64) -> Result<Arc<Node>, StorageError> {
    if let Some(node) = reader.shared.nodes.get(&NodeId(id)) {
        return Ok(node);
    }
    let bytes = reader
        .get(&schema::STATE_NODES, &(room, NodeId(id)))?
        .ok_or_else(|| StorageError::Corrupt(format!("node {id} of a state tree is missing")))?;
    let node = Arc::new(Node::decode(&bytes).map_err(|error| StorageError::Corrupt(error.to_string()))?);
    reader.shared.nodes.insert(NodeId(id), node.clone(), node.memory_bytes());
    Ok(node)
}

/// A change between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Which entry.
    pub key: StateKeyId,
    /// What it was.
    pub before: Option<EventNum>,
    /// What it is.
    pub after: Option<EventNum>,
}

impl Reader {
    /// The event number under (`kind`, `state_key`) in a snapshot. O(log n) cached nodes.
    pub fn state_num(
        &self,
        room: RoomNum,
        snapshot: NodeId,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<EventNum>, StorageError> {
        let (Some(kind), Some(state_key)) = (self.text_num(kind)?, self.text_num(state_key)?) else {
            return Ok(None);
        };
        self.state_num_at(room, snapshot, StateKeyId::new(kind, state_key))
    }

    /// The event number under a state key's id in a snapshot. O(log n) cached nodes.
    pub fn state_num_at(
        &self,
        room: RoomNum,
        snapshot: NodeId,
        key: StateKeyId,
    ) -> Result<Option<EventNum>, StorageError> {
        Ok(tree::get(&Trees { reader: self, room }, snapshot.0, key.0)?.map(EventNum))
    }

    /// The event under (`kind`, `state_key`) in a snapshot.
    pub fn state_event(
        &self,
        room: RoomNum,
        snapshot: NodeId,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, StorageError> {
        self.state_num(room, snapshot, kind, state_key)?.map(|num| self.event(num)).transpose()
    }

    /// Everything in a snapshot, by type. O(result).
    pub fn state_entries(
        &self,
        room: RoomNum,
        snapshot: NodeId,
    ) -> Result<Vec<(StateKeyId, EventNum)>, StorageError> {
        let trees = Trees { reader: self, room };
        scan::entries(&trees, snapshot.0)
            .map(|entry| entry.map(|(key, event)| (StateKeyId(key), EventNum(event))))
            .collect()
    }

    /// All entries of one type in a snapshot. O(result + log n).
    pub fn state_of_kind(
        &self,
        room: RoomNum,
        snapshot: NodeId,
        kind: TextNum,
    ) -> Result<Vec<(StateKeyId, EventNum)>, StorageError> {
        let trees = Trees { reader: self, room };
        let keys = StateKeyId::new(kind, TextNum(0)).0..=StateKeyId::new(kind, TextNum(u32::MAX)).0;
        scan::range(&trees, snapshot.0, keys)
            .map(|entry| entry.map(|(key, event)| (StateKeyId(key), EventNum(event))))
            .collect()
    }

    /// Everything in a snapshot but one type. O(result + log n).
    pub(crate) fn state_entries_except(
        &self,
        room: RoomNum,
        snapshot: NodeId,
        kind: TextNum,
    ) -> Result<Vec<(StateKeyId, EventNum)>, StorageError> {
        let trees = Trees { reader: self, room };
        let first = StateKeyId::new(kind, TextNum(0)).0;
        let last = StateKeyId::new(kind, TextNum(u32::MAX)).0;
        let below = (first > 0).then(|| 0..=first - 1);
        let above = (last < u64::MAX).then(|| last + 1..=u64::MAX);
        let ranges = below.into_iter().chain(above);
        ranges
            .flat_map(|keys| scan::range(&trees, snapshot.0, keys))
            .map(|entry| entry.map(|(key, event)| (StateKeyId(key), EventNum(event))))
            .collect()
    }

    /// What differs between two snapshots. O(changes).
    pub fn state_difference(
        &self,
        room: RoomNum,
        before: NodeId,
        after: NodeId,
    ) -> Result<Vec<StateChange>, StorageError> {
        let mut changes = Vec::new();
        self.each_state_difference(room, before, after, |change| changes.push(change))?;
        Ok(changes)
    }

    /// The same one by one, for who does not keep them.
    pub(crate) fn each_state_difference(
        &self,
        room: RoomNum,
        before: NodeId,
        after: NodeId,
        mut each: impl FnMut(StateChange),
    ) -> Result<(), StorageError> {
        let trees = Trees { reader: self, room };
        for change in scan::diff(&trees, before.0, after.0) {
            let scan::Difference { key, before, after } = change?;
            let (before, after) = (before.map(EventNum), after.map(EventNum));
            each(StateChange { key: StateKeyId(key), before, after });
        }
        Ok(())
    }

    /// Adds the nodes of a snapshot to `marked`. A node that is in it is taken to be there with all below it.
    pub(crate) fn mark_snapshot(
        &self,
        room: RoomNum,
        snapshot: NodeId,
        marked: &mut HashSet<u64>,
    ) -> Result<(), StorageError> {
        scan::reachable(&Trees { reader: self, room }, snapshot.0, marked)
    }

    /// The membership event of a user in a snapshot.
    pub fn member_event(
        &self,
        room: RoomNum,
        snapshot: NodeId,
        user: UserNum,
    ) -> Result<Option<Arc<Event>>, StorageError> {
        let user_id = self.user_id(user)?;
        self.state_event(room, snapshot, "m.room.member", &user_id)
    }
}

/// The snapshot that follows from `snapshot` by setting one entry. O(log n) new nodes.
pub(crate) fn set(
    tx: &mut Tx,
    room: RoomNum,
    snapshot: NodeId,
    key: StateKeyId,
    event: EventNum,
) -> Result<NodeId, StorageError> {
    Ok(NodeId(tree::insert(&mut TreesMut { tx, room }, snapshot.0, key.0, event.0)?))
}

/// The snapshot that follows from `snapshot` by changing entries. O(changes × log n) new nodes.
pub(crate) fn apply(
    tx: &mut Tx,
    room: RoomNum,
    snapshot: NodeId,
    changes: &[(StateKeyId, Option<EventNum>)],
) -> Result<NodeId, StorageError> {
    let changes = changes.iter().map(|(key, event)| (key.0, event.map(|event| event.0)));
    Ok(NodeId(tree::apply(&mut TreesMut { tx, room }, snapshot.0, changes)?))
}

/// A snapshot of these entries, of which each key may occur once. O(n).
pub(crate) fn build(
    tx: &mut Tx,
    room: RoomNum,
    mut entries: Vec<(StateKeyId, EventNum)>,
) -> Result<NodeId, StorageError> {
    entries.sort_unstable();
    entries.dedup_by_key(|(key, _)| *key);
    let entries = entries.into_iter().map(|(key, event)| (key.0, event.0));
    Ok(NodeId(tree::build(&mut TreesMut { tx, room }, entries)?))
}
