//! `GET /hierarchy/{roomId}` of the server-server API: a space and its rooms, as far as users of the asking server could
//! come into them.
//!
//! Specification: server-server API, "Spaces"; client-server API, `GET /rooms/{roomId}/hierarchy`.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result, What},
    room::{
        RoomCtx, RoomSummary, restricted_join::rooms_of_members, servers::server_allowed, summary,
        world_readable,
    },
    store::{Reader, schema::Membership},
    view::View,
};

/// The rooms of a space that are told of: more than anybody scrolls through, and some hundred milliseconds of work.
const CHILDREN_MAX: usize = 1_000;

/// A space, for a peer.
pub struct PeerHierarchy {
    /// The space's id.
    pub room_id: String,
    /// Whether only suggested rooms are wanted.
    pub suggested_only: bool,
    /// The server that asks.
    pub server: String,
}

/// A space and its rooms.
#[derive(Clone, Debug, Serialize)]
pub struct Hierarchy {
    /// The space.
    pub room: SpaceRoom,
    /// Its rooms, as far as they are known here and users of the asking server could come in.
    pub children: Vec<SpaceRoom>,
    /// The ids of those that are known and into which they could not.
    pub inaccessible_children: Vec<String>,
}

/// A room of a space.
#[derive(Clone, Debug, Serialize)]
pub struct SpaceRoom {
    /// What it shows of itself.
    #[serde(flatten)]
    pub summary: RoomSummary,
    /// The rooms whose members may join.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<String>,
    /// For the space itself, the `m.space.child` events as stripped state with their times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children_state: Option<Vec<Value>>,
}

impl View for PeerHierarchy {
    /// Errors: [`What::Room`] not found for what is not known here or users of the server could not come into.
    type Output = Hierarchy;

    fn read(&self, reader: &Reader) -> Result<Hierarchy> {
        let not_found = || Error::NotFound(What::Room);
        let space = RoomCtx::find(reader, &self.room_id)?.ok_or_else(not_found)?;
        if !self.may_come_in(reader, &space)? {
            return Err(not_found());
        }
        let mut room = space_room(reader, &space)?;
        let mut hierarchy =
            Hierarchy { room: room.clone(), children: Vec::new(), inaccessible_children: Vec::new() };
        let mut children_state = Vec::new();
        for (child_id, event) in self.children(reader, &space)? {
            children_state.push(event);
            let Some(child) = RoomCtx::find(reader, &child_id)? else { continue };
            if !reader.is_server_in_room(&reader.shared.server_name, child.num)? {
                continue;
            }
            match self.may_come_in(reader, &child)? {
                true => hierarchy.children.push(space_room(reader, &child)?),
                false => hierarchy.inaccessible_children.push(child_id),
            }
        }
        room.children_state = Some(children_state);
        hierarchy.room = room;
        Ok(hierarchy)
    }
}

impl PeerHierarchy {
    /// The valid `m.space.child` events, each with the room's id.
    fn children(&self, reader: &Reader, space: &RoomCtx) -> Result<Vec<(String, Value)>> {
        let Some(kind) = reader.text_num("m.space.child")? else { return Ok(Vec::new()) };
        let mut children = Vec::new();
        for (_, num) in reader.state_of_kind(space.num, space.head.state, kind)? {
            let pdu = reader.event(num)?.pdu()?;
            let has_via = pdu.content.get("via").and_then(Value::as_array).is_some_and(|via| !via.is_empty());
            let is_suggested = pdu.content.get("suggested") == Some(&Value::Bool(true));
            let Some(child_id) = pdu.state_key.as_deref().filter(|_| has_via) else { continue };
            if self.suggested_only && !is_suggested {
                continue;
            }
            let event = json!({
                "type": "m.space.child",
                "state_key": child_id,
                "sender": &*pdu.sender,
                "content": pdu.content,
                "origin_server_ts": pdu.origin_server_ts,
            });
            children.push((child_id.to_owned(), event));
            if children.len() == CHILDREN_MAX {
                break;
            }
        }
        Ok(children)
    }

    /// Whether a user of the server is in the room, may come in, or may read it.
    fn may_come_in(&self, reader: &Reader, room: &RoomCtx) -> Result<bool> {
        if server_allowed(reader, room, &self.server).is_err() {
            return Ok(false);
        }
        if reader.is_server_in_room(&self.server, room.num)? || world_readable(reader, room)? {
            return Ok(true);
        }
        let rules = room.state(reader, "m.room.join_rules", "")?.map(|event| event.pdu()).transpose()?;
        if let Some(rules) = rules {
            let rule = rules.content.get("join_rule").and_then(Value::as_str);
            if matches!(rule, Some("public" | "knock" | "knock_restricted")) {
                return Ok(true);
            }
            if rule == Some("restricted") {
                for other in rooms_of_members(&rules.content) {
                    let Some(other) = reader.room_num(other)? else { continue };
                    if reader.is_server_in_room(&self.server, other)? {
                        return Ok(true);
                    }
                }
            }
        }
        for user in reader.users_of_server(&self.server, room.num)? {
            if reader.membership(user, room.num)? == Some(Membership::Invite) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn space_room(reader: &Reader, room: &RoomCtx) -> Result<SpaceRoom> {
    let summary = summary(reader, room)?;
    let mut allowed_room_ids = Vec::new();
    if matches!(summary.join_rule.as_deref(), Some("restricted" | "knock_restricted"))
        && let Some(rules) = room.state(reader, "m.room.join_rules", "")?
    {
        allowed_room_ids.extend(rooms_of_members(&rules.pdu()?.content).map(str::to_owned));
    }
    Ok(SpaceRoom { summary, allowed_room_ids, children_state: None })
}
