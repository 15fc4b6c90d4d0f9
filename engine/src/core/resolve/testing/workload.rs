//! Rooms to measure resolution on: forks of two sides, as large as asked for.

use serde_json::{Value, json};

use super::room::{Room, State, pdu};
use crate::core::auth::auth_types;
use crate::core::num::{EventNum, NodeId};
use crate::core::version::RoomVersion;

/// Users with power in every room, besides its creator.
const MODERATORS: usize = 8;

/// A room that has forked.
#[derive(Debug)]
pub struct Workload {
    /// The room.
    pub room: Room,
    /// The states of its two sides.
    pub sides: [NodeId; 2],
}

impl Workload {
    /// The same users join on both sides, each by another event: `conflicted` events in the conflicted state set.
    pub fn joins(version: &'static RoomVersion, conflicted: usize) -> Workload {
        let (mut builder, base) = Builder::new(version, 0);
        let sides = ["left", "right"].map(|side| {
            let mut state = base.clone();
            for index in 0..conflicted / 2 {
                builder.join(&mut state, &user(index), side);
            }
            builder.room.keep(state)
        });
        Workload { room: builder.room, sides }
    }

    /// Of ten events on each side: two changes of power levels, a ban and two kicks by moderators, four joins and a topic,
    /// until `conflicted` events are sent, all of which are in the full conflicted set.
    pub fn mixed(version: &'static RoomVersion, conflicted: usize) -> Workload {
        let (mut builder, base) = Builder::new(version, conflicted);
        let sides = [0, 1].map(|side| {
            let mut state = base.clone();
            for index in 0..conflicted / 2 {
                builder.mixed(&mut state, side, index);
            }
            builder.room.keep(state)
        });
        Workload { room: builder.room, sides }
    }

    /// A room of `members`, whose sides differ in ten events: five of each side, as of [`Workload::mixed`].
    pub fn members(version: &'static RoomVersion, members: usize) -> Workload {
        let (mut builder, base) = Builder::new(version, members);
        let sides = [0, 1].map(|side| {
            let mut state = base.clone();
            for index in 0..5 {
                builder.mixed(&mut state, side, index);
            }
            builder.room.keep(state)
        });
        Workload { room: builder.room, sides }
    }

    /// A room with an auth chain of `length` changes of power levels, and five more on each side.
    pub fn chain(version: &'static RoomVersion, length: usize) -> Workload {
        let (mut builder, mut base) = Builder::new(version, 10);
        for index in 0..length {
            builder.power_levels(&mut base, 0, index);
        }
        let sides = [0, 1].map(|side| {
            let mut state = base.clone();
            for index in 0..5 {
                builder.power_levels(&mut state, side, index);
            }
            builder.room.keep(state)
        });
        Workload { room: builder.room, sides }
    }
}

fn user(index: usize) -> String {
    format!("@user{index}:u.example")
}

fn moderator(index: usize) -> String {
    format!("@moderator{}:m.example", index % MODERATORS)
}

struct Builder {
    room: Room,
    creator: String,
    last: String,
}

impl Builder {
    /// A public room with a creator, moderators and `members`.
    fn new(version: &'static RoomVersion, members: usize) -> (Builder, State) {
        let creator = "@creator:c.example".to_owned();
        let mut builder = Builder { room: Room::new(version), creator: creator.clone(), last: String::new() };
        let mut state = State::new();
        let mut create = json!({"room_version": version.id});
        if version.creator_in_content {
            create["creator"] = creator.as_str().into();
        }
        builder.send(&mut state, "m.room.create", &creator, "", create);
        builder.join(&mut state, &creator, "first");
        builder.set_power_levels(&mut state, &[]);
        let join_rule = json!({"join_rule": "public"});
        builder.send(&mut state, "m.room.join_rules", &creator, "", join_rule);
        for index in 0..MODERATORS {
            builder.join(&mut state, &moderator(index), "first");
        }
        for index in 0..members {
            builder.join(&mut state, &user(index), "first");
        }
        (builder, state)
    }

    fn join(&mut self, state: &mut State, user: &str, name: &str) {
        self.send(state, "m.room.member", user, user, json!({"membership": "join", "displayname": name}));
    }

    /// The `index`-th event of a side. Both sides change the same entries.
    fn mixed(&mut self, state: &mut State, side: usize, index: usize) {
        let sender = moderator(index / 10 + side);
        match index % 10 {
            0 | 5 => self.power_levels(state, side, index),
            1 => self.send(state, "m.room.member", &sender, &user(index), json!({"membership": "ban"})),
            2 | 6 => self.send(state, "m.room.member", &sender, &user(index), json!({"membership": "leave"})),
            3 => self.send(state, "m.room.topic", &sender, "", json!({"topic": format!("{side} {index}")})),
            _ => self.join(state, &user(index), &format!("{side}")),
        }
    }

    fn power_levels(&mut self, state: &mut State, side: usize, index: usize) {
        let promoted = user(index % 10);
        self.set_power_levels(state, &[(promoted, (index % 40 + side) as i64)]);
    }

    fn set_power_levels(&mut self, state: &mut State, more: &[(String, i64)]) {
        let moderators = (0..MODERATORS).map(|index| (moderator(index), 50));
        let creator = (!self.room.version.privileged_creators).then(|| (self.creator.clone(), 100));
        let all = moderators.chain(creator).chain(more.iter().cloned());
        let users: serde_json::Map<String, Value> = all.map(|(user, level)| (user, level.into())).collect();
        let content = json!({
            "users": users, "users_default": 0, "events": {"m.room.name": 50, "m.room.avatar": 50},
            "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50, "invite": 0,
            "notifications": {"room": 50},
        });
        let sender = self.creator.clone();
        self.send(state, "m.room.power_levels", &sender, "", content);
    }

    fn send(&mut self, state: &mut State, kind: &str, sender: &str, state_key: &str, content: Value) {
        let version = self.room.version;
        let empty = serde_json::Map::new();
        let types = auth_types(version, kind, sender, Some(state_key), content.as_object().unwrap_or(&empty));
        let auth_events = types.iter().filter_map(|(kind, key)| self.room.find(state, kind, key));
        let auth_events: Vec<&str> = auth_events.map(|facts| &*facts.pdu().event_id).collect();
        let index = self.room.events().len() as u64;
        let spread = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        let server = if version.redaction_auth_rule { ":a.example" } else { "" };
        let event_id = format!("${spread:016x}{}{server}", "x".repeat(27));
        let mut event = json!({
            "event_id": event_id, "type": kind, "sender": sender, "state_key": state_key, "content": content,
            "prev_events": if self.last.is_empty() { vec![] } else { vec![&self.last] },
            "auth_events": auth_events, "depth": index + 1, "origin_server_ts": 1_000 + index,
        });
        if !(version.room_id_is_create_hash && kind == "m.room.create") {
            let create = self.room.events().first().filter(|_| version.room_id_is_create_hash);
            event["room_id"] = create.map_or("!room:a.example", |create| &create.pdu().room_id).into();
        }
        self.last = event_id;
        let Some(pdu) = pdu(&event) else { return };
        let facts = self.room.add(pdu, false);
        if let Some(key) = facts.key() {
            state.insert(key, EventNum(facts.num().0));
        }
    }
}
