//! A snapshot of a room's state, as authorisation reads it.

use std::sync::Arc;

use super::Event;
use crate::{
    core::{
        auth::AuthState,
        event::Pdu,
        num::{NodeId, RoomNum},
        power_levels::PowerLevels,
        version::RoomVersion,
    },
    store::{Reader, StorageError},
};

/// The state that an event is judged by.
pub(super) struct SnapshotState<'a> {
    pub reader: &'a Reader,
    pub room: RoomNum,
    pub snapshot: NodeId,
    /// Where the snapshot lacks members: the event's own auth events, from which they are taken. Else empty.
    pub instead: &'a [Arc<Event>],
}

impl SnapshotState<'_> {
    fn find(&self, kind: &str, state_key: &str) -> Result<Option<Arc<Event>>, StorageError> {
        match self.reader.state_event(self.room, self.snapshot, kind, state_key)? {
            None if kind == "m.room.member" => find_in(self.instead, kind, state_key),
            found => Ok(found),
        }
    }
}

impl AuthState for SnapshotState<'_> {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.find(kind, state_key).ok().flatten()?.pdu().ok()
    }

    fn power_levels(&self, _: &RoomVersion) -> Option<Arc<PowerLevels>> {
        power_levels(|kind| self.find(kind, "")).ok().flatten()
    }
}

/// The same, of which most of what will be asked for was read before, so that failures were told.
pub(super) struct ReadAhead<'a> {
    /// Type, state key, and what the snapshot has there.
    pub read: Vec<(&'a str, &'a str, Option<Arc<Event>>)>,
    pub state: SnapshotState<'a>,
}

impl ReadAhead<'_> {
    fn find(&self, kind: &str, state_key: &str) -> Result<Option<Arc<Event>>, StorageError> {
        match self.read.iter().find(|read| read.0 == kind && read.1 == state_key) {
            Some((_, _, Some(event))) => Ok(Some(event.clone())),
            Some((_, _, None)) if self.state.instead.is_empty() => Ok(None),
            _ => self.state.find(kind, state_key),
        }
    }
}

impl AuthState for ReadAhead<'_> {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.find(kind, state_key).ok().flatten()?.pdu().ok()
    }

    fn power_levels(&self, _: &RoomVersion) -> Option<Arc<PowerLevels>> {
        power_levels(|kind| self.find(kind, "")).ok().flatten()
    }
}

/// The events that an event names as those that allow it.
pub(super) struct ListedState<'a> {
    pub auth_events: &'a [Arc<Event>],
    /// The room's create event, which room version 12 does not name.
    pub create: Option<&'a Arc<Event>>,
}

impl ListedState<'_> {
    fn find(&self, kind: &str, state_key: &str) -> Result<Option<Arc<Event>>, StorageError> {
        match self.create {
            Some(create) if kind == "m.room.create" && state_key.is_empty() => Ok(Some(create.clone())),
            _ => find_in(self.auth_events, kind, state_key),
        }
    }
}

impl AuthState for ListedState<'_> {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.find(kind, state_key).ok().flatten()?.pdu().ok()
    }

    fn power_levels(&self, _: &RoomVersion) -> Option<Arc<PowerLevels>> {
        power_levels(|kind| self.find(kind, "")).ok().flatten()
    }
}

fn find_in(events: &[Arc<Event>], kind: &str, state_key: &str) -> Result<Option<Arc<Event>>, StorageError> {
    for event in events {
        if event.pdu()?.is_state(kind, state_key) {
            return Ok(Some(event.clone()));
        }
    }
    Ok(None)
}

/// The power levels by a state; those by default where it has set none, nothing where it has no create event.
pub(super) fn power_levels(
    find: impl Fn(&str) -> Result<Option<Arc<Event>>, StorageError>,
) -> Result<Option<Arc<PowerLevels>>, StorageError> {
    let Some(create) = find("m.room.create")? else { return Ok(None) };
    let event = find("m.room.power_levels")?.unwrap_or_else(|| create.clone());
    event.power_levels(&create).map(Some)
}
