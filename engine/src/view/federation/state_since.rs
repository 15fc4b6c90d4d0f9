//! What changed in a room's current state since a moment, whatever changed it.

use std::sync::Arc;

use crate::{
    core::num::{EventNum, NodeId},
    error::Result,
    room::{RoomCtx, StateChange},
    store::Reader,
    view::View,
};

/// A room, and what its state was.
///
/// Nothing keeps that state but the room's own events: a purge of its history may take it.
pub struct StateSince<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The root of its state at that moment; nothing to be told the one of now.
    pub before: Option<NodeId>,
    /// Entries that are told one by one.
    pub limit: usize,
}

/// How a room's state differs from what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedState {
    /// Its root now.
    pub root: NodeId,
    /// How many entries are others.
    pub count: usize,
    /// The first of them.
    pub entries: Vec<ChangedEntry>,
}

/// An entry of the state that is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedEntry {
    /// The event's type.
    pub kind: Arc<str>,
    /// Its state key.
    pub state_key: Arc<str>,
    /// The event that stood there, if one did.
    pub before: Option<Arc<str>>,
    /// The event that stands there, if one does.
    pub after: Option<Arc<str>>,
}

impl View for StateSince<'_> {
    /// Errors: [`crate::What::Room`] not found; [`crate::StorageError::Corrupt`] if the state of that moment is gone.
    type Output = ChangedState;

    fn read(&self, reader: &Reader) -> Result<ChangedState> {
        let room = RoomCtx::load(reader, self.room_id)?;
        let root = room.head.state;
        let (mut count, mut listed) = (0, Vec::new());
        reader.each_state_difference(room.num, self.before.unwrap_or(root), root, |change| {
            count += 1;
            if listed.len() < self.limit {
                listed.push(change);
            }
        })?;
        let entries = listed.into_iter().map(|change| entry(reader, change)).collect::<Result<_>>()?;
        Ok(ChangedState { root, count, entries })
    }
}

fn entry(reader: &Reader, change: StateChange) -> Result<ChangedEntry> {
    let event_id = |num: Option<EventNum>| -> Result<Option<Arc<str>>> {
        Ok(num.map(|num| reader.event(num)).transpose()?.map(|event| event.event_id.clone()))
    };
    Ok(ChangedEntry {
        kind: reader.text(change.key.kind())?,
        state_key: reader.text(change.key.state_key())?,
        before: event_id(change.before)?,
        after: event_id(change.after)?,
    })
}
