//! Clients empty what any redaction names that they are given, whoever sent it: they are given none that nobody would apply.

use super::{completion::sync_with, *};
use crate::{
    core::filter::Filter,
    view::{EventContext, OneEvent, SyncToken, View},
};

const OTHER: &str = "!other:here.example";

fn read<V: View<Output = Vec<u8>>>(scene: &Scene, view: &V) -> Value {
    serde_json::from_slice(&scene.world.engine.read(view).unwrap()).unwrap()
}

fn one(event_id: &str) -> OneEvent {
    OneEvent { room_id: ROOM.into(), event_id: event_id.into(), user: ALICE.into(), device: None }
}

fn ids(events: &Value) -> Vec<String> {
    events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

/// Alice's room as a sync tells it, all of its timeline since a token, and the next token.
fn synced_since(scene: &Scene, since: Option<SyncToken>) -> (Value, SyncToken) {
    let filter = Filter::parse(br#"{"room":{"timeline":{"limit":100}}}"#).unwrap();
    let (next, room) = sync_with(scene, since, filter);
    (room, next)
}

fn synced(scene: &Scene) -> Value {
    synced_since(scene, None).0
}

/// Whether Alice is told of an event of the timeline, which is the same wherever she looks. `near` is one that she sees.
fn is_told(scene: &Scene, event_id: &str, near: &str) -> bool {
    assert!(scene.timeline().iter().any(|known| known == event_id), "it is in the room");
    let history = Messages {
        room_id: ROOM.into(),
        user: ALICE.into(),
        device: None,
        from: None,
        to: None,
        forwards: false,
        limit: Some(100),
        filter: RoomEventFilter::default(),
    };
    let around = EventContext { event: one(near), limit: Some(100), filter: RoomEventFilter::default() };
    let around = read(scene, &around);
    let lists = [
        ids(&read(scene, &history)["chunk"]),
        [ids(&around["events_before"]), ids(&around["events_after"])].concat(),
        ids(&synced(scene)["timeline"]["events"]),
    ];
    let mut found: Vec<bool> = lists.iter().map(|list| list.iter().any(|told| told == event_id)).collect();
    found.push(scene.world.engine.read(&one(event_id)).is_ok());
    assert!(found.iter().all(|is_there| *is_there == found[0]), "{found:?}");
    found[0]
}

fn body(scene: &Scene, event_id: &str) -> Value {
    read(scene, &one(event_id))["content"]["body"].clone()
}

/// Bob's server sends a redaction of his, which comes to be in the room.
fn redact(scene: &Scene, target: Option<&str>, content: &Value, depth: u64) -> String {
    let redaction = scene.redaction_with(target, content, &scene.ends(), depth);
    assert!(accepted(&scene.receive(&[&redaction])));
    redaction.event_id.to_string()
}

#[test]
fn who_has_not_the_power_redacts_nothing_for_clients_either() {
    let scene = Scene::new();
    let said = scene.world.message(ROOM, ALICE, "hello");
    let redaction = redact(&scene, Some(&said), &json!({}), 20);
    assert!(!is_told(&scene, &redaction, &said));
    assert_eq!(body(&scene, &said), "hello");
    scene.is_sound();
    // Nor once another has redacted it.
    scene.world.redact(ROOM, ALICE, &said);
    assert_eq!(body(&scene, &said), Value::Null);
    assert!(!is_told(&scene, &redaction, &said));
}

#[test]
fn who_has_it_redacts_what_is_here_and_what_is_not_but_nothing_of_other_rooms() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let said = scene.world.message(ROOM, ALICE, "hello");
    scene.world.room(OTHER, ALICE, None);
    let elsewhere = scene.world.message(OTHER, ALICE, "elsewhere");
    let first = redact(&scene, Some(&said), &json!({}), 20);
    // Which takes nothing more, but might have.
    let second = redact(&scene, Some(&said), &json!({}), 21);
    let of_unknown = redact(&scene, Some("$unheard"), &json!({}), 22);
    let of_elsewhere = redact(&scene, Some(&elsewhere), &json!({}), 23);
    let told =
        [&first, &second, &of_unknown, &of_elsewhere].map(|redaction| is_told(&scene, redaction, &said));
    assert_eq!(told, [true, true, true, false]);
    assert_eq!(body(&scene, &said), Value::Null);
}

#[test]
fn a_redaction_before_its_target_is_told_once_that_is_there() {
    let scene = Scene::new();
    let near = scene.world.message(ROOM, ALICE, "hello");
    let late = scene.message(BOB, &strs(&scene.ends()), 20);
    let redaction = redact(&scene, Some(&late.event_id), &json!({}), 500);
    assert!(!is_told(&scene, &redaction, &near));
    assert!(accepted(&scene.receive(&[&late])));
    assert!(is_told(&scene, &redaction, &near));
    // Who has read past it is given what it has left.
    let shown = read(&scene, &one(&late.event_id));
    assert_eq!(
        (&shown["content"], &shown["unsigned"]["redacted_because"]["event_id"]),
        (&json!({}), &json!(redaction))
    );
    scene.is_sound();
}

#[test]
fn a_redaction_that_names_its_target_where_the_version_does_not_read_it_is_none() {
    let scene = Scene::new();
    let said = scene.world.message(ROOM, ALICE, "hello");
    let redaction = redact(&scene, None, &json!({"redacts": said}), 20);
    assert!(!is_told(&scene, &redaction, &said));
    // Nor does one of his own name it there.
    let own = scene.message(BOB, &strs(&scene.ends()), 21);
    assert!(accepted(&scene.receive(&[&own])));
    let redaction = redact(&scene, Some(&own.event_id), &json!({"redacts": said}), 22);
    assert!(is_told(&scene, &redaction, &said));
    let shown = read(&scene, &one(&redaction));
    assert_eq!(
        (&shown["redacts"], &shown["content"]["redacts"]),
        (&json!(own.event_id), &json!(own.event_id))
    );
}

#[test]
fn a_redaction_that_was_redacted_itself_is_told_as_it_was() {
    let scene = Scene::new();
    let own = scene.message(BOB, &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&own])));
    let redaction = redact(&scene, Some(&own.event_id), &json!({}), 21);
    scene.world.redact(ROOM, ALICE, &redaction);
    assert!(is_told(&scene, &redaction, &own.event_id));
    // It has lost the name of its target, which still tells why it is empty.
    assert!(read(&scene, &one(&redaction)).get("redacts").is_none());
    let because = &read(&scene, &one(&own.event_id))["unsigned"]["redacted_because"];
    assert_eq!(because["event_id"], redaction);
}

#[test]
fn what_is_not_told_notifies_nobody() {
    let highlights = |scene: &Scene| synced(scene)["unread_notifications"]["highlight_count"].clone();
    let scene = Scene::new();
    let mention = json!({"m.mentions": {"user_ids": [ALICE]}});
    let said = scene.world.message(ROOM, ALICE, "hello");
    redact(&scene, Some(&said), &mention, 20);
    assert_eq!(highlights(&scene), 0);
    let own = scene.message(BOB, &strs(&scene.ends()), 21);
    assert!(accepted(&scene.receive(&[&own])));
    redact(&scene, Some(&own.event_id), &mention, 22);
    assert_eq!(highlights(&scene), 1);
}

#[test]
fn what_is_missing_before_one_that_is_hidden_can_be_asked_for() {
    let scene = Scene::new();
    let (_, since) = synced_since(&scene, None);
    let missing = scene.message(BOB, &strs(&scene.ends()), 20);
    let prev = [missing.event_id.to_string()];
    let redaction = scene.redaction_with(Some("$not_here"), &json!({}), &prev, 21);
    let states = vec![GivenState { event_id: redaction.event_id.clone(), state: scene.state_ids() }];
    let pdus = scene.check(&[&redaction]);
    assert!(accepted(&scene.write(ReceivePdus { pdus, states, ..ReceivePdus::default() })));
    let after = scene.message(BOB, &[&redaction.event_id], 22);
    assert!(accepted(&scene.receive(&[&after])));
    let (room, _) = synced_since(&scene, Some(since));
    assert_eq!(ids(&room["timeline"]["events"]), [after.event_id.to_string()]);
    assert_eq!(room["timeline"]["limited"], true);
}
