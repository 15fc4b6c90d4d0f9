//! A room of servers that are not there: its events, made and signed as theirs would be.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use warren_engine::core::auth::auth_types;
use warren_engine::core::event::{EventBuilder, EventReference, KeyPair, Pdu};
use warren_engine::core::identifiers::server_name;
use warren_engine::core::version::RoomVersion;
use warren_engine::remote::ServerKey;

use super::engine_error;
use crate::error::{Error, Result};

/// Servers that the members are spread over.
const SERVERS: usize = 50;
/// Moderators beside the creator.
const MODERATORS: usize = 8;

/// The room version of all rooms here.
pub fn version() -> Result<&'static RoomVersion> {
    RoomVersion::get("11").ok_or(Error::Needs("room version 11"))
}

/// What a user sends.
pub struct Sent<'a> {
    pub sender: &'a str,
    pub kind: &'a str,
    pub state_key: Option<&'a str>,
    pub content: Value,
}

/// Where events are added: at the room's end, or on one side of a fork.
pub struct Place {
    prev: Vec<Arc<str>>,
    depth: u64,
    /// The state's entries that differ from the room's.
    changed: HashMap<(String, String), Arc<str>>,
}

impl Place {
    /// The state's entries that differ from the room's.
    pub fn changed(&self) -> Vec<(String, String)> {
        self.changed.keys().cloned().collect()
    }
}

/// The room.
pub struct Room {
    pub id: Arc<str>,
    members: usize,
    servers: usize,
    key: KeyPair,
    state: HashMap<(String, String), Arc<str>>,
    end: Vec<Arc<str>>,
    depth: u64,
}

impl Room {
    /// A public room with a creator, moderators and `members` in all: its state, oldest first.
    pub fn new(name: &str, members: usize) -> Result<(Room, Vec<Pdu>)> {
        Room::across(name, members, SERVERS)
    }

    /// The same with members of so many servers.
    pub fn across(name: &str, members: usize, servers: usize) -> Result<(Room, Vec<Pdu>)> {
        let key = KeyPair::from_seed("1", &[5; 32]).map_err(engine_error)?;
        let id = format!("!{name}:server-0.example").into();
        let mut room = Room { id, members, servers, key, state: HashMap::new(), end: Vec::new(), depth: 0 };
        let mut place = room.end();
        let creator = room.member(0);
        let mut state = Vec::with_capacity(members + 4);
        let sent = |kind, content| Sent { sender: &creator, kind, state_key: Some(""), content };
        state.push(room.add(&mut place, sent("m.room.create", json!({"room_version": version()?.id})))?);
        state.push(room.join(&mut place, 0, "")?);
        let levels = room.power_levels(0);
        state.push(room.add(&mut place, sent("m.room.power_levels", levels))?);
        let rules = json!({"join_rule": "public"});
        state.push(room.add(&mut place, sent("m.room.join_rules", rules))?);
        let visibility = json!({"history_visibility": "shared"});
        state.push(room.add(&mut place, sent("m.room.history_visibility", visibility))?);
        for number in 1..members {
            state.push(room.join(&mut place, number, "")?);
        }
        room.extend(place);
        Ok((room, state))
    }

    /// The names of the servers.
    pub fn servers(&self) -> impl Iterator<Item = String> {
        (0..self.servers).map(|server| format!("server-{server}.example"))
    }

    /// The key that every server of the room signs with.
    pub fn server_key(&self) -> ServerKey {
        ServerKey {
            key_id: self.key.key_id().to_owned(),
            public_key: self.key.public_key().to_vec(),
            valid_until_ts: u64::MAX / 2,
            is_old: false,
        }
    }

    /// The user id of a member; the first is the creator, and the next are moderators.
    pub fn member(&self, number: usize) -> String {
        format!("@member-{number}:server-{}.example", number % self.servers)
    }

    /// The number of the `index`-th of `count` members who are spread evenly over the room.
    pub fn spread(&self, index: usize, count: usize) -> usize {
        index % count * self.members / count
    }

    /// The number of a member who is no moderator, counted from the last.
    pub fn ordinary(&self, index: usize) -> usize {
        self.members.saturating_sub(index + 1)
    }

    /// The content of power levels in which the creator has 100, moderators have 50 and one member has `level`.
    pub fn power_levels(&self, level: u64) -> Value {
        let mut users = serde_json::Map::from_iter([(self.member(0), 100.into())]);
        users.extend((1..=MODERATORS).map(|number| (self.member(number), 50.into())));
        users.insert(self.member(self.ordinary(0)), level.into());
        json!({
            "users": users, "users_default": 0, "events": {}, "events_default": 0, "state_default": 50, "ban": 50,
            "kick": 50, "redact": 50, "invite": 0,
        })
    }

    /// The room's end.
    pub fn end(&self) -> Place {
        Place { prev: self.end.clone(), depth: self.depth, changed: HashMap::new() }
    }

    /// A place that follows all of `places`, in the state of the first.
    pub fn merge(places: Vec<Place>) -> Option<Place> {
        let depth = places.iter().map(|place| place.depth).max()?;
        let prev = places.iter().flat_map(|place| place.prev.clone()).collect();
        Some(Place { prev, depth, changed: places.into_iter().next()?.changed })
    }

    /// What was added at the place is the room's history from now on.
    pub fn extend(&mut self, mut place: Place) {
        self.state.extend(std::mem::take(&mut place.changed));
        self.move_end(place);
    }

    /// The room's end is at the place, whatever its state.
    pub fn move_end(&mut self, place: Place) {
        (self.end, self.depth) = (place.prev, place.depth);
    }

    /// Sets an entry of the state to what resolution made of it.
    pub fn set_state(&mut self, key: (String, String), event_id: Arc<str>) {
        self.state.insert(key, event_id);
    }

    /// A member joins, or takes another name.
    pub fn join(&self, place: &mut Place, number: usize, name: &str) -> Result<Pdu> {
        let user_id = self.member(number);
        let content = json!({
            "membership": "join",
            "displayname": format!("Member {number}{name}"),
            "avatar_url": format!("mxc://server-{}.example/{number:024x}", number % self.servers),
        });
        let sent = Sent { sender: &user_id, kind: "m.room.member", state_key: Some(&user_id), content };
        self.add(place, sent)
    }

    /// A user of another server joins, which signs with a key of its own.
    pub fn join_from(&self, place: &mut Place, user_id: &str, key: &KeyPair) -> Result<Pdu> {
        let content = json!({"membership": "join"});
        let sent = Sent { sender: user_id, kind: "m.room.member", state_key: Some(user_id), content };
        self.add_signed(place, sent, key)
    }

    /// Makes an event at the place, which is behind it then.
    pub fn add(&self, place: &mut Place, sent: Sent<'_>) -> Result<Pdu> {
        self.add_signed(place, sent, &self.key)
    }

    fn add_signed(&self, place: &mut Place, sent: Sent<'_>, key: &KeyPair) -> Result<Pdu> {
        let Sent { sender, kind, state_key, content } = sent;
        let content = content.as_object().cloned().unwrap_or_default();
        let find = |(kind, state_key): (&str, &str)| {
            let key = (kind.to_owned(), state_key.to_owned());
            place.changed.get(&key).or_else(|| self.state.get(&key)).cloned()
        };
        let auth = auth_types(version()?, kind, sender, state_key, &content);
        let auth_events = auth.into_iter().filter_map(find).map(EventReference::from).collect();
        place.depth += 1;
        let builder = EventBuilder {
            room_id: Some(self.id.clone()),
            sender: sender.into(),
            kind: kind.into(),
            state_key: state_key.map(Arc::from),
            content,
            redacts: None,
            prev_events: place.prev.drain(..).map(EventReference::from).collect(),
            auth_events,
            depth: place.depth,
            origin_server_ts: 1_700_000_000_000 + place.depth,
            event_id_localpart: None,
        };
        let server = server_name(sender).unwrap_or_default();
        let pdu = builder.build(version()?, server, key).map_err(engine_error)?;
        place.prev.push(pdu.event_id.clone());
        if let Some(state_key) = state_key {
            place.changed.insert((kind.to_owned(), state_key.to_owned()), pdu.event_id.clone());
        }
        Ok(pdu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_has_two_ends_until_an_event_follows_both() {
        let (mut room, state) = Room::new("room", 20).expect("a room");
        let last_join = state.last().expect("a join").event_id.clone();
        let [left, right] = ["left", "right"].map(|name| {
            let mut place = room.end();
            let join = room.join(&mut place, 3, name).expect("an event");
            assert_eq!(&*join.prev_events, std::slice::from_ref(&last_join));
            (place, join)
        });
        let mut merged = Room::merge(vec![left.0, right.0]).expect("two places");
        let next = room.join(&mut merged, 4, "").expect("an event");
        assert_eq!(&*next.prev_events, [left.1.event_id.clone(), right.1.event_id]);
        room.extend(merged);
        let last = room.join(&mut room.end(), 3, "again").expect("an event");
        assert_eq!(&*last.prev_events, [next.event_id]);
        // It is allowed by the state of the first side.
        assert!(last.auth_events.contains(&left.1.event_id));
    }

    #[test]
    fn spread_members_are_different_ones() {
        let (room, _) = Room::new("room", 20).expect("a room");
        let spread: Vec<usize> = (0..6).map(|index| room.spread(index, 5)).collect();
        assert_eq!(spread, [0, 4, 8, 12, 16, 0]);
    }
}
