//! Guests of this server leave a room that another server closes to them, in whatever way.

use super::*;
use crate::command::{AdoptState, Register, SendEvent};

pub(super) const GUEST: &str = "@guest:here.example";

/// A scene whose room Bob has opened to guests, of whom one is in it; with the event that opens it.
pub(super) fn open() -> (Scene, Pdu) {
    let scene = Scene::new();
    let guest = Register { localpart: "guest".into(), is_guest: true, ..Register::default() };
    scene.world.engine.write(guest).wait().unwrap();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let opened = access(&scene, "can_join", &strs(&scene.ends()), 100);
    assert!(accepted(&scene.receive(&[&opened])));
    scene.world.join(ROOM, GUEST);
    (scene, opened)
}

/// Bob says whether guests may be in the room.
pub(super) fn access(scene: &Scene, access: &str, prev: &[&str], depth: u64) -> Pdu {
    let content = json!({"guest_access": access, "depth": depth});
    scene.draft(BOB, "m.room.guest_access", Some(""), content, prev, depth)
}

/// The guest is gone by the last event in the room, and nobody else is.
fn is_gone(scene: &Scene) {
    assert!(!scene.is_joined(GUEST) && scene.is_joined(ALICE) && scene.is_joined(BOB));
    let leave = scene.state("m.room.member", GUEST).unwrap();
    assert_eq!(scene.ends(), std::slice::from_ref(&leave));
    assert_eq!(scene.timeline().last(), Some(&leave));
    scene.is_sound();
}

#[test]
fn an_event_closes_the_room() {
    let (scene, _) = open();
    // These do not.
    let again = access(&scene, "can_join", &strs(&scene.ends()), 110);
    let message = scene.message(BOB, &[&again.event_id], 111);
    assert!(accepted(&scene.receive(&[&again, &message])));
    assert!(scene.is_joined(GUEST));
    let closed = access(&scene, "forbidden", &strs(&scene.ends()), 120);
    let received = scene.receive(&[&closed]);
    assert!(accepted(&received) && !received.has_guests_to_remove);
    is_gone(&scene);
}

#[test]
fn a_redaction_closes_the_room() {
    let (scene, opened) = open();
    let message = scene.message(BOB, &strs(&scene.ends()), 110);
    assert!(accepted(&scene.receive(&[&message])));
    let other = scene.redaction(&message, &scene.ends(), 111);
    assert!(accepted(&scene.receive(&[&other])));
    assert!(scene.is_joined(GUEST));
    let redaction = scene.redaction(&opened, &scene.ends(), 112);
    assert!(accepted(&scene.receive(&[&redaction])));
    is_gone(&scene);
}

#[test]
fn a_local_redaction_closes_the_room() {
    let (scene, opened) = open();
    let redact = |event_id: String| {
        let content = JsonObject::new();
        let redaction = SendEvent::message(ROOM, ALICE, content);
        let kind = "m.room.redaction".to_owned();
        scene.world.engine.write(SendEvent { kind, redacts: Some(event_id), ..redaction }).wait().unwrap();
    };
    redact(scene.world.message(ROOM, ALICE, "not this"));
    assert!(scene.is_joined(GUEST));
    redact(opened.event_id.to_string());
    is_gone(&scene);
}

#[test]
fn state_resolution_closes_the_room() {
    let (scene, opened) = open();
    // On a fork that knows of no opening; of the two the later one stands.
    let prev: Vec<&str> = opened.prev_events.iter().map(|event_id| &**event_id).collect();
    let closed = access(&scene, "forbidden", &prev, 120);
    assert!(accepted(&scene.receive(&[&closed])));
    assert_eq!(scene.state("m.room.guest_access", ""), Some(closed.event_id.to_string()));
    is_gone(&scene);
}

#[test]
fn a_state_that_is_adopted_closes_the_room() {
    let (scene, _) = open();
    let end = scene.world.message(ROOM, ALICE, "the last that both know");
    let told = access(&scene, "forbidden", &[&end], 120);
    scene.receive_outliers(&[&told]);
    let state = GivenState { event_id: end.as_str().into(), state: vec![told.event_id.clone()] };
    scene.world.engine.write(AdoptState { room_id: ROOM.into(), state }).wait().unwrap();
    assert_eq!(scene.state("m.room.guest_access", ""), Some(told.event_id.to_string()));
    is_gone(&scene);
}

#[test]
fn who_became_a_user_stays() {
    let (scene, _) = open();
    scene
        .world
        .act(|tx| {
            let user = tx.intern_user(GUEST)?;
            let mut account = tx.get(&schema::ACCOUNTS, &user)?.unwrap();
            account.is_guest = false;
            tx.put(&schema::ACCOUNTS, &user, &account);
            Ok(())
        })
        .unwrap();
    let closed = access(&scene, "forbidden", &strs(&scene.ends()), 120);
    assert!(accepted(&scene.receive(&[&closed])));
    assert!(scene.is_joined(GUEST));
}
