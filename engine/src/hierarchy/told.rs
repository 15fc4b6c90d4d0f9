//! What another server told of a space, as far as it can be read.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    core::{event::JsonObject, identifiers::is_room_id, json::AtMost, limits::EVENT_BYTES_MAX},
    room::{
        RoomSummary, SpaceChild, SpaceRoom,
        hierarchy::{CHILDREN_MAX, ENTRIES_MAX, in_order},
    },
};

/// What a name in a list takes beside its text: its place, and what the allocator adds.
const NAME_BYTES: usize = size_of::<String>() + 16;

/// The longest name of a room version: it "MUST NOT exceed 32 codepoints in length".
const VERSION_CHARS_MAX: usize = 32;

/// A space and its rooms. Nothing of it is known to be true.
#[derive(Debug)]
pub struct ToldSpace {
    /// The space, with the rooms that it lists.
    pub(super) room: Arc<SpaceRoom>,
    /// Rooms that it lists and that the server knows, without those that they list.
    pub(super) children: HashMap<Arc<str>, Arc<SpaceRoom>>,
    /// Rooms that it lists and that nobody of this server can come into.
    pub(super) inaccessible: HashSet<Arc<str>>,
    /// How many bytes it takes, about: those of the answer, and what its parts take besides.
    pub size: usize,
}

/// An answer. A value may take a hundred times as much memory as its JSON, so only what is kept of it becomes one, piece by
/// piece, and of each list no more than a space is told of.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    room: &'a RawValue,
    #[serde(borrow, default)]
    children: AtMost<&'a RawValue, CHILDREN_MAX>,
    #[serde(default)]
    inaccessible_children: AtMost<Arc<str>, CHILDREN_MAX>,
}

impl ToldSpace {
    /// Reads an answer to `GET /hierarchy/{roomId}`; nothing if it is not about the room. Of what the room does not list,
    /// nothing is kept.
    pub fn read(room_id: &str, suggested_only: bool, answer: &[u8]) -> Option<Self> {
        let bytes = answer.len();
        let answer: Answer = serde_json::from_slice(answer).ok()?;
        let (mut room, events) =
            read_room(answer.room).filter(|(room, _)| *room.summary.room_id == *room_id)?;
        let events =
            events.filter(|_| room.is_space()).map_or_else(Vec::new, |events| list::<ENTRIES_MAX>(events).0);
        let listed = in_order(events.into_iter().filter_map(read_child), suggested_only);
        let ids: HashSet<Arc<str>> = listed.iter().map(|child| child.room_id.clone()).collect();
        room.children_state = Some(listed);
        let children = answer.children.0.into_iter().filter_map(read_room).map(|(room, _)| room);
        let inaccessible = answer.inaccessible_children.0.into_iter();
        let mut told = Self {
            room: Arc::new(room),
            children: children
                .filter(|child| ids.contains(&child.summary.room_id))
                .map(|child| (child.summary.room_id.clone(), Arc::new(child)))
                .collect(),
            inaccessible: inaccessible.filter(|id| ids.contains(id)).collect(),
            size: bytes,
        };
        told.size += told.parts_bytes();
        Some(told)
    }

    /// What its parts take beside their texts.
    fn parts_bytes(&self) -> usize {
        let rooms = self.children.values().chain([&self.room]).map(|room| {
            let children = room.children_state.iter().flatten();
            let children = children.map(|child| size_of::<SpaceChild>() + child.via.len() * NAME_BYTES);
            size_of::<SpaceRoom>() + room.allowed_room_ids.len() * NAME_BYTES + children.sum::<usize>()
        });
        rooms.sum::<usize>() + self.inaccessible.len() * NAME_BYTES
    }
}

/// The members of a room that are looked at beside its summary. One of a wrong kind counts as none.
#[derive(Deserialize)]
struct ToldRoom<'a> {
    #[serde(borrow)]
    allowed_room_ids: Option<&'a RawValue>,
    encryption: Option<&'a RawValue>,
    room_version: Option<&'a RawValue>,
    children_state: Option<&'a RawValue>,
}

/// A room, as one that lists nothing, and the events by which it lists others.
fn read_room(told: &RawValue) -> Option<(SpaceRoom, Option<&RawValue>)> {
    let summary = RoomSummary::read(told)?;
    let told: ToldRoom = value(told)?;
    let text = |told: Option<&RawValue>| value::<String>(told?).filter(|text| !text.is_empty());
    let allowed = told.allowed_room_ids.map_or_else(Vec::new, |told| list::<CHILDREN_MAX>(told).0);
    let allowed = allowed.into_iter().filter_map(value::<String>).filter(|id| is_room_id(id));
    let room = SpaceRoom {
        summary,
        allowed_room_ids: allowed.collect(),
        encryption: text(told.encryption),
        room_version: text(told.room_version).filter(|version| version.chars().count() <= VERSION_CHARS_MAX),
        children_state: Some(Vec::new()),
    };
    Some((room, told.children_state))
}

/// An event by which a space lists a room.
#[derive(Deserialize)]
struct ToldChild {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    sender: String,
    content: JsonObject,
    origin_server_ts: u64,
}

fn read_child(event: &RawValue) -> Option<SpaceChild> {
    // What is larger is no event.
    let event: ToldChild =
        Some(event).filter(|event| event.get().len() <= EVENT_BYTES_MAX).and_then(value)?;
    let ToldChild { kind, state_key, sender, content, origin_server_ts } = event;
    if kind != "m.space.child" {
        return None;
    }
    SpaceChild::read(&state_key, &sender, &content, origin_server_ts)
}

fn value<'a, T: Deserialize<'a>>(told: &'a RawValue) -> Option<T> {
    serde_json::from_str(told.get()).ok()
}

/// The first elements of a list; none if it is no list.
fn list<const N: usize>(told: &RawValue) -> AtMost<&RawValue, N> {
    value(told).unwrap_or_default()
}
