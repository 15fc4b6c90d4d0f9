//! The rules against the vectors, and what the vectors leave out: the list of auth events, signatures of
//! third-party invites, redactions, and arbitrary content.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

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
    let vectors = include_str!("../../../vectors/auth-rules/cases.json");
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

fn version(id: &str) -> &'static RoomVersion {
    RoomVersion::get(id).unwrap()
}

fn create() -> Pdu {
    pdu(&json!({"event_id": "$create", "type": "m.room.create", "room_id": "!room:a.example",
        "sender": "@alice:a.example", "state_key": "", "content": {"creator": "@alice:a.example"}}))
}

fn state_event(kind: &str, state_key: &str, content: Value) -> Pdu {
    pdu(&json!({"type": kind, "room_id": "!room:a.example", "sender": "@alice:a.example",
        "state_key": state_key, "content": content}))
}

fn message() -> Pdu {
    pdu(&json!({"type": "m.room.message", "room_id": "!room:a.example", "sender": "@alice:a.example",
        "content": {"body": "x"}}))
}

/// Checks a message that cites `auth_events`, the one at `rejected` having been rejected.
fn check_list(auth_events: &[Pdu], rejected: Option<usize>) -> Result<(), Reason> {
    let entry = |(index, pdu)| AuthEvent { pdu, rejected: rejected == Some(index) };
    let entries: Vec<_> = auth_events.iter().enumerate().map(entry).collect();
    check_auth_events(version("11"), &message(), &entries).map_err(|denied| denied.reason)
}

#[test]
fn the_list_of_auth_events() {
    let member = state_event("m.room.member", "@alice:a.example", json!({"membership": "join"}));
    let power_levels = state_event("m.room.power_levels", "", json!({}));
    let good = [create(), member.clone(), power_levels.clone()];
    assert_eq!(check_list(&good, None), Ok(()));
    assert_eq!(check_list(&good[..2], None), Ok(()));
    assert_eq!(check_list(&good, Some(2)), Err(Reason::AuthEventsRejected));
    assert_eq!(check_list(&good[1..], None), Err(Reason::CreateMissing));
    assert_eq!(
        check_list(&[create(), member.clone(), member.clone()], None),
        Err(Reason::AuthEventsDuplicate)
    );
    let unexpected = state_event("m.room.join_rules", "", json!({}));
    assert_eq!(check_list(&[create(), unexpected], None), Err(Reason::AuthEventsUnexpected));
    assert_eq!(check_list(&[create(), message()], None), Err(Reason::AuthEventsUnexpected));
    let elsewhere = Pdu { room_id: "!other:a.example".into(), ..member.clone() };
    assert_eq!(check_list(&[create(), elsewhere], None), Err(Reason::AuthEventsOtherRoom));
    // Version 12 does not select the create event, and does not need it in the list.
    let with_create = [AuthEvent { pdu: &create(), rejected: false }];
    let denied = check_auth_events(version("12"), &message(), &with_create).unwrap_err();
    assert_eq!((denied.rule, denied.reason), ("3.2", Reason::AuthEventsUnexpected));
    let with_member = [AuthEvent { pdu: &member, rejected: false }];
    assert_eq!(check_auth_events(version("12"), &message(), &with_member), Ok(()));
}

fn selected(id: &str, content: Value) -> Vec<(&'static str, String)> {
    let content = content.as_object().unwrap();
    let types = auth_types(version(id), "m.room.member", "@a:a.example", Some("@b:b.example"), content);
    types.into_iter().map(|(kind, state_key)| (kind, state_key.to_owned())).collect()
}

#[test]
fn the_selection_of_auth_events() {
    let pair = |kind, state_key: &str| (kind, state_key.to_owned());
    let members = [pair("m.room.member", "@a:a.example"), pair("m.room.member", "@b:b.example")];
    let power_levels = pair("m.room.power_levels", "");
    let create = pair("m.room.create", "");
    let join_rules = pair("m.room.join_rules", "");
    let [sender, target] = members;
    let base = [create, power_levels.clone(), sender.clone(), target.clone()];
    assert_eq!(selected("11", json!({"membership": "leave"})), base);
    assert_eq!(selected("12", json!({"membership": "ban"})), base[1..]);
    let invite = json!({"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}});
    let token = pair("m.room.third_party_invite", "t");
    assert_eq!(
        selected("12", invite),
        [power_levels.clone(), sender.clone(), target.clone(), join_rules.clone(), token]
    );
    let join = json!({"membership": "join", "join_authorised_via_users_server": "@c:c.example"});
    let vouching = pair("m.room.member", "@c:c.example");
    assert_eq!(selected("12", join.clone())[3..], [join_rules.clone(), vouching]);
    assert_eq!(selected("7", join)[4..], [join_rules]);
    let none = JsonObject::new();
    let own = auth_types(version("12"), "m.room.member", "@a:a.example", Some("@a:a.example"), &none);
    assert_eq!(own, [("m.room.power_levels", ""), ("m.room.member", "@a:a.example")]);
    assert!(
        auth_types(version("1"), "m.room.create", "@a:a.example", Some(""), &JsonObject::new()).is_empty()
    );
}

/// A room with an invitation by token `t` under `keys`, and an invite by `signer` that answers it.
fn check_third_party(invitation: Value, signer: &Ed25519KeyPair, signatures_of: &str) -> Result<(), Reason> {
    let state = State::of([create(), state_event("m.room.third_party_invite", "t", invitation)]);
    // The keys in the order of canonical JSON, and nothing between them.
    let signature = signer.sign(br#"{"mxid":"@dave:b.example","token":"t"}"#);
    let signature = STANDARD_NO_PAD.encode(signature.as_ref());
    let signed = json!({"token": "t", "mxid": "@dave:b.example", "unsigned": {"age": 1},
        "signatures": {"id.example": {signatures_of: signature}}});
    let content =
        json!({"membership": "invite", "third_party_invite": {"display_name": "d", "signed": signed}});
    let invite = state_event("m.room.member", "@dave:b.example", content);
    check(version("11"), &invite, &state).map_err(|denied| denied.reason)
}

#[test]
fn third_party_invites() {
    let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = |engine: &dyn Fn(&[u8]) -> String, pair: &Ed25519KeyPair| engine(pair.public_key().as_ref());
    let standard = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
    let url_safe = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let good = key(&standard, &signer);
    let other = key(&standard, &Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap());
    assert_eq!(check_third_party(json!({"public_key": good}), &signer, "ed25519:0"), Ok(()));
    assert_eq!(
        check_third_party(json!({"public_key": key(&url_safe, &signer)}), &signer, "ed25519:0"),
        Ok(())
    );
    let listed = json!({"public_key": other, "public_keys": [{"public_key": "?"}, 5, {"public_key": good}]});
    assert_eq!(check_third_party(listed, &signer, "ed25519:0"), Ok(()));
    let refused = Err(Reason::ThirdPartySignature);
    assert_eq!(check_third_party(json!({"public_key": other}), &signer, "ed25519:0"), refused);
    assert_eq!(check_third_party(json!({}), &signer, "ed25519:0"), refused);
    assert_eq!(check_third_party(json!({"public_key": good}), &signer, "rsa:0"), refused);
    // The pairs that are tried are bounded: the right key behind more than that many is not reached.
    let many: Vec<_> =
        (0..300).map(|_| json!({"public_key": other})).chain([json!({"public_key": good})]).collect();
    assert_eq!(check_third_party(json!({"public_keys": many}), &signer, "ed25519:0"), refused);
}

#[test]
fn redactions_are_applied_for_moderators_and_for_the_own_server() {
    let redaction = pdu(&json!({"type": "m.room.redaction", "sender": "@bob:b.example", "redacts": "$x"}));
    let levels = |level: i64| {
        let content = json!({"users": {"@bob:b.example": level}});
        PowerLevels::new(version("11"), &create(), Some(&state_event("m.room.power_levels", "", content)))
    };
    assert!(may_redact(version("11"), &redaction, "@alice:a.example", &levels(50)));
    assert!(!may_redact(version("11"), &redaction, "@alice:a.example", &levels(49)));
    assert!(may_redact(version("11"), &redaction, "@carol:b.example", &levels(0)));
    assert!(may_redact(version("2"), &redaction, "@alice:a.example", &levels(0)));
}

/// The verdict of version `id` on the power levels `new`, which Alice sets where there are `current` ones, or none.
fn change_of_levels(id: &str, current: Option<Value>, new: Value) -> Result<(), (Reason, &'static str)> {
    let levels = |content| state_event("m.room.power_levels", "", content);
    let member = state_event("m.room.member", "@alice:a.example", json!({"membership": "join"}));
    let state = State::of([create(), member].into_iter().chain(current.map(levels)));
    check(version(id), &levels(new), &state).map_err(|denied| (denied.reason, denied.rule))
}

#[test]
fn what_is_no_level_is_rejected_where_the_version_has_to_compare_it() {
    let alice = json!({"@alice:a.example": 100});
    let users = || Some(json!({"users": alice}));
    let wrong = || json!({"users": alice, "ban": "fifty"});
    assert_eq!(change_of_levels("9", None, wrong()), Ok(()));
    assert_eq!(change_of_levels("10", None, wrong()), Err((Reason::PowerField, "9.1")));
    assert_eq!(change_of_levels("5", users(), wrong()), Err((Reason::PowerField, "10.3")));
    assert_eq!(change_of_levels("9", users(), wrong()), Err((Reason::PowerField, "9.3")));
    // What is there by now can be replaced: it is not stated.
    assert_eq!(change_of_levels("9", Some(wrong()), json!({"users": alice, "ban": 60})), Ok(()));
    let loud = || json!({"users": alice, "notifications": {"room": "loud"}});
    assert_eq!(change_of_levels("5", users(), loud()), Ok(()));
    assert_eq!(change_of_levels("6", users(), loud()), Err((Reason::PowerMap, "9.4")));
    assert_eq!(change_of_levels("10", users(), loud()), Err((Reason::PowerMap, "9.2")));
}

#[test]
fn a_level_for_nobody_who_can_be_does_not_reject_the_others() {
    let typo = json!({"users": {"@alice:a.example": 100, "@typo:my_server.test": 50}});
    let without = json!({"users": {"@alice:a.example": 100}});
    for id in ["1", "6", "9", "10", "11"] {
        assert_eq!(change_of_levels(id, Some(without.clone()), typo.clone()), Ok(()), "version {id}");
        assert_eq!(change_of_levels(id, Some(typo.clone()), without.clone()), Ok(()), "version {id}");
    }
}

/// JSON of any shape, with the names and values that the rules look at among its own.
fn arbitrary_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "membership",
        "third_party_invite",
        "signed",
        "mxid",
        "token",
        "signatures",
        "public_key",
        "public_keys",
        "join_authorised_via_users_server",
        "join_rule",
        "users",
        "events",
        "notifications",
        "ban",
        "m.federate",
        "creator",
        "additional_creators",
        "room_version",
        "@alice:a.example",
        "other",
    ]);
    let texts = prop::sample::select(vec![
        "join",
        "invite",
        "leave",
        "ban",
        "knock",
        "@alice:a.example",
        "@",
        ":",
        "",
        " +5 ",
        "t",
        "12",
        "restricted",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        let object = prop::collection::btree_map(names.clone(), inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|map| Value::Object(
                map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

/// An event of one of the types that have rules, of arbitrary content.
fn arbitrary_event() -> impl Strategy<Value = Pdu> {
    let kinds =
        ["create", "member", "power_levels", "join_rules", "third_party_invite", "redaction", "aliases", "x"];
    let ids = vec!["", "t", "@alice:a.example", "@bob:b.example", "@", "a.example"];
    let state_key = prop::option::of(prop::sample::select(ids.clone()));
    let parts =
        (prop::sample::select(kinds.to_vec()), prop::sample::select(ids), state_key, arbitrary_json());
    parts.prop_map(|(kind, sender, state_key, content)| {
        pdu(&json!({"type": format!("m.room.{kind}"), "room_id": "!room:a.example", "sender": sender,
            "state_key": state_key, "content": content, "redacts": content.get("token")}))
    })
}

proptest! {
    #[test]
    fn no_event_and_no_state_makes_the_rules_panic(
        event in arbitrary_event(),
        events in prop::collection::vec(arbitrary_event(), 0..6),
        well_formed in any::<bool>(),
    ) {
        let member = state_event("m.room.member", "@alice:a.example", json!({"membership": "join"}));
        let good = [create(), member].into_iter().filter(|_| well_formed);
        let entries: Vec<_> = events.iter().map(|pdu| AuthEvent { pdu, rejected: false }).collect();
        for version in ROOM_VERSIONS {
            let list = check_auth_events(version, &event, &entries);
            let state = State::of(events.iter().cloned().chain(good.clone()));
            for denied in [list.err(), check(version, &event, &state).err()].into_iter().flatten() {
                prop_assert!(!denied.rule.is_empty(), "{:?} has no number in version {}", denied.reason, version.id);
            }
        }
    }
}
