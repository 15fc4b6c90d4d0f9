//! A room as a command works on it: its head, loaded once and saved once.

use std::sync::Arc;

use super::{Event, room_version, snapshot::power_levels, version_index};
use crate::{
    core::{
        num::{NodeId, RoomNum},
        power_levels::PowerLevels,
        version::RoomVersion,
    },
    error::{Conflict, Error, Result, What},
    store::{Reader, StorageError, Tx, schema, schema::RoomHead},
};

/// A room in the hands of one command, which holds its lane.
pub(crate) struct RoomCtx {
    pub num: RoomNum,
    pub id: Arc<str>,
    pub version: &'static RoomVersion,
    pub head: RoomHead,
}

impl RoomCtx {
    /// The room with this id. Errors: [`What::Room`] not found.
    pub fn load(reader: &Reader, room_id: &str) -> Result<Self> {
        Self::find(reader, room_id)?.ok_or(Error::NotFound(What::Room))
    }

    /// The room with this id, if this server is in it.
    pub fn find(reader: &Reader, room_id: &str) -> Result<Option<Self>, StorageError> {
        let Some(num) = reader.room_num(room_id)? else { return Ok(None) };
        let Some(head) = reader.get(&schema::ROOM_HEADS, &num)? else { return Ok(None) };
        Ok(Some(Self { num, id: room_id.into(), version: room_version(head.version)?, head }))
    }

    /// A room that has no events yet. Errors: [`Conflict::PurgeRunning`] while what was there before is being removed.
    pub fn create(tx: &mut Tx, room_id: &str, version: &'static RoomVersion) -> Result<Self> {
        let num = tx.intern_room(room_id)?;
        if tx.has(&schema::PURGES, &num)? {
            return Err(Conflict::PurgeRunning.into());
        }
        let head = RoomHead {
            version: version_index(version),
            extremities: Vec::new(),
            depth: 0,
            state: NodeId(0),
            joined: 0,
            invited: 0,
            other_servers: 0,
            partial_state: false,
            forked: false,
        };
        Ok(Self { num, id: room_id.into(), version, head })
    }

    /// Writes the head back; the last thing a command does with a room.
    pub fn save(&self, tx: &mut Tx) {
        tx.put(&schema::ROOM_HEADS, &self.num, &self.head);
    }

    /// The current state event under (`kind`, `state_key`).
    pub fn state(
        &self,
        reader: &Reader,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, StorageError> {
        reader.state_event(self.num, self.head.state, kind, state_key)
    }

    /// The room's power levels, by default where it has set none; `None` before its create event.
    pub fn power_levels(&self, reader: &Reader) -> Result<Option<Arc<PowerLevels>>, StorageError> {
        power_levels(|kind| self.state(reader, kind, ""))
    }
}

/// Whether the room's history may be read by everybody.
pub(crate) fn world_readable(reader: &Reader, room: &RoomCtx) -> Result<bool, StorageError> {
    let Some(event) = room.state(reader, "m.room.history_visibility", "")? else { return Ok(false) };
    let visibility =
        event.pdu()?.content.get("history_visibility").and_then(|value| value.as_str().map(str::to_owned));
    Ok(visibility.as_deref() == Some("world_readable"))
}
