//! Graphs made to be expensive or to confuse, as they come in from a server that is in the room. `core/resolve/tests/hostile.rs`
//! has the shapes of auth chains.

use super::*;
use crate::{
    command::MergeEnds,
    core::limits::{OWN_PREV_EVENTS_MAX, PREV_EVENTS_MAX},
    view::federation::MissingEvents,
};

/// The depth of the deepest event of room versions with strict integers.
const DEEPEST: u64 = (1 << 53) - 1;

/// The number of events that each event of the timeline follows here, of the last ones.
fn edges(scene: &Scene, event_id: &str) -> usize {
    scene.world.ask(|reader| Ok(reader.event(reader.event_num(event_id)?.unwrap())?.header.prev.len()))
}

#[test]
fn a_jump_to_the_greatest_depth_leaves_a_room_that_can_be_sent_to() {
    let scene = Scene::new();
    let deep = scene.message(BOB, &strs(&scene.ends()), DEEPEST);
    assert!(accepted(&scene.receive(&[&deep])));
    let own = [scene.world.message(ROOM, ALICE, "deep"), scene.world.message(ROOM, ALICE, "deeper")];
    let depths = own.clone().map(|event_id| {
        scene.world.ask(|reader| Ok(reader.event(reader.event_num(&event_id)?.unwrap())?.header.depth))
    });
    assert_eq!(depths, [DEEPEST, DEEPEST]);
    // Nor does a depth that goes back confuse anybody.
    let shallow = scene.message(BOB, &[&own[1]], 0);
    assert!(accepted(&scene.receive(&[&shallow])));
    assert_eq!(scene.ends(), [shallow.event_id.to_string()]);
    scene.is_sound();
}

#[test]
fn a_fan_of_a_thousand_ends_is_brought_together_a_few_at_a_time() {
    const WIDTH: usize = 1_000;
    let scene = Scene::new();
    let ends = scene.ends();
    let fan: Vec<Pdu> = (0..WIDTH as u64).map(|at| scene.message(BOB, &strs(&ends), 20 + at)).collect();
    assert!(accepted(&scene.receive(&fan.iter().collect::<Vec<_>>())));
    assert_eq!(scene.ends().len(), WIDTH);
    // As many as an event may name.
    let named: Vec<&str> = fan.iter().take(PREV_EVENTS_MAX).map(|pdu| &*pdu.event_id).collect();
    let wide = scene.message(BOB, &named, 5_000);
    assert!(accepted(&scene.receive(&[&wide])));
    assert_eq!(edges(&scene, &wide.event_id), PREV_EVENTS_MAX);
    let mut sent = 0;
    while scene.ends().len() > 1 {
        let own = scene.world.message(ROOM, ALICE, "together");
        assert!(edges(&scene, &own) <= OWN_PREV_EVENTS_MAX);
        sent += 1;
        assert!(sent <= WIDTH / (OWN_PREV_EVENTS_MAX - 1), "the ends do not come together");
    }
    scene.is_sound();
}

#[test]
fn ends_without_end_are_brought_together_as_they_come() {
    let scene = Scene::new();
    let base = scene.ends();
    let mut most = 0;
    for portion in 0..20 {
        let fan: Vec<Pdu> =
            (0..50).map(|at| scene.message(BOB, &strs(&base), 20 + 50 * portion + at)).collect();
        let received = scene.receive(&fan.iter().collect::<Vec<_>>());
        assert_eq!(received.has_many_ends, scene.ends().len() > 100);
        if received.has_many_ends {
            scene.world.engine.write(MergeEnds { room_id: ROOM.into() }).wait().unwrap();
        }
        most = most.max(scene.ends().len());
    }
    assert!(most <= 100, "{most} ends");
    scene.is_sound();
}

#[test]
fn a_fan_of_states_is_resolved_to_one() {
    // More than one walk of resolution tells apart.
    const WIDTH: u64 = 100;
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let ends = scene.ends();
    let topic = |at| scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": at}), &strs(&ends), 20 + at);
    let fan: Vec<Pdu> = (0..WIDTH).map(topic).collect();
    assert!(accepted(&scene.receive(&fan.iter().collect::<Vec<_>>())));
    // Of those that are equally allowed, the latest one stands.
    let last = fan.last().unwrap().event_id.to_string();
    assert_eq!(scene.state("m.room.topic", ""), Some(last));
    scene.is_sound();
}

#[test]
fn diamonds_are_walked_edge_by_edge() {
    const LAYERS: u64 = 200;
    let scene = Scene::new();
    let mut layer = scene.ends();
    let first = layer.clone();
    let mut all: Vec<Pdu> = Vec::new();
    // 2^200 ways lead back.
    for depth in 20..20 + LAYERS {
        let pair = [depth, depth + 1_000].map(|ts| scene.message(BOB, &strs(&layer), ts));
        layer = pair.iter().map(|pdu| pdu.event_id.to_string()).collect();
        all.extend(pair);
    }
    let last = scene.message(BOB, &strs(&layer), 5_000);
    all.push(last.clone());
    // In the worst order.
    assert!(accepted(&scene.receive(&all.iter().rev().collect::<Vec<_>>())));
    assert_eq!(scene.ends(), [last.event_id.to_string()]);
    let between = MissingEvents {
        room_id: ROOM.to_owned(),
        earliest_events: first,
        latest_events: vec![last.event_id.to_string()],
        limit: 20,
        min_depth: 0,
        server: "there.example".to_owned(),
    };
    assert_eq!(scene.world.engine.read(&between).unwrap().len(), 20);
    scene.is_sound();
}

#[test]
fn doubled_edges_count_once() {
    let scene = Scene::new();
    let ends = scene.ends();
    let doubled: Vec<&str> = ends.iter().chain(&ends).chain(&ends).map(String::as_str).collect();
    let message = scene.message(BOB, &doubled, 20);
    assert!(accepted(&scene.receive(&[&message])));
    assert_eq!((edges(&scene, &message.event_id), scene.ends().len()), (1, 1));
    // Behind a gap too.
    let missing = scene.message(BOB, &[&message.event_id], 21);
    let behind = scene.message(BOB, &[&missing.event_id, &missing.event_id], 22);
    let received = scene.receive(&[&behind]);
    assert_eq!(received.missing.prev_events, std::slice::from_ref(&missing.event_id));
    assert!(accepted(&scene.receive(&[&behind, &missing, &behind])));
    assert_eq!(scene.ends(), [behind.event_id.to_string()]);
    scene.is_sound();
}
