//! The rules against the project's vectors.

use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::core::event::JsonObject;
use crate::core::version::ROOM_VERSIONS;

/// Room state as a plain map, without anything kept.
#[derive(Default)]
pub(super) struct State(HashMap<(String, String), Arc<Pdu>>);

impl State {
    pub(super) fn of(events: impl IntoIterator<Item = Pdu>) -> State {
        let key = |event: &Pdu| (event.kind.to_string(), event.state_key.as_deref().unwrap_or("").to_owned());
        State(events.into_iter().map(|event| (key(&event), Arc::new(event))).collect())
    }
}

impl AuthState for State {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.0.get(&(kind.to_owned(), state_key.to_owned())).cloned()
    }
}

/// An event with symbolic ids: what is absent is empty, a create event without room id gets the one made of its id.
pub(super) fn pdu(json: &Value) -> Pdu {
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(Arc::from);
    let list = |name: &str| -> Vec<Arc<str>> {
        let ids = json.get(name).and_then(Value::as_array).into_iter().flatten();
        ids.filter_map(Value::as_str).map(Arc::from).collect()
    };
    let event_id: Arc<str> = text("event_id").unwrap_or_else(|| Arc::from("$candidate"));
    Pdu {
        room_id: text("room_id").unwrap_or_else(|| event_id.replacen('$', "!", 1).into()),
        event_id,
        sender: text("sender").unwrap(),
        kind: text("type").unwrap(),
        state_key: text("state_key"),
        content: json.get("content").and_then(Value::as_object).cloned().unwrap_or_default(),
        prev_events: list("prev_events"),
        auth_events: list("auth_events"),
        depth: 1,
        origin_server_ts: 1,
        redacts: text("redacts"),
        json: serde_json::to_vec(json).unwrap().into(),
    }
}

#[derive(serde::Deserialize)]
struct Vectors {
    rooms: HashMap<String, Vec<Value>>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    room_versions: Vec<String>,
    expected: String,
    room: String,
    event: JsonObject,
}

#[test]
fn every_case_of_the_vectors() {
    let vectors = include_str!("../../../../tests/vectors/auth-rules/cases.json");
    let vectors: Vectors = serde_json::from_str(vectors).unwrap();
    let mut num_verdicts = 0;
    for case in &vectors.cases {
        let state = State::of(vectors.rooms[&case.room].iter().map(pdu));
        let event = pdu(&Value::Object(case.event.clone()));
        for id in &case.room_versions {
            let version = RoomVersion::get(id).unwrap();
            let verdict = check(version, &event, &state);
            let said = if verdict.is_ok() { "allow" } else { "reject" };
            assert_eq!(said, case.expected, "{} in version {id}: {verdict:?}", case.name);
            if let Err(denied) = verdict {
                assert!(!denied.rule.is_empty(), "{} in version {id}: {denied:?}", case.name);
            }
            num_verdicts += 1;
        }
    }
    assert_eq!((vectors.cases.len(), num_verdicts), (291, 1060));
}

#[test]
fn every_version_numbers_its_rules() {
    for version in ROOM_VERSIONS {
        assert!(!Reason::SenderNotJoined.number(version).is_empty());
    }
    let number = |reason: Reason, id| reason.number(RoomVersion::get(id).unwrap());
    assert_eq!(number(Reason::JoinRule, "1"), "5.2.6");
    assert_eq!(number(Reason::JoinRule, "6"), "4.2.6");
    assert_eq!(number(Reason::MembershipUnknown, "7"), "4.7");
    assert_eq!(number(Reason::PowerUserNew, "9"), "9.7.1");
    assert_eq!(number(Reason::PowerUserNew, "10"), "9.9.1");
    assert_eq!(number(Reason::PowerCreators, "12"), "10.4");
}
