//! Rooms as a space shows them: who is shown a room, what of it, and the rooms that a space lists, in their order.
//!
//! Specification: client-server API, "Spaces"; server-server API, "Spaces".

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Value, json, value::RawValue};

use super::{
    RoomCtx, RoomSummary,
    restricted_join::rooms_of_members,
    servers::{is_in_or_supposed, server_allowed},
    summary, world_readable,
};
use crate::{
    core::{
        event::JsonObject,
        identifiers::{is_room_id, is_server_name},
    },
    error::{Error, Result},
    store::{Reader, StorageError, schema::Membership},
};

/// The rooms of a space that are told of: more than anybody scrolls through, and some milliseconds of work.
pub(crate) const CHILDREN_MAX: usize = 1_000;

/// The bytes of the events that list them: four times what a thousand of the usual ones have. What a sender writes into
/// them besides is told too, and must not make an answer of any size.
pub(crate) const CHILDREN_BYTES_MAX: usize = 1024 * 1024;

/// The entries of a space's state that are looked at for them, of which some list nothing: a tenth of a second of work.
pub(crate) const ENTRIES_MAX: usize = 10_000;

/// Servers of a room that are kept, of which a few are asked.
const VIA_MAX: usize = 10;

/// Characters of an `order`, as the specification limits them.
const ORDER_CHARS_MAX: usize = 50;

/// What makes a room a space.
const SPACE_TYPE: &str = "m.space";

/// A room as a space shows it.
#[derive(Clone, Debug, Serialize)]
pub struct SpaceRoom {
    /// What it shows of itself.
    #[serde(flatten)]
    pub summary: RoomSummary,
    /// The rooms whose members may join.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<String>,
    /// The algorithm by which messages are encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_version: Option<String>,
    /// The rooms that it lists, none if it is no space; `None` where they are not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children_state: Option<Vec<Arc<SpaceChild>>>,
}

impl SpaceRoom {
    /// Whether it is a space.
    pub fn is_space(&self) -> bool {
        self.summary.room_type.as_deref() == Some(SPACE_TYPE)
    }

    /// About how many bytes it has as JSON: what others write into it may be long.
    pub fn size(&self) -> usize {
        /// Names of the members, and those that are short.
        const REST_BYTES: usize = 500;
        let RoomSummary { name, topic, canonical_alias, avatar_url, .. } = &self.summary;
        let texts = [name, topic, canonical_alias, avatar_url].into_iter().flatten();
        let children = self.children_state.iter().flatten();
        REST_BYTES
            + texts.chain(&self.allowed_room_ids).map(String::len).sum::<usize>()
            + children.map(|child| child.event.get().len()).sum::<usize>()
    }
}

/// A valid `m.space.child` event. As JSON: a stripped state event, with its time.
#[derive(Clone, Debug)]
pub struct SpaceChild {
    /// The room that is listed.
    pub room_id: Arc<str>,
    /// Servers by which it may be reached, the first of those that are named.
    pub via: Arc<[String]>,
    /// Whether it is suggested to members.
    pub is_suggested: bool,
    order: Option<String>,
    origin_server_ts: u64,
    event: Box<RawValue>,
}

impl Serialize for SpaceChild {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.event.serialize(serializer)
    }
}

impl SpaceChild {
    /// Reads the parts of an event; nothing if it lists no room.
    pub(crate) fn read(
        state_key: &str,
        sender: &str,
        content: &JsonObject,
        origin_server_ts: u64,
    ) -> Option<Self> {
        let via = content.get("via")?.as_array().filter(|via| !via.is_empty())?;
        if !is_room_id(state_key) || !via.iter().all(Value::is_string) {
            return None;
        }
        let servers = via.iter().filter_map(Value::as_str).filter(|name| is_server_name(name));
        let order = content.get("order").and_then(Value::as_str).filter(|order| is_order(order));
        let event = json!({
            "type": "m.space.child",
            "state_key": state_key,
            "sender": sender,
            "content": content,
            "origin_server_ts": origin_server_ts,
        });
        Some(Self {
            room_id: state_key.into(),
            via: servers.take(VIA_MAX).map(str::to_owned).collect(),
            is_suggested: content.get("suggested") == Some(&Value::Bool(true)),
            order: order.map(str::to_owned),
            origin_server_ts,
            event: serde_json::value::to_raw_value(&event).ok()?,
        })
    }

    /// Section "Ordering of children within a space".
    fn place(&self) -> impl Ord + '_ {
        (self.order.is_none(), self.order.as_deref(), self.origin_server_ts, &self.room_id)
    }
}

fn is_order(text: &str) -> bool {
    (1..=ORDER_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Those that are wanted, in their order, as far as a space is told of.
pub(crate) fn in_order(
    children: impl Iterator<Item = SpaceChild>,
    suggested_only: bool,
) -> Vec<Arc<SpaceChild>> {
    let mut children: Vec<SpaceChild> =
        children.filter(|child| child.is_suggested || !suggested_only).collect();
    children.sort_by(|one, other| one.place().cmp(&other.place()));
    let mut bytes_left = CHILDREN_BYTES_MAX;
    let fits = |child: &SpaceChild| {
        let left = bytes_left.checked_sub(child.event.get().len());
        bytes_left = left.unwrap_or_default();
        left.is_some()
    };
    children.into_iter().take(CHILDREN_MAX).take_while(fits).map(Arc::new).collect()
}

/// Who is to be shown rooms.
#[derive(Clone, Copy)]
pub(crate) enum Asker<'a> {
    /// A user of this server.
    User(&'a str),
    /// Another server, on behalf of whichever of its users.
    Server(&'a str),
}

/// Whether the room is shown: to whom is in it, may come in or knock, or may read it.
pub(crate) fn is_shown(reader: &Reader, room: &RoomCtx, asker: Asker) -> Result<bool> {
    if let Asker::Server(server) = asker {
        match server_allowed(reader, room, server) {
            Ok(()) => {}
            Err(Error::Denied(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    if world_readable(reader, room)? {
        return Ok(true);
    }
    match asker.standing(reader, room)? {
        Some(Membership::Join | Membership::Invite) => return Ok(true),
        Some(Membership::Ban) => return Ok(false),
        Some(Membership::Knock | Membership::Leave) | None => {}
    }
    if is_let_in(reader, room, asker)? {
        return Ok(true);
    }
    match asker {
        Asker::User(_) => Ok(false),
        Asker::Server(server) => has_invited_user(reader, room, server),
    }
}

/// Whether the room's rule lets the asker in, or knock.
fn is_let_in(reader: &Reader, room: &RoomCtx, asker: Asker) -> Result<bool> {
    let Some(rules) = room.state(reader, "m.room.join_rules", "")? else { return Ok(false) };
    let rules = rules.pdu()?;
    match rules.content.get("join_rule").and_then(Value::as_str) {
        Some("public") => Ok(true),
        Some("knock") => Ok(room.version.knock),
        Some("knock_restricted") => Ok(room.version.knock_restricted),
        Some("restricted") if room.version.restricted => {
            asker.is_in_any(reader, rooms_of_members(&rules.content))
        }
        _ => Ok(false),
    }
}

fn has_invited_user(reader: &Reader, room: &RoomCtx, server: &str) -> Result<bool> {
    for user in reader.users_of_server(server, room.num)? {
        if reader.membership(user, room.num)? == Some(Membership::Invite) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Asker<'_> {
    /// The membership in the room; of a server, whether any of its users is joined.
    fn standing(self, reader: &Reader, room: &RoomCtx) -> Result<Option<Membership>, StorageError> {
        match self {
            Self::User(user_id) => match reader.user_num(user_id)? {
                // Anybody could have made up an invite that the room does not have, if its members are known.
                Some(user) => match reader.membership_in_room(user, room.num)? {
                    None if room.head.partial_state => reader.membership(user, room.num),
                    known => Ok(known),
                },
                None => Ok(None),
            },
            Self::Server(server) => {
                Ok(reader.is_server_in_room(server, room.num)?.then_some(Membership::Join))
            }
        }
    }

    /// Whether the user, or one of the server's, is in one of the rooms, or may be where members are not known yet. Those that this
    /// server is not in say nothing.
    pub(crate) fn is_in_any<'r>(
        self,
        reader: &Reader,
        room_ids: impl Iterator<Item = &'r str>,
    ) -> Result<bool> {
        for room_id in room_ids {
            let Some(room) = reader.room_num(room_id)? else { continue };
            if !reader.is_server_in_room(&reader.shared.server_name, room)? {
                continue;
            }
            let is_in = match self {
                Self::Server(server) => match reader.text_num(server)? {
                    Some(server) => is_in_or_supposed(reader, server, room)?,
                    None => false,
                },
                Self::User(user_id) => match reader.user_num(user_id)? {
                    Some(user) => reader.membership(user, room)? == Some(Membership::Join),
                    None => false,
                },
            };
            if is_in {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The room, if this server is in it, so that it knows what it is like now.
pub(crate) fn room_here(reader: &Reader, room_id: &str) -> Result<Option<RoomCtx>, StorageError> {
    let Some(room) = RoomCtx::find(reader, room_id)? else { return Ok(None) };
    Ok(reader.is_server_in_room(&reader.shared.server_name, room.num)?.then_some(room))
}

/// The room without what it lists. About ten look-ups in its state.
pub(crate) fn space_room(reader: &Reader, room: &RoomCtx) -> Result<SpaceRoom> {
    let summary = summary(reader, room)?;
    let mut allowed_room_ids = Vec::new();
    if matches!(summary.join_rule.as_deref(), Some("restricted" | "knock_restricted"))
        && let Some(rules) = room.state(reader, "m.room.join_rules", "")?
    {
        let rules = rules.pdu()?;
        // Whoever has set the rules may have written anything there.
        let allowed = rooms_of_members(&rules.content).filter(|room_id| is_room_id(room_id));
        allowed_room_ids.extend(allowed.map(str::to_owned));
    }
    let mut encryption = None;
    if let Some(event) = room.state(reader, "m.room.encryption", "")? {
        let pdu = event.pdu()?;
        encryption = pdu.content.get("algorithm").and_then(Value::as_str).map(str::to_owned);
    }
    let room_version = Some(room.version.id.to_owned());
    Ok(SpaceRoom { summary, allowed_room_ids, encryption, room_version, children_state: None })
}

/// The room with what it lists, which is nothing if it is no space.
pub(crate) fn space_with_children(
    reader: &Reader,
    room: &RoomCtx,
    suggested_only: bool,
) -> Result<SpaceRoom> {
    let shown = space_room(reader, room)?;
    let mut children = Vec::new();
    if shown.is_space()
        && let Some(kind) = reader.text_num("m.space.child")?
    {
        for (_, num) in reader.state_of_kind(room.num, room.head.state, kind)?.into_iter().take(ENTRIES_MAX) {
            let pdu = reader.event(num)?.pdu()?;
            let state_key = pdu.state_key.as_deref().unwrap_or_default();
            children.extend(SpaceChild::read(state_key, &pdu.sender, &pdu.content, pdu.origin_server_ts));
        }
    }
    let children_state = Some(in_order(children.into_iter(), suggested_only));
    Ok(SpaceRoom { children_state, ..shown })
}
