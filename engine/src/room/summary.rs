//! What a room shows of itself to those who are not in it: an entry of the directory.
//!
//! Specification: client-server API, `GET /publicRooms`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{RoomCtx, membership::allows_guests, world_readable};
use crate::{
    core::{
        identifiers::{is_room_alias, is_room_id, server_name},
        json::INTEGER_MAX,
    },
    error::Result,
    store::{Reader, StorageError},
};

/// A room as those see it who are not in it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
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

/// The members of a summary as another server tells it. One of a wrong kind counts as none.
#[derive(Deserialize)]
struct ToldSummary<'a> {
    #[serde(borrow)]
    room_id: Option<&'a RawValue>,
    num_joined_members: Option<&'a RawValue>,
    world_readable: Option<&'a RawValue>,
    guest_can_join: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    topic: Option<&'a RawValue>,
    canonical_alias: Option<&'a RawValue>,
    avatar_url: Option<&'a RawValue>,
    join_rule: Option<&'a RawValue>,
    room_type: Option<&'a RawValue>,
}

impl RoomSummary {
    /// What another server tells of a room, as far as it makes sense; nothing if it names no room. Nothing of it is known to be
    /// true.
    pub fn read(told: &RawValue) -> Option<Self> {
        let told: ToldSummary = value(told)?;
        let text = |told: Option<&RawValue>| value::<String>(told?).filter(|text| !text.is_empty());
        let is = |told: Option<&RawValue>| told.and_then(value).unwrap_or(false);
        let joined = told.num_joined_members.and_then(value::<u64>);
        Some(Self {
            room_id: text(told.room_id).filter(|id| is_room_id(id))?.into(),
            num_joined_members: joined.filter(|joined| *joined <= INTEGER_MAX as u64).unwrap_or_default(),
            world_readable: is(told.world_readable),
            guest_can_join: is(told.guest_can_join),
            name: text(told.name),
            topic: text(told.topic),
            canonical_alias: text(told.canonical_alias).filter(|alias| is_room_alias(alias)),
            avatar_url: text(told.avatar_url).filter(|url| is_media(url)),
            join_rule: text(told.join_rule),
            room_type: text(told.room_type),
        })
    }
}

fn value<'a, T: Deserialize<'a>>(told: &'a RawValue) -> Option<T> {
    serde_json::from_str(told.get()).ok()
}

/// Whether `url` is an address of media on a homeserver: clients show no picture of anywhere else.
fn is_media(url: &str) -> bool {
    url.starts_with("mxc://")
}

/// The summary of a room. About eight look-ups in its state, and one in the directory. Who may set its state may write there what they like: what is no
/// alias or address is not shown, as it would cost strict clients a whole page of the directory.
pub(crate) fn summary(reader: &Reader, room: &RoomCtx) -> Result<RoomSummary> {
    Ok(RoomSummary {
        room_id: room.id.clone(),
        num_joined_members: room.head.joined,
        world_readable: world_readable(reader, room)?,
        guest_can_join: allows_guests(reader, room)?,
        name: text(reader, room, "m.room.name", "name")?,
        topic: text(reader, room, "m.room.topic", "topic")?,
        canonical_alias: main_alias(reader, room)?,
        avatar_url: text(reader, room, "m.room.avatar", "url")?.filter(|url| is_media(url)),
        join_rule: text(reader, room, "m.room.join_rules", "join_rule")?,
        room_type: text(reader, room, "m.room.create", "type")?,
    })
}

/// The alias that the room says is its main one. One of this server is only shown while it leads to the room, so that no room
/// passes for another; of those of other servers only they know.
fn main_alias(reader: &Reader, room: &RoomCtx) -> Result<Option<String>, StorageError> {
    let named = text(reader, room, "m.room.canonical_alias", "alias")?;
    let Some(alias) = named.filter(|alias| is_room_alias(alias)) else { return Ok(None) };
    let is_ours = server_name(&alias) == Some(&*reader.shared.server_name);
    let leads_here = !is_ours || reader.alias(&alias)?.is_some_and(|found| found.room_id == *room.id);
    Ok(leads_here.then_some(alias))
}

/// A text that is not empty in the content of a state event.
fn text(reader: &Reader, room: &RoomCtx, kind: &str, key: &str) -> Result<Option<String>, StorageError> {
    let Some(event) = room.state(reader, kind, "")? else { return Ok(None) };
    let pdu = event.pdu()?;
    let value = pdu.content.get(key).and_then(Value::as_str);
    Ok(value.filter(|value| !value.is_empty()).map(str::to_owned))
}
