//! The state of a room as a user may see it: now for members, as of their leaving for those who were members.
//!
//! Specification: client-server API, `GET /rooms/{roomId}/state` and `…/state/{eventType}/{stateKey}`.

use bytes::Bytes;

use crate::{
    core::{event::ClientFormat, json::write_object, num::NodeId},
    error::{Denied, Error, Result, What},
    room::{RoomCtx, visibility::Viewer},
    store::Reader,
    view::{
        View,
        render::{Asker, Renderer},
    },
};

/// All state events that the user may see.
pub struct RoomState {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user_id: String,
}

impl View for RoomState {
    /// A JSON array of events.
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        let (room, snapshot) = visible_state(reader, &self.room_id, &self.user_id)?;
        let entries = reader.state_entries(room.num, snapshot)?;
        let nums: Vec<_> = entries.into_iter().map(|(_, event)| event).collect();
        let mut out = vec![b'['];
        let events = reader.events(&nums)?;
        renderer(reader, &room, &self.user_id)?.write_state(&mut out, &events)?;
        out.push(b']');
        Ok(out.into())
    }
}

/// One state event that the user may see.
pub struct RoomStateEvent {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user_id: String,
    /// The event's type.
    pub kind: String,
    /// The event's state key.
    pub state_key: String,
    /// Whether the whole event is wanted, not only its content.
    pub is_whole: bool,
}

impl View for RoomStateEvent {
    /// The event's content, or the event, as JSON.
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        let (room, snapshot) = visible_state(reader, &self.room_id, &self.user_id)?;
        let event = reader.state_event(room.num, snapshot, &self.kind, &self.state_key)?;
        let event = event.ok_or(Error::NotFound(What::State))?;
        let mut out = Vec::with_capacity(event.json.len());
        match self.is_whole {
            true => renderer(reader, &room, &self.user_id)?.write_state(&mut out, &[event])?,
            false => write_object(&mut out, &event.pdu()?.content),
        }
        Ok(out.into())
    }
}

fn renderer<'r>(reader: &'r Reader, room: &RoomCtx, user_id: &str) -> Result<Renderer<'r>> {
    let asker = reader.user_num(user_id)?.map(|user| Asker { user, device: None });
    Ok(Renderer::new(reader, room.num, ClientFormat::Room, asker)?)
}

/// The snapshot of the room that the user may see.
///
/// Errors: [`Denied::NotInRoom`] for a user who is not and never was a member, unless the world may read the room.
pub(crate) fn visible_state(reader: &Reader, room_id: &str, user_id: &str) -> Result<(RoomCtx, NodeId)> {
    let (viewer, access) = Viewer::enter(reader, room_id, user_id)?;
    let room = RoomCtx::find(reader, room_id)?.ok_or(Denied::NotInRoom)?;
    Ok((room, viewer.snapshot(access)?))
}
