//! Authorisation: arbitrary events, judged by arbitrary states, in every room version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use warren_engine::command::testing::Append;
use warren_engine::core::auth::{AuthEvent, AuthState, Denied, auth_types, check, check_auth_events};
use warren_engine::core::event::{JsonObject, Pdu};
use warren_engine::core::resolve::testing::pdu;
use warren_engine::core::version::RoomVersion;
use warren_engine::{Denied as Refused, Error};

use crate::choices::{Choices, USERS};
use crate::server::memory_engine;

/// Who creates rooms of the engine: a user of its server.
const CREATOR: &str = "@alice:here.example";
const ROOM: &str = "!room:there.example";
/// Events that are judged by one state.
const EVENTS: usize = 4;
/// Events that are sent into one room of the engine.
const SENT_MAX: usize = 16;

const KINDS: [&str; 9] = [
    "m.room.member",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.message",
    "m.room.third_party_invite",
    "m.room.topic",
    "m.room.aliases",
    "m.room.create",
];

/// A state as a plain map.
#[derive(Clone, Default)]
struct State(BTreeMap<(String, String), Arc<Pdu>>);

impl AuthState for State {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.0.get(&(kind.to_owned(), state_key.to_owned())).cloned()
    }
}

impl State {
    fn put(&mut self, event: Pdu) {
        let key = (event.kind.to_string(), event.state_key.as_deref().unwrap_or_default().to_owned());
        self.0.insert(key, Arc::new(event));
    }
}

/// What is to be judged.
struct Candidate {
    kind: &'static str,
    sender: &'static str,
    state_key: Option<String>,
    content: JsonObject,
}

impl Candidate {
    fn new(version: &RoomVersion, choices: &mut Choices<'_>) -> Self {
        let kind = choices.of(&KINDS);
        let sender = choices.of(&USERS);
        let state_key = match kind {
            "m.room.message" => None,
            "m.room.member" if choices.rarely(2) => Some(choices.of(&USERS)),
            "m.room.member" => Some(sender),
            "m.room.third_party_invite" => Some("token"),
            "m.room.aliases" => Some(choices.of(&["there.example", "other.example", ""])),
            _ => Some(""),
        };
        let state_key = match choices.rarely(8) {
            true => choices.value(0).as_str().map(str::to_owned),
            false => state_key.map(str::to_owned),
        };
        Self { kind, sender, state_key, content: choices.content(version, kind) }
    }

    /// To be sent into a room of an engine, or to make one.
    fn append(&self, room: Result<String, &'static RoomVersion>) -> Append {
        Append {
            room,
            sender: self.sender.to_owned(),
            kind: self.kind.to_owned(),
            state_key: self.state_key.clone(),
            content: self.content.clone(),
        }
    }

    /// As an event of a room, after others.
    fn event(&self, event_id: &str, room_id: Option<&str>, prev: &[&str]) -> Pdu {
        let mut event = json!({
            "event_id": event_id, "type": self.kind, "sender": self.sender, "content": self.content,
            "prev_events": prev, "origin_server_ts": 1, "depth": 1,
        });
        if let Some(room_id) = room_id {
            event["room_id"] = room_id.into();
        }
        if let Some(state_key) = &self.state_key {
            event["state_key"] = Value::String(state_key.clone());
        }
        pdu(&event).expect("it has all that it takes")
    }
}

/// The first byte picks the room version, the others are choices of states and events.
pub fn auth_rules(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let version = choices.version();
    let create_room = (!version.room_id_is_create_hash).then_some(ROOM);
    let room_id = create_room.unwrap_or("!create");
    let mut state = State::default();
    let create = |choices: &mut Choices<'_>| Candidate {
        kind: "m.room.create",
        sender: USERS[0],
        state_key: Some(String::new()),
        content: choices.content(version, "m.room.create"),
    };
    if !choices.rarely(16) {
        state.put(create(&mut choices).event("$create", create_room, &[]));
    }
    for index in 0..choices.below(10) {
        let candidate = Candidate::new(version, &mut choices);
        if candidate.kind != "m.room.create" {
            state.put(candidate.event(&format!("${index}"), Some(room_id), &["$create"]));
        }
    }
    for _ in 0..EVENTS {
        let candidate = Candidate::new(version, &mut choices);
        let is_create = candidate.kind == "m.room.create";
        let room = if is_create { create_room } else { Some(room_id) };
        let prev: &[&str] = choices.of(&[&["$create"], &["$1", "$2"], &[]]);
        judge(version, &candidate.event("$candidate", room, prev), &state, &mut choices);
    }
    if !choices.is_done() {
        send(version, &mut choices);
    }
}

/// Judges an event, and holds the rules to what they promise.
fn judge(version: &'static RoomVersion, event: &Pdu, state: &State, choices: &mut Choices<'_>) {
    let verdict = check(version, event, state);
    if let Err(Denied { rule, reason }) = verdict {
        assert_eq!(rule, reason.number(version));
        assert!(!rule.is_empty(), "version {} has no rule for {reason:?}", version.id);
    }
    let selected =
        auth_types(version, &event.kind, &event.sender, event.state_key.as_deref(), &event.content);
    let is_selected = |kind: &str, key: &str| selected.contains(&(kind, key)) || kind == "m.room.create";
    let mut relevant = state.clone();
    relevant.0.retain(|(kind, key), _| is_selected(kind, key));
    assert_eq!(check(version, event, &relevant), verdict, "something decides that is not selected");
    for index in 0..4 {
        let other = Candidate::new(version, choices);
        if !is_selected(other.kind, other.state_key.as_deref().unwrap_or_default()) {
            relevant.put(other.event(&format!("$other{index}"), Some(&event.room_id), &["$create"]));
        }
    }
    assert_eq!(check(version, event, &relevant), verdict, "something decides that is not selected");
    let listed: Vec<AuthEvent<'_>> = relevant
        .0
        .values()
        .filter(|_| !choices.rarely(4))
        .map(|pdu| AuthEvent { pdu, rejected: false })
        .collect();
    if check_auth_events(version, event, &listed).is_ok() && &*event.kind != "m.room.create" {
        for AuthEvent { pdu, .. } in &listed {
            let key = pdu.state_key.as_deref().unwrap_or_default();
            assert!(selected.contains(&(&*pdu.kind, key)), "{} may not be listed", pdu.kind);
        }
    }
}

/// Sends events into a room of an engine, which must decide as the rules do on a plain map.
fn send(version: &'static RoomVersion, choices: &mut Choices<'_>) {
    let (engine, _) = memory_engine();
    let state_event = |kind, state_key: &str, content: &Value| Candidate {
        kind,
        sender: CREATOR,
        state_key: Some(state_key.to_owned()),
        content: content.as_object().cloned().unwrap_or_default(),
    };
    let create = json!({"creator": CREATOR, "room_version": version.id});
    let create = state_event("m.room.create", "", &create).append(Err(version));
    let create = engine.write(create).wait().expect("it can be created");
    let room_id = create.room_id.to_string();
    let mut state = State::default();
    let mut last = create.event_id.clone();
    state.put(Pdu::clone(&create));
    let mut first = vec![
        state_event("m.room.member", CREATOR, &json!({"membership": "join"})),
        state_event("m.room.join_rules", "", &json!({"join_rule": "public"})),
    ]
    .into_iter();
    for _ in 0..SENT_MAX {
        let candidate = match first.next() {
            Some(candidate) => candidate,
            None if choices.is_done() => break,
            None => {
                let candidate = Candidate::new(version, choices);
                if choices.rarely(3) { Candidate { sender: CREATOR, ..candidate } } else { candidate }
            }
        };
        if candidate.kind == "m.room.create" {
            continue;
        }
        let expected = check(version, &candidate.event("$candidate", Some(&room_id), &[&last]), &state);
        match (engine.write(candidate.append(Ok(room_id.clone()))).wait(), expected) {
            (Ok(event), Ok(())) => {
                last = event.event_id.clone();
                if event.state_key.is_some() {
                    state.put(Pdu::clone(&event));
                }
            }
            (Err(Error::Denied(Refused::Rule { rule, .. })), Err(denied)) => assert_eq!(rule, denied.rule),
            // It cannot be an event of this version at all.
            (Err(Error::Invalid(_)), _) => {}
            (engines, rules) => panic!("the engine says {engines:?}, the rules {rules:?}"),
        }
    }
}
