//! Rendering of events for clients, through rooms written in the text language.

use serde_json::{Value, json};

use super::*;
use crate::fixture::World;

const ROOM: &str = "!room:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:here.example";

/// The event as `asker` gets it.
fn shown(world: &World, event_id: &str, asker: &str) -> Value {
    world.ask(|reader| {
        let asker = Asker { user: reader.user_num(asker)?.unwrap(), device: None };
        let found = reader.event(reader.event_num(event_id)?.unwrap())?;
        let mut out = Vec::new();
        let mut renderer = Renderer::new(reader, found.header.room, ClientFormat::Room, Some(asker))?;
        renderer.write_timeline(&mut out, &[found])?;
        Ok(serde_json::from_slice(&out).unwrap())
    })
}

fn relations(world: &World, event_id: &str, asker: &str) -> Value {
    shown(world, event_id, asker)["unsigned"]["m.relations"].clone()
}

fn world() -> World {
    let world = World::new();
    world.room(ROOM, ALICE, Some("shared"));
    world.join(ROOM, BOB);
    world
}

fn edit(world: &World, sender: &str, target: &str, body: &str) -> String {
    let content = json!({"body": body, "m.new_content": {"body": body}});
    world.relate(ROOM, sender, "m.replace", target, content)
}

#[test]
fn a_plain_message_has_age_and_membership() {
    let world = world();
    let event_id = world.message(ROOM, ALICE, "hello \"there\"");
    world.pass_ms(500);
    let event = shown(&world, &event_id, BOB);
    assert_eq!(event["unsigned"], json!({"age": 500, "membership": "join"}));
    assert_eq!(event["room_id"], ROOM);
    assert_eq!(event["event_id"], event_id);
    assert_eq!(event["content"], json!({"msgtype": "m.text", "body": "hello \"there\""}));
    // Rendered again from the cached bytes, it is the same.
    assert_eq!(shown(&world, &event_id, BOB), event);
}

#[test]
fn membership_is_that_after_the_event() {
    let world = World::new();
    world.room(ROOM, ALICE, Some("world_readable"));
    let before = world.message(ROOM, ALICE, "before");
    let join = world.join(ROOM, BOB);
    let leave = world.leave(ROOM, BOB);
    for (event, membership) in [(before, "leave"), (join, "join"), (leave, "leave")] {
        assert_eq!(shown(&world, &event, BOB)["unsigned"]["membership"], membership);
    }
}

#[test]
fn state_tells_what_it_replaced() {
    let world = world();
    let first = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "one"}));
    let second = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "two"}));
    let unsigned = shown(&world, &first, BOB)["unsigned"].clone();
    assert!(unsigned.get("prev_content").is_none() && unsigned.get("replaces_state").is_none());
    let unsigned = shown(&world, &second, BOB)["unsigned"].clone();
    assert_eq!(unsigned["prev_content"], json!({"topic": "one"}));
    assert_eq!(unsigned["replaces_state"], first);
    assert_eq!(unsigned["prev_sender"], ALICE);
}

#[test]
fn earlier_content_that_the_asker_may_not_see_is_left_out() {
    let world = World::new();
    world.room(ROOM, ALICE, Some("joined"));
    let first = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "secret"}));
    world.join(ROOM, BOB);
    let second = world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "open"}));
    let unsigned = shown(&world, &second, BOB)["unsigned"].clone();
    assert!(unsigned.get("prev_content").is_none());
    assert_eq!(unsigned["replaces_state"], first);
}

#[test]
fn a_redacted_event_tells_why() {
    let world = world();
    let event_id = world.message(ROOM, BOB, "oops");
    assert_eq!(shown(&world, &event_id, BOB)["content"]["body"], "oops");
    let redaction = world.redact(ROOM, ALICE, &event_id);
    let event = shown(&world, &event_id, BOB);
    assert_eq!(event["content"], json!({}));
    assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction);
    assert_eq!(event["unsigned"]["redacted_because"]["redacts"], event_id);
}

#[test]
fn a_chain_of_redactions_is_shown_one_at_a_time() {
    let world = world();
    let event_id = world.message(ROOM, BOB, "oops");
    let first = world.redact(ROOM, BOB, &event_id);
    let second = world.redact(ROOM, BOB, &first);
    let third = world.redact(ROOM, BOB, &second);
    for (event_id, redaction) in [(&event_id, &first), (&first, &second), (&second, &third)] {
        let because = &shown(&world, event_id, BOB)["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], **redaction);
        assert_eq!(because["unsigned"].get("redacted_because"), None);
    }
}

#[test]
fn the_latest_valid_edit_is_bundled() {
    let world = world();
    let target = world.message(ROOM, ALICE, "one");
    assert_eq!(relations(&world, &target, BOB), Value::Null);
    let first = edit(&world, ALICE, &target, "two");
    let second = edit(&world, ALICE, &target, "three");
    // Neither the edit of somebody else nor one without new content counts.
    edit(&world, BOB, &target, "four");
    world.relate(ROOM, ALICE, "m.replace", &target, json!({"body": "five"}));
    assert_eq!(relations(&world, &target, BOB)["m.replace"]["event_id"], second);
    world.redact(ROOM, ALICE, &second);
    assert_eq!(relations(&world, &target, BOB)["m.replace"]["event_id"], first);
    // An edit is not edited.
    edit(&world, ALICE, &first, "six");
    assert_eq!(relations(&world, &first, BOB), Value::Null);
    // What was redacted has no edits.
    world.redact(ROOM, ALICE, &target);
    assert_eq!(relations(&world, &target, BOB), Value::Null);
}

#[test]
fn references_are_listed_and_reactions_are_not() {
    let world = world();
    let target = world.message(ROOM, ALICE, "poll");
    let first = world.relate(ROOM, BOB, "m.reference", &target, json!({"body": "a"}));
    let second = world.relate(ROOM, ALICE, "m.reference", &target, json!({"body": "b"}));
    world.relate(ROOM, BOB, "m.annotation", &target, json!({"body": "+1"}));
    let chunk = json!([{"event_id": first}, {"event_id": second}]);
    assert_eq!(relations(&world, &target, BOB), json!({"m.reference": {"chunk": chunk}}));
    world.redact(ROOM, BOB, &first);
    let chunk = json!([{"event_id": second}]);
    assert_eq!(relations(&world, &target, BOB), json!({"m.reference": {"chunk": chunk}}));
}

#[test]
fn a_thread_is_summed_up() {
    let world = world();
    let carol = "@carol:here.example";
    world.join(ROOM, carol);
    let root = world.message(ROOM, ALICE, "root");
    let first = world.relate(ROOM, BOB, "m.thread", &root, json!({"body": "1"}));
    let second = world.relate(ROOM, BOB, "m.thread", &root, json!({"body": "2"}));
    let edit = edit(&world, BOB, &second, "two");
    let thread = relations(&world, &root, carol)["m.thread"].clone();
    assert_eq!(thread["count"], 2);
    assert_eq!(thread["latest_event"]["event_id"], second);
    assert_eq!(thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"], edit);
    assert_eq!(thread["current_user_participated"], false);
    for participant in [ALICE, BOB] {
        assert_eq!(relations(&world, &root, participant)["m.thread"]["current_user_participated"], true);
    }
    // No thread begins at an event of a thread.
    world.relate(ROOM, BOB, "m.thread", &first, json!({"body": "nested"}));
    assert_eq!(relations(&world, &first, BOB), Value::Null);
    world.redact(ROOM, BOB, &second);
    let thread = relations(&world, &root, carol)["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["latest_event"]["event_id"]), (&json!(1), &json!(first)));
    world.redact(ROOM, BOB, &first);
    assert_eq!(relations(&world, &root, carol), Value::Null);
}

#[test]
fn who_has_left_is_not_told_of_later_relations() {
    let world = world();
    let root = world.message(ROOM, ALICE, "root");
    let first = world.relate(ROOM, ALICE, "m.thread", &root, json!({"body": "1"}));
    world.leave(ROOM, BOB);
    world.relate(ROOM, ALICE, "m.thread", &root, json!({"body": "2"}));
    edit(&world, ALICE, &root, "edited");
    let redacted = relations(&world, &root, BOB);
    assert!(redacted.get("m.replace").is_none());
    assert_eq!(redacted["m.thread"]["count"], 1);
    assert_eq!(redacted["m.thread"]["latest_event"]["event_id"], first);
    world.redact(ROOM, ALICE, &first);
    assert!(shown(&world, &first, BOB)["unsigned"].get("redacted_because").is_none());
}

#[test]
fn only_the_device_that_sent_sees_the_transaction() {
    let world = world();
    let event_id = world
        .act(|tx| {
            let mut room = crate::room::RoomCtx::load(tx, ROOM)?;
            let device = tx.intern_text("DEVICE")?;
            let new = crate::room::NewEvent {
                sender: ALICE,
                kind: "m.room.message",
                state_key: None,
                content: Default::default(),
                redacts: None,
                origin_server_ts: 0,
                transaction: Some((device, "txn\"1".to_owned())),
            };
            let event = crate::room::append(tx, &mut room, new)?;
            room.save(tx);
            Ok(event.event_id.to_string())
        })
        .unwrap();
    let transaction = |user: &str, device: Option<&str>| {
        world.ask(|reader| {
            let device = device.map(|device| reader.text_num(device)).transpose()?.flatten();
            let asker = Asker { user: reader.user_num(user)?.unwrap(), device };
            let found = reader.event(reader.event_num(&event_id)?.unwrap())?;
            let mut out = Vec::new();
            let mut renderer = Renderer::new(reader, found.header.room, ClientFormat::Sync, Some(asker))?;
            renderer.write_timeline(&mut out, &[found])?;
            let event: Value = serde_json::from_slice(&out).unwrap();
            Ok(event["unsigned"].get("transaction_id").cloned())
        })
    };
    assert_eq!(transaction(ALICE, Some("DEVICE")), Some(json!("txn\"1")));
    assert_eq!(transaction(ALICE, None), None);
    assert_eq!(transaction(ALICE, Some("OTHER")), None);
    assert_eq!(transaction(BOB, Some("DEVICE")), None);
}
