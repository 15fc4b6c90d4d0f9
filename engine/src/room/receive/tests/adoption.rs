//! A room is resynchronised with what another server holds its state to be.

use super::{unchecked::sent_to, *};
use crate::{
    LeftOut,
    command::{AdoptState, SendEvent},
    core::num::NodeId,
    view::federation::{ChangedState, StateSince},
};

const THERE: &str = "there.example";

/// The ids of the state after the room's last event.
fn state_ids(scene: &Scene) -> Vec<Arc<str>> {
    scene.world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        let entries = reader.state_entries(room.num, room.head.state)?;
        entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.clone())).collect()
    })
}

fn adopt(scene: &Scene, end: &str, state: Vec<Arc<str>>) -> crate::Adopted {
    let state = GivenState { event_id: end.into(), state };
    scene.world.engine.write(AdoptState { room_id: ROOM.into(), state }).wait().unwrap()
}

/// What is another in the room's state than at a moment, or the root of now.
fn since(scene: &Scene, before: Option<NodeId>) -> ChangedState {
    scene.world.engine.read(&StateSince { room_id: ROOM, before, limit: 2 }).unwrap()
}

fn changed(state: &ChangedState) -> Vec<(&str, &str, bool)> {
    state.entries.iter().map(|entry| (&*entry.kind, &*entry.state_key, entry.before.is_some())).collect()
}

#[test]
fn what_only_the_other_server_knows_is_adopted_as_far_as_the_rules_allow() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let before = scene.world.message(ROOM, ALICE, "the last that both know");
    // What came there and never here; an event of one who was not in the room is among it.
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "burrows"}), &[&before], 40);
    let join = scene.member(CARL, CARL, "join", &[&before], 41);
    let stranger = "@dora:there.example";
    let forged = scene.draft(stranger, "m.room.name", Some(""), json!({"name": "mine"}), &[&before], 42);
    scene.receive_outliers(&[&topic, &join, &forged]);
    let mut told = state_ids(&scene);
    let unheard: Arc<str> = "$unheard".into();
    told.extend([&topic, &join, &forged].map(|pdu| pdu.event_id.clone()));
    told.extend([unheard.clone(), before.as_str().into()]);
    let root = since(&scene, None).root;
    let adopted = adopt(&scene, &before, told.clone());
    let now = since(&scene, Some(root));
    assert_eq!(changed(&now), [("m.room.member", CARL, false), ("m.room.topic", "", false)]);
    assert_eq!((adopted.differing, adopted.changed, now.count), (2, 2, 2));
    let mut left_out = adopted.left_out;
    left_out.sort();
    let mut expected = vec![
        (unheard, LeftOut::NotHere),
        (forged.event_id.clone(), LeftOut::Rejected),
        (before.as_str().into(), LeftOut::NotState),
    ];
    expected.sort();
    assert_eq!(left_out, expected);
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    assert!(scene.is_joined(CARL));
    scene.is_sound();
    // What follows is judged by it: Carl may speak now, and again nothing is to be done.
    let said = scene.message(CARL, &[&before], 43);
    assert!(accepted(&scene.receive(&[&said])), "an event of a member who was adopted");
    let again = adopt(&scene, &before, told);
    assert_eq!((again.differing, again.changed), (0, 0));
    scene.world.message(ROOM, ALICE, "and on");
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    scene.is_sound();
}

#[test]
fn a_server_that_is_found_in_the_room_is_told_where_it_ends() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100}}));
    let leave = scene.member(BOB, BOB, "leave", &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&leave])));
    let before = scene.world.message(ROOM, ALICE, "the last that both know");
    let join = scene.member(CARL, CARL, "join", &[&before], 30);
    scene.receive_outliers(&[&join]);
    let mut told = state_ids(&scene);
    told.push(join.event_id.clone());
    let last = scene.world.message(ROOM, ALICE, "said meanwhile");
    scene.world.deliver(THERE);
    adopt(&scene, &before, told.clone());
    assert!(scene.is_joined(CARL));
    assert_eq!(sent_to(&scene.world, THERE).0, [last.as_str()]);
    // It is known by now.
    adopt(&scene, &before, told);
    assert_eq!(sent_to(&scene.world, THERE).0, [""; 0]);
    scene.is_sound();
}

#[test]
fn a_server_that_is_behind_takes_nothing_back() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "old"}));
    let (old_end, old_state) = (scene.ends().remove(0), state_ids(&scene));
    scene.world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "new"}));
    scene.world.state(ROOM, ALICE, "m.room.name", "", json!({"name": "new"}));
    let now = state_ids(&scene);
    let adopted = adopt(&scene, &old_end, old_state);
    assert_eq!((adopted.differing, adopted.changed), (0, 0));
    assert_eq!(state_ids(&scene), now);
    // One that lacks something takes nothing either.
    let end = scene.ends().remove(0);
    let adopted = adopt(&scene, &end, now.iter().take(3).cloned().collect());
    assert_eq!((adopted.differing, state_ids(&scene)), (0, now));
}

#[test]
fn the_last_events_keep_what_they_set_and_clients_are_told_of_the_rest() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let fork = scene.ends();
    scene.world.message(ROOM, ALICE, "one end");
    let name = scene.draft(BOB, "m.room.name", Some(""), json!({"name": "kept"}), &strs(&fork), 30);
    assert!(accepted(&scene.receive(&[&name])));
    assert_eq!(scene.ends().len(), 2);
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "told"}), &strs(&fork), 31);
    scene.receive_outliers(&[&topic]);
    let mut told = state_ids(&scene);
    told.push(topic.event_id.clone());
    let before = scene.world.engine.position();
    let root = since(&scene, None).root;
    assert_eq!(adopt(&scene, &name.event_id, told).changed, 1);
    assert_eq!(changed(&since(&scene, Some(root))), [("m.room.topic", "", false)]);
    assert_eq!(scene.state("m.room.name", ""), Some(name.event_id.to_string()));
    assert!(scene.world.engine.position() > before, "a sync is to find it");
    let next = SendEvent::message(ROOM, ALICE, json!({"body": "both"}).as_object().cloned().unwrap());
    scene.world.engine.write(next).wait().unwrap();
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    scene.is_sound();
}

#[test]
fn what_changed_is_counted_whole_and_listed_as_far_as_is_asked_for() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let root = since(&scene, None).root;
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "a"}), &strs(&scene.ends()), 30);
    assert!(accepted(&scene.receive(&[&topic])));
    let name = scene.draft(BOB, "m.room.name", Some(""), json!({"name": "b"}), &[&topic.event_id], 31);
    let join = scene.member(CARL, CARL, "join", &[&name.event_id], 32);
    assert!(accepted(&scene.receive(&[&name, &join])));
    let now = since(&scene, Some(root));
    assert_eq!((now.count, now.entries.len()), (3, 2));
    assert_eq!(since(&scene, Some(now.root)), ChangedState { count: 0, entries: Vec::new(), ..now });
}
