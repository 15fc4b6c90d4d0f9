//! Rooms of other servers as graphs of events: forks, forgotten and doubled edges, events that nobody may send, bytes that
//! were changed on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use warren_engine::core::auth::auth_types;
use warren_engine::core::event::{
    EventBuilder, EventReference, JsonObject, KeyPair, Pdu, reference_hash_of_json,
};
use warren_engine::core::version::{EventIdFormat, RoomVersion};

use crate::choices::{Choices, USERS};
use crate::server::NOW_MS;

/// Most events of a room after those that it begins with.
const EVENTS_MAX: usize = 30;
/// Servers with users, of which the last one's key is not known.
pub const SERVERS: [&str; 3] = ["there.example", "other.example", "far.example"];

const KINDS: [&str; 12] = [
    "m.room.message",
    "m.room.message",
    "m.room.member",
    "m.room.member",
    "m.room.member",
    "m.room.topic",
    "m.room.topic",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.redaction",
    "m.reaction",
    "m.room.third_party_invite",
];

/// A state: the id of each event.
type State = BTreeMap<(String, String), Arc<str>>;

/// An event that somebody made.
pub struct Made {
    /// The event as it was made.
    pub pdu: Pdu,
    /// What is sent of it: perhaps changed on the way.
    pub json: Bytes,
    /// Whether it is kept back at first.
    pub is_withheld: bool,
    /// What its sender takes for the state after it.
    state: State,
}

/// See the module.
pub struct Graph {
    /// The version of the room.
    pub version: &'static RoomVersion,
    /// Its id.
    pub room_id: Arc<str>,
    /// The first events: the state before the join by which it is entered.
    pub first: Vec<Made>,
    /// That join.
    pub entry: Made,
    /// What follows, each after what it names.
    pub events: Vec<Made>,
}

/// The key of a server.
pub fn key(server: &str) -> KeyPair {
    let seed = SERVERS.iter().position(|known| *known == server).unwrap_or(SERVERS.len()) as u8 + 1;
    KeyPair::from_seed("1", &[seed; 32]).expect("a seed of the right length")
}

/// What is to be sent.
struct Wish {
    kind: &'static str,
    sender: &'static str,
    state_key: Option<String>,
    content: JsonObject,
    redacts: Option<Arc<str>>,
}

impl Wish {
    fn state(kind: &'static str, sender: &'static str, state_key: &str, content: &Value) -> Self {
        let content = content.as_object().cloned().unwrap_or_default();
        Self { kind, sender, state_key: Some(state_key.to_owned()), content, redacts: None }
    }
}

/// What is made so far.
struct Builder {
    version: &'static RoomVersion,
    room_id: Option<Arc<str>>,
    hashes: BTreeMap<Arc<str>, [u8; 32]>,
    made: usize,
}

impl Graph {
    /// The graph that choices tell.
    pub fn new(version: &'static RoomVersion, choices: &mut Choices<'_>) -> Self {
        let mut builder = Builder { version, room_id: None, hashes: BTreeMap::new(), made: 0 };
        if !version.room_id_is_create_hash {
            builder.room_id = Some("!room:there.example".into());
        }
        let [alice, bob, carol, ..] = USERS;
        let join = json!({"membership": "join"});
        let mut users = json!({bob: 50, carol: 50});
        if !version.privileged_creators {
            users[alice] = 100.into();
        }
        let first = [
            Wish::state("m.room.create", alice, "", &json!({"creator": alice, "room_version": version.id})),
            Wish::state("m.room.member", alice, alice, &join),
            Wish::state("m.room.power_levels", alice, "", &json!({"users": users})),
            Wish::state("m.room.join_rules", alice, "", &json!({"join_rule": "public"})),
            Wish::state("m.room.member", bob, bob, &join),
            Wish::state("m.room.member", carol, carol, &join),
        ];
        let mut line: Vec<Made> = Vec::new();
        for wish in first {
            let state = line.last().map(|last| last.state.clone()).unwrap_or_default();
            let prev: Vec<Arc<str>> = line.last().map(|last| last.pdu.event_id.clone()).into_iter().collect();
            let auth = builder.selected(&wish, &state);
            let depth = line.len() as u64 + 1;
            line.extend(builder.make(wish, prev, auth, depth, state));
        }
        let entry = line.pop().expect("the first events can be made");
        let room_id = entry.pdu.room_id.clone();
        let mut graph = Self { version, room_id, first: line, entry, events: Vec::new() };
        for _ in 0..EVENTS_MAX {
            if choices.is_done() {
                break;
            }
            let made = graph.next(&mut builder, choices);
            graph.events.extend(made);
        }
        graph
    }

    /// All events that follow the room's beginning.
    fn at(&self, index: usize) -> &Made {
        index.checked_sub(1).map_or(&self.entry, |index| &self.events[index])
    }

    fn next(&self, builder: &mut Builder, choices: &mut Choices<'_>) -> Option<Made> {
        let count = self.events.len() + 1;
        // Near the end as a rule, anywhere now and then.
        let mut followed = Vec::new();
        for _ in 0..1 + choices.below(3) {
            let back = if choices.rarely(6) { choices.below(count) } else { choices.below(count.min(4)) };
            followed.push(self.at(count - 1 - back));
        }
        let mut state = followed[0].state.clone();
        for other in &followed[1..] {
            for (key, event) in &other.state {
                state.entry(key.clone()).or_insert_with(|| event.clone());
            }
        }
        let mut prev: Vec<Arc<str>> = followed.iter().map(|made| made.pdu.event_id.clone()).collect();
        match choices.below(24) {
            23 => prev.clear(),
            22 => prev.push(builder.unknown_id(choices)),
            21 => prev.push(self.first[choices.below(self.first.len())].pdu.event_id.clone()),
            _ => {}
        }
        let wish = self.wish(builder.version, choices);
        // Once in a while a server goes by another state than it should, or names whatever it likes.
        let auth = match choices.below(16) {
            15 => {
                let any = |choices: &mut Choices<'_>| self.at(choices.below(count)).pdu.event_id.clone();
                (0..choices.below(6)).map(|_| any(choices)).collect()
            }
            14 => builder.selected(&wish, &self.at(choices.below(count)).state),
            13 => Vec::from_iter(builder.selected(&wish, &state).first().cloned()),
            _ => builder.selected(&wish, &state),
        };
        let deepest = followed.iter().map(|made| made.pdu.depth).max().unwrap_or_default();
        let depth =
            if choices.rarely(16) { choices.of(&[0, 1, 1 << 40, (1 << 53) - 1]) } else { deepest + 1 };
        let mut made = builder.make(wish, prev, auth, depth, state)?;
        made.is_withheld = choices.rarely(12);
        if choices.rarely(12) {
            made.json = changed(&made.json, choices);
        }
        Some(made)
    }

    fn wish(&self, version: &RoomVersion, choices: &mut Choices<'_>) -> Wish {
        let kind = choices.of(&KINDS);
        let sender = if choices.rarely(4) { choices.of(&USERS) } else { choices.of(&USERS[..4]) };
        let mut content = choices.content(version, kind);
        let some_id =
            |choices: &mut Choices<'_>| self.at(choices.below(self.events.len() + 1)).pdu.event_id.clone();
        let mut redacts = None;
        let state_key = match kind {
            "m.room.member" => {
                let is_own =
                    matches!(content.get("membership").and_then(Value::as_str), Some("join" | "knock"));
                Some(if is_own && !choices.rarely(8) { sender } else { choices.of(&USERS) })
            }
            "m.room.redaction" => {
                redacts = Some(some_id(choices));
                None
            }
            "m.room.message" | "m.reaction" => {
                if choices.rarely(2) {
                    let rel_type = choices.of(&["m.thread", "m.replace", "m.annotation", "m.reference"]);
                    let relation = json!({"rel_type": rel_type, "event_id": some_id(choices)});
                    content.insert("m.relates_to".to_owned(), relation);
                }
                None
            }
            _ => Some(""),
        };
        Wish { kind, sender, state_key: state_key.map(str::to_owned), content, redacts }
    }
}

impl Builder {
    /// The auth events that a state has for an event.
    fn selected(&self, wish: &Wish, state: &State) -> Vec<Arc<str>> {
        let wanted =
            auth_types(self.version, wish.kind, wish.sender, wish.state_key.as_deref(), &wish.content);
        let found = wanted.into_iter().map(|(kind, key)| state.get(&(kind.to_owned(), key.to_owned())));
        found.flatten().cloned().collect()
    }

    fn unknown_id(&self, choices: &mut Choices<'_>) -> Arc<str> {
        let letter = choices.of(&["A", "B", "C"]);
        match self.version.event_ids {
            EventIdFormat::Own => format!("${letter}:far.example").into(),
            _ => format!("${}", letter.repeat(43)).into(),
        }
    }

    fn reference(&self, event_id: Arc<str>) -> EventReference {
        let reference_hash = Some(self.hashes.get(&event_id).copied().unwrap_or_default());
        EventReference { event_id, reference_hash }
    }

    /// Nothing if it cannot be an event of this version.
    fn make(
        &mut self,
        wish: Wish,
        prev: Vec<Arc<str>>,
        auth: Vec<Arc<str>>,
        depth: u64,
        mut state: State,
    ) -> Option<Made> {
        let server = wish.sender.split_once(':').map(|(_, server)| server)?;
        self.made += 1;
        let is_create = wish.kind == "m.room.create";
        let builder = EventBuilder {
            room_id: self.room_id.clone().filter(|_| !(is_create && self.version.room_id_is_create_hash)),
            sender: wish.sender.into(),
            kind: wish.kind.into(),
            state_key: wish.state_key.as_deref().map(Arc::from),
            content: wish.content,
            redacts: wish.redacts,
            prev_events: prev.into_iter().map(|id| self.reference(id)).collect(),
            auth_events: auth.into_iter().map(|id| self.reference(id)).collect(),
            depth,
            origin_server_ts: NOW_MS + self.made as u64,
            event_id_localpart: Some(format!("event{}", self.made)),
        };
        let pdu = builder.build(self.version, server, &key(server)).ok()?;
        self.room_id = Some(pdu.room_id.clone());
        self.hashes.insert(pdu.event_id.clone(), reference_hash_of_json(self.version, &pdu.json).ok()?);
        if let Some(state_key) = &pdu.state_key {
            state.insert((pdu.kind.to_string(), state_key.to_string()), pdu.event_id.clone());
        }
        Some(Made { json: pdu.json.clone(), pdu, is_withheld: false, state })
    }
}

/// The event with something changed: in its content, its sender, its signature, or anywhere.
fn changed(json: &Bytes, choices: &mut Choices<'_>) -> Bytes {
    let text = String::from_utf8_lossy(json);
    let other = match choices.below(5) {
        0 => text.replacen("\"content\":{", "\"content\":{\"added\":1,", 1),
        1 => text.replacen("\"sender\":\"@", "\"sender\":\"@x", 1),
        2 => text.replacen("\"ed25519:1\":\"", "\"ed25519:1\":\"AAAA", 1),
        3 => text.replacen("\"room_id\":\"!", "\"room_id\":\"!x", 1),
        _ => {
            let mut bytes = json.to_vec();
            let at = (choices.below(256) << 8 | choices.below(256)) % bytes.len();
            bytes[at] = choices.below(256) as u8;
            return bytes.into();
        }
    };
    other.into_bytes().into()
}
