//! Rooms with a policy server: there.example, which signs what a test has it sign.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{
    Command, Error, PolicyServer, UnsignedEvent,
    command::{AdoptState, KeepGuests, RemoveGuests, SendEvent, ShutOutGuests, UpgradeRoom, WithSigned},
    core::event::{JsonObject, encode_base64, redact},
    view::{RoomsWithGuestsToRemove, federation::PolicyProbes},
};

pub(super) const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// A scene whose room uses the policy server, with its policy key.
fn protected() -> (Scene, KeyPair) {
    let scene = Scene::new();
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    use_policy_server(&scene, "there.example", &key);
    (scene, key)
}

pub(super) fn use_policy_server(scene: &Scene, via: &str, key: &KeyPair) -> String {
    let public_keys = json!({"ed25519": encode_base64(key.public_key())});
    scene.world.state(ROOM, ALICE, "m.room.policy", "", json!({"via": via, "public_keys": public_keys}))
}

pub(super) fn answer(event: &[u8], key: &KeyPair) -> JsonObject {
    let pdu = Pdu::parse(version(), event).unwrap();
    let signature = key.sign(&pdu.signed_bytes(version()).unwrap());
    json!({"there.example": {POLICY_KEY_ID: signature}}).as_object().cloned().unwrap()
}

pub(super) fn signed(pdu: &Pdu, key: &KeyPair) -> Pdu {
    pdu.clone().with_signature(version(), "there.example", key).unwrap()
}

fn message(body: &str) -> SendEvent {
    let content = json!({"msgtype": "m.text", "body": body});
    SendEvent::message(ROOM, ALICE, content.as_object().cloned().unwrap())
}

/// Tries a command, and has what it builds signed until it is done.
fn run<C: Command>(scene: &Scene, key: &KeyPair, command: C) -> (C::Output, usize) {
    let mut signed = Vec::new();
    loop {
        match scene.world.engine.write(WithSigned { command: &command, signed: &signed }).wait() {
            Ok(output) => return (output, signed.len()),
            Err(Error::Unsigned(unsigned)) => {
                signed.push(unsigned.signed(&answer(unsigned.json(), key)).unwrap());
            }
            Err(error) => panic!("{error}"),
        }
        assert!(signed.len() < 10, "what is signed is built anew each time");
    }
}

fn unsigned(scene: &Scene, command: SendEvent) -> Box<UnsignedEvent> {
    match scene.world.engine.write(command).wait() {
        Err(Error::Unsigned(unsigned)) => unsigned,
        other => panic!("{other:?}"),
    }
}

pub(super) fn event_json(scene: &Scene, event_id: &str) -> Value {
    scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(event_id)?.unwrap())?;
        Ok(serde_json::from_slice(&event.json).unwrap())
    })
}

#[test]
fn an_event_waits_for_the_signature_and_keeps_it() {
    let (scene, key) = protected();
    let pdu = scene.message(BOB, &strs(&scene.ends()), 20);
    let received = scene.receive(&[&pdu]);
    assert_eq!(received.outcomes, [(pdu.event_id.clone(), Outcome::Waiting)]);
    let [wanted] = &received.missing.signatures[..] else { panic!("{received:?}") };
    assert_eq!((&wanted.event_id, &*wanted.policy.name), (&pdu.event_id, "there.example"));
    assert_eq!(scene.status(&pdu.event_id), None);
    let checked = scene.check(&[&pdu]).remove(0);
    let with = wanted.policy.sign_checked(version(), &checked, &answer(&pdu.json, &key)).unwrap();
    let received = scene.write(ReceivePdus { pdus: vec![with], ..ReceivePdus::default() });
    assert!(accepted(&received), "{received:?}");
    let signatures = &event_json(&scene, &pdu.event_id)["signatures"]["there.example"];
    assert!(signatures[POLICY_KEY_ID].is_string() && signatures[KEY_ID].is_string());
    // One that comes with it waits for nobody.
    let next = signed(&scene.message(BOB, &[&pdu.event_id], 21), &key);
    assert!(accepted(&scene.receive(&[&next])));
    scene.is_sound();
}

#[test]
fn what_is_not_signed_by_the_rooms_key_is_soft_failed() {
    let (scene, _) = protected();
    let ends = scene.ends();
    let stranger = KeyPair::from_seed("policy_server", &[10; 32]).unwrap();
    let pdu = signed(&scene.message(BOB, &strs(&ends), 20), &stranger);
    let received = scene.receive(&[&pdu]);
    let [wanted] = &received.missing.signatures[..] else { panic!("{received:?}") };
    let checked = scene.check(&[&pdu]).remove(0);
    for wrong in [answer(&pdu.json, &stranger), JsonObject::new()] {
        assert!(wanted.policy.sign_checked(version(), &checked, &wrong).is_err());
    }
    let refused = ReceivePdus {
        pdus: vec![checked],
        not_recommended: BTreeSet::from([pdu.event_id.clone()]),
        ..ReceivePdus::default()
    };
    assert_eq!(scene.write(refused).outcomes, [(pdu.event_id.clone(), Outcome::NotRecommended)]);
    assert_eq!(scene.status(&pdu.event_id), Some(EventStatus::SoftFailed));
    assert!(!scene.timeline().contains(&pdu.event_id.to_string()));
    assert_eq!(scene.ends(), ends);
    scene.is_sound();
}

#[test]
fn the_rules_come_first() {
    let (scene, _) = protected();
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "x"}), &strs(&scene.ends()), 20);
    let received = scene.receive(&[&topic]);
    assert!(matches!(received.outcomes[..], [(_, Outcome::Rejected(_))]), "{received:?}");
    assert!(received.missing.signatures.is_empty());
}

#[test]
fn a_policy_server_is_one_that_is_named_and_there() {
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    let scene = Scene::new();
    for content in [
        json!({}),
        json!({"via": 5, "public_keys": {"ed25519": "AAAA"}}),
        json!({"via": "there.example"}),
        json!({"via": "there.example", "public_keys": {"ed25519": 5}}),
        json!({"via": "elsewhere.example", "public_keys": {"ed25519": "AAAA"}}),
    ] {
        scene.world.state(ROOM, ALICE, "m.room.policy", "", content);
        scene.world.engine.write(message("to everybody")).wait().unwrap();
    }
    // The one event that is not asked about turns it on, and off; one with a state key is another.
    use_policy_server(&scene, "there.example", &key);
    let other = SendEvent {
        kind: "m.room.policy".into(),
        state_key: Some("other".into()),
        ..message("a policy of another kind")
    };
    unsigned(&scene, other);
    unsigned(&scene, message("asked about"));
    scene.world.state(ROOM, ALICE, "m.room.policy", "", json!({}));
    scene.world.engine.write(message("to everybody again")).wait().unwrap();
    use_policy_server(&scene, "there.example", &key);
    unsigned(&scene, message("asked about"));
    let leave = signed(&scene.member(BOB, BOB, "leave", &strs(&scene.ends()), 50), &key);
    assert!(accepted(&scene.receive(&[&leave])));
    scene.world.engine.write(message("without the one that left")).wait().unwrap();
}

#[test]
fn a_policy_server_is_none_any_more_once_what_names_it_is_redacted() {
    let scene = Scene::new();
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    let named_by = use_policy_server(&scene, "there.example", &key);
    unsigned(&scene, message("asked about"));
    let redaction = SendEvent {
        kind: "m.room.redaction".into(),
        redacts: Some(named_by),
        ..SendEvent::message(ROOM, ALICE, JsonObject::new())
    };
    assert_eq!(run(&scene, &key, redaction).1, 1);
    scene.world.engine.write(message("to everybody")).wait().unwrap();
    scene.is_sound();
}

#[test]
fn a_policy_server_that_was_told_pruned_is_one_once_it_is_told_whole() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    let public_keys = json!({"ed25519": encode_base64(key.public_key())});
    let content = json!({"via": "there.example", "public_keys": public_keys});
    let named = scene.draft(BOB, "m.room.policy", Some(""), content, &strs(&scene.ends()), 20);
    let object: JsonObject = serde_json::from_slice(&named.json).unwrap();
    let pruned = Pdu::from_object(version(), redact(version(), &object)).unwrap();
    assert!(accepted(&scene.receive(&[&pruned])));
    scene.world.engine.write(message("to everybody")).wait().unwrap();
    scene.receive(&[&named]);
    unsigned(&scene, message("asked about"));
    scene.is_sound();
}

#[test]
fn what_is_signed_is_what_is_sent_though_the_room_has_gone_on() {
    let (scene, key) = protected();
    let command = SendEvent { transaction: Some(("DEVICE".into(), "1".into())), ..message("hello") };
    let first = unsigned(&scene, command.clone());
    let event_id = Pdu::parse(version(), first.json()).unwrap().event_id;
    let signature = first.signed(&answer(first.json(), &key)).unwrap();
    let meanwhile = signed(&scene.message(BOB, &strs(&scene.ends()), 20), &key);
    assert!(accepted(&scene.receive(&[&meanwhile])));
    scene.world.pass_ms(1_000);
    let again = WithSigned { command: &command, signed: std::slice::from_ref(&signature) };
    assert_eq!(scene.world.engine.write(again).wait().unwrap(), *event_id);
    assert!(event_json(&scene, &event_id)["signatures"]["there.example"][POLICY_KEY_ID].is_string());
    assert_eq!(scene.ends().len(), 2);
    // The same transaction makes no second event, and the next event follows both.
    assert_eq!(scene.world.engine.write(command).wait().unwrap(), *event_id);
    let (next, asked) = run(&scene, &key, message("and on"));
    assert_eq!((scene.ends(), asked), (vec![next], 1));
    scene.is_sound();
}

#[test]
fn what_allows_an_event_may_be_known_from_outside_of_the_graph() {
    let scene = Scene::new();
    let levels = |name: u64| json!({"users": {ALICE: 100, BOB: 100}, "events": {"m.room.name": name}});
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", levels(50));
    let end = scene.world.message(ROOM, ALICE, "the last event");
    let told = scene.draft(BOB, "m.room.power_levels", Some(""), levels(60), &[&end], 40);
    scene.receive_outliers(&[&told]);
    let state = GivenState { event_id: end.as_str().into(), state: vec![told.event_id.clone()] };
    scene.world.engine.write(AdoptState { room_id: ROOM.into(), state }).wait().unwrap();
    assert_eq!(scene.status(&scene.state("m.room.power_levels", "").unwrap()), Some(EventStatus::Outlier));
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    use_policy_server(&scene, "there.example", &key);
    assert_eq!(run(&scene, &key, message("hello")).1, 1);
}

#[test]
fn a_signature_does_not_outlive_the_policy_server_or_the_senders_power() {
    let (scene, key) = protected();
    let first = unsigned(&scene, message("hello"));
    let signature = vec![first.signed(&answer(first.json(), &key)).unwrap()];
    let other = KeyPair::from_seed("policy_server", &[11; 32]).unwrap();
    use_policy_server(&scene, "there.example", &other);
    let command = message("hello");
    let again = WithSigned { command: &command, signed: &signature };
    assert!(matches!(scene.world.engine.write(again).wait(), Err(Error::Unsigned(_))));
    scene.world.state(ROOM, ALICE, "m.room.policy", "", json!({}));
    let muted = json!({"users": {ALICE: 100}, "events": {"m.room.message": 101}});
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", muted);
    let again = WithSigned { command: &command, signed: &signature };
    assert!(matches!(scene.world.engine.write(again).wait(), Err(Error::Denied(_))));
}

#[test]
fn an_event_is_sent_once_the_policy_server_that_came_meanwhile_has_signed_it() {
    let (scene, key) = protected();
    let command = message("hello");
    let first = unsigned(&scene, command.clone());
    let mut signed = vec![first.signed(&answer(first.json(), &key)).unwrap()];
    let other = KeyPair::from_seed("policy_server", &[11; 32]).unwrap();
    use_policy_server(&scene, "there.example", &other);
    let again = WithSigned { command: &command, signed: &signed };
    let Err(Error::Unsigned(second)) = scene.world.engine.write(again).wait() else {
        panic!("the signature of the one before holds no more")
    };
    signed.push(second.signed(&answer(second.json(), &other)).unwrap());
    let again = WithSigned { command: &command, signed: &signed };
    let sent = scene.world.engine.write(again).wait().unwrap();
    assert_eq!(*sent, *signed[1].event_id);
    assert_eq!(scene.ends(), [sent]);
    scene.is_sound();
}

#[test]
fn a_room_is_upgraded_with_each_of_its_last_events_signed() {
    for to in ["10", "12"] {
        let (scene, key) = protected();
        let upgrade = UpgradeRoom {
            room_id: ROOM.into(),
            user_id: ALICE.into(),
            version: to.into(),
            additional_creators: Vec::new(),
        };
        let (room_id, asked) = run(&scene, &key, upgrade);
        assert!((1..5).contains(&asked), "{asked}");
        let tombstone = event_json(&scene, &scene.state("m.room.tombstone", "").unwrap());
        assert_eq!(tombstone["content"]["replacement_room"], *room_id);
        scene.is_sound();
    }
}

#[test]
fn guests_leave_a_closed_room_once_that_is_signed() {
    let (scene, _) = guests::open();
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    use_policy_server(&scene, "there.example", &key);
    let closed = signed(&guests::access(&scene, "forbidden", &strs(&scene.ends()), 120), &key);
    // It comes in all the same.
    let received = scene.receive(&[&closed]);
    assert!(accepted(&received) && received.has_guests_to_remove, "{received:?}");
    assert!(scene.is_joined(guests::GUEST));
    let marked = || scene.world.engine.read(&RoomsWithGuestsToRemove).unwrap();
    assert_eq!(marked(), [ROOM], "it is not forgotten that they have to leave");
    let remove = || RemoveGuests { room_id: ROOM.into() };
    assert_eq!(run(&scene, &key, remove()), (1, 1));
    assert!(!scene.is_joined(guests::GUEST));
    assert!(marked().is_empty());
    assert_eq!(run(&scene, &key, remove()), (0, 0));
    scene.is_sound();
}

#[test]
fn a_user_closes_a_room_without_waiting_for_its_guests() {
    let (scene, _) = guests::open();
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    use_policy_server(&scene, "there.example", &key);
    let close = || {
        let content = json!({"guest_access": "forbidden"}).as_object().cloned().unwrap();
        let (kind, state_key) = ("m.room.guest_access".to_owned(), Some(String::new()));
        ShutOutGuests { event: SendEvent { kind, state_key, ..SendEvent::message(ROOM, ALICE, content) } }
    };
    let (sent, asked) = run(&scene, &key, close());
    assert!(sent.has_guests_to_remove && asked == 1);
    assert_eq!(scene.state("m.room.guest_access", ""), Some(sent.event_id.clone()));
    assert!(scene.is_joined(guests::GUEST));
    // To say so again is no event, but lets those go who are still there.
    let (again, asked) = run(&scene, &key, close());
    assert!(again.event_id == sent.event_id && again.has_guests_to_remove && asked == 0);
    let marked = || scene.world.engine.read(&RoomsWithGuestsToRemove).unwrap();
    assert_eq!(marked(), [ROOM]);
    scene.world.engine.write(KeepGuests { room_id: ROOM.into() }).wait().unwrap();
    assert!(marked().is_empty(), "they are not to be let go for ever");
    assert_eq!(run(&scene, &key, RemoveGuests { room_id: ROOM.into() }), (1, 1));
    assert!(!scene.is_joined(guests::GUEST));
    scene.is_sound();
}

#[test]
fn it_is_seen_by_the_newest_that_it_has_signed_of_each_sender_and_the_oldest_whether_it_signs() {
    let (scene, key) = protected();
    let stranger = KeyPair::from_seed("policy_server", &[10; 32]).unwrap();
    let by = |key: &KeyPair| PolicyServer {
        name: "there.example".to_owned(),
        public_key: key.public_key().to_vec(),
    };
    let probes = |key: &KeyPair, limit| {
        let policy = by(key);
        let view = PolicyProbes { room_id: ROOM, policy: &policy, limit };
        scene.world.engine.read(&view).unwrap()
    };
    let ids = |probes: &[UnsignedEvent]| -> Vec<String> {
        let id = |probe: &UnsignedEvent| Pdu::parse(version(), probe.json()).unwrap().event_id.to_string();
        probes.iter().map(id).collect()
    };
    assert!(probes(&key, 3).is_empty(), "what names it is not signed");
    let one = signed(&scene.message(BOB, &strs(&scene.ends()), 20), &key);
    let two = signed(&scene.message(BOB, &[&one.event_id], 21), &key);
    assert!(accepted(&scene.receive(&[&one, &two])));
    let (ours, _) = run(&scene, &key, message("hello"));
    let found = probes(&key, 4);
    let [one, two] = [&one, &two].map(|pdu| pdu.event_id.to_string());
    assert_eq!(ids(&found), [ours.clone(), two.clone(), one.clone()]);
    assert_eq!(ids(&probes(&key, 3)), [ours.clone(), two, one.clone()]);
    assert_eq!(ids(&probes(&key, 2)), [ours.clone(), one]);
    assert_eq!(ids(&probes(&key, 1)), [ours.clone()]);
    assert!(probes(&key, 0).is_empty());
    assert!(probes(&stranger, 3).is_empty(), "it is another key's");
    for probe in &found {
        assert!(probe.signed(&answer(probe.json(), &key)).is_ok());
        assert!(probe.signed(&answer(probe.json(), &stranger)).is_err());
    }
    // Who has left may have been turned out for what it has come to refuse.
    let left = signed(&scene.member(BOB, BOB, "leave", &strs(&scene.ends()), 30), &key);
    assert!(accepted(&scene.receive(&[&left])));
    assert_eq!(ids(&probes(&key, 3)), [ours]);
    // The room has gone on without it for long.
    scene.world.state(ROOM, ALICE, "m.room.policy", "", json!({}));
    for number in 0..200 {
        scene.world.message(ROOM, ALICE, &number.to_string());
    }
    assert!(probes(&key, 3).is_empty());
}

#[test]
fn it_is_not_seen_by_what_names_a_policy_server_whether_it_signs() {
    let (scene, key) = protected();
    let policy = PolicyServer { name: "there.example".to_owned(), public_key: key.public_key().to_vec() };
    let shows = |state_key: &str| {
        let pdu = scene.draft(BOB, "m.room.policy", Some(state_key), json!({}), &strs(&scene.ends()), 20);
        assert!(!policy.shows_by(version(), &pdu).unwrap(), "it is not signed");
        policy.shows_by(version(), &signed(&pdu, &key)).unwrap()
    };
    assert!(!shows("") && shows("another"));
}
