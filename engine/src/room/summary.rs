//! What a room shows of itself to those who are not in it: an entry of the directory.
//!
//! Specification: client-server API, `GET /publicRooms`.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{RoomCtx, membership::allows_guests, world_readable};
use crate::{
    error::Result,
    store::{Reader, StorageError},
};

/// A room as those see it who are not in it.
#[derive(Clone, Debug, Serialize)]
pub struct RoomSummary {
    /// Its id.
    pub room_id: Arc<str>,
    /// How many are joined.
    pub num_joined_members: u64,
    /// Whether its history may be read by everybody.
    pub world_readable: bool,
    /// Whether guests may join.
    pub guest_can_join: bool,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its topic as plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its main alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    /// The address of its picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// Who may join; `public` where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_rule: Option<String>,
    /// What kind of room it is: `m.space` for a space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

/// The summary of a room. About eight look-ups in its state.
pub(crate) fn summary(reader: &Reader, room: &RoomCtx) -> Result<RoomSummary> {
    Ok(RoomSummary {
        room_id: room.id.clone(),
        num_joined_members: room.head.joined,
        world_readable: world_readable(reader, room)?,
        guest_can_join: allows_guests(reader, room)?,
        name: text(reader, room, "m.room.name", "name")?,
        topic: text(reader, room, "m.room.topic", "topic")?,
        canonical_alias: text(reader, room, "m.room.canonical_alias", "alias")?,
        avatar_url: text(reader, room, "m.room.avatar", "url")?,
        join_rule: text(reader, room, "m.room.join_rules", "join_rule")?,
        room_type: text(reader, room, "m.room.create", "type")?,
    })
}

/// A text that is not empty in the content of a state event.
fn text(reader: &Reader, room: &RoomCtx, kind: &str, key: &str) -> Result<Option<String>, StorageError> {
    let Some(event) = room.state(reader, kind, "")? else { return Ok(None) };
    let pdu = event.pdu()?;
    let value = pdu.content.get(key).and_then(Value::as_str);
    Ok(value.filter(|value| !value.is_empty()).map(str::to_owned))
}
