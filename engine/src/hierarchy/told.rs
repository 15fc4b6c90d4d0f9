//! What another server told of a space, as far as it can be read.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    core::{event::JsonObject, identifiers::is_room_id},
    room::{
        RoomSummary, SpaceChild, SpaceRoom,
        hierarchy::{CHILDREN_MAX, in_order},
    },
};

/// A space and its rooms. Nothing of it is known to be true.
#[derive(Debug)]
pub struct ToldSpace {
    /// The space, with the rooms that it lists.
    pub(super) room: Arc<SpaceRoom>,
    /// Rooms that it lists and that the server knows, without those that they list.
    pub(super) children: HashMap<Arc<str>, Arc<SpaceRoom>>,
    /// Rooms that it lists and that nobody of this server can come into.
    pub(super) inaccessible: HashSet<Arc<str>>,
    /// How many bytes the answer had.
    pub size: usize,
}

#[derive(Deserialize)]
struct Answer {
    room: JsonObject,
    #[serde(default)]
    children: Vec<JsonObject>,
    #[serde(default)]
    inaccessible_children: Vec<Arc<str>>,
}

impl ToldSpace {
    /// Reads an answer to `GET /hierarchy/{roomId}`; nothing if it is not about the room. Of what the room does not list,
    /// nothing is kept.
    pub fn read(room_id: &str, suggested_only: bool, answer: &[u8]) -> Option<Self> {
        let size = answer.len();
        let answer: Answer = serde_json::from_slice(answer).ok()?;
        let mut room = read_room(&answer.room).filter(|room| *room.summary.room_id == *room_id)?;
        let events = answer.room.get("children_state").and_then(Value::as_array);
        let events = events.filter(|_| room.is_space()).into_iter().flatten();
        let listed = in_order(events.filter_map(read_child), suggested_only);
        let ids: HashSet<Arc<str>> = listed.iter().map(|child| child.room_id.clone()).collect();
        room.children_state = Some(listed);
        let children = answer.children.iter().take(CHILDREN_MAX).filter_map(read_room);
        Some(Self {
            room: Arc::new(room),
            children: children
                .filter(|child| ids.contains(&child.summary.room_id))
                .map(|child| (child.summary.room_id.clone(), Arc::new(child)))
                .collect(),
            inaccessible: answer.inaccessible_children.into_iter().filter(|id| ids.contains(id)).collect(),
            size,
        })
    }
}

/// A room, as one that lists nothing.
fn read_room(told: &JsonObject) -> Option<SpaceRoom> {
    let text = |key: &str| told.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let owned = |key: &str| text(key).map(str::to_owned);
    let is = |key: &str| told.get(key) == Some(&Value::Bool(true));
    let allowed = told.get("allowed_room_ids").and_then(Value::as_array).into_iter().flatten();
    let allowed = allowed.filter_map(Value::as_str).filter(|id| is_room_id(id)).take(CHILDREN_MAX);
    Some(SpaceRoom {
        summary: RoomSummary {
            room_id: text("room_id").filter(|id| is_room_id(id))?.into(),
            num_joined_members: told.get("num_joined_members").and_then(Value::as_u64).unwrap_or_default(),
            world_readable: is("world_readable"),
            guest_can_join: is("guest_can_join"),
            name: owned("name"),
            topic: owned("topic"),
            canonical_alias: owned("canonical_alias"),
            avatar_url: owned("avatar_url"),
            join_rule: owned("join_rule"),
            room_type: owned("room_type"),
        },
        allowed_room_ids: allowed.map(str::to_owned).collect(),
        encryption: owned("encryption"),
        room_version: owned("room_version"),
        children_state: Some(Vec::new()),
    })
}

fn read_child(event: &Value) -> Option<SpaceChild> {
    let text = |key: &str| event.get(key).and_then(Value::as_str);
    if text("type") != Some("m.space.child") {
        return None;
    }
    let content = event.get("content")?.as_object()?;
    let origin_server_ts = event.get("origin_server_ts")?.as_u64()?;
    SpaceChild::read(text("state_key")?, text("sender")?, content, origin_server_ts)
}
