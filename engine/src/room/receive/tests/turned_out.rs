//! What a server that was turned out of the room is told of what came in since by another way than the timeline.

use super::*;
use crate::{
    Error, What,
    command::AdoptState,
    view::federation::{IsUntoldOfEnd, StateAt},
};

const DAVE: &str = "@dave:third.example";
const THERE: &str = "there.example";
const THIRD: &str = "third.example";

/// Bob may set the topic, and Dave is the one user of his server. With the last that he may know.
fn with_dave() -> (Scene, String) {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    scene.world.join(ROOM, DAVE);
    let last = scene.world.message(ROOM, ALICE, "to all");
    (scene, last)
}

#[test]
fn the_state_before_that_is_not_told_when_it_is_what_was_adopted_since() {
    let (scene, last) = with_dave();
    let kick = scene.world.member(ROOM, ALICE, DAVE, "leave").unwrap();
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "since"}), &[&kick], 40);
    scene.receive_outliers(&[&topic]);
    let ask = |event_id: &str, server: &str| {
        let asked = StateAt { room_id: ROOM.into(), event_id: event_id.into(), server: server.into() };
        scene.world.engine.read(&asked)
    };
    assert!(ask(&kick, THIRD).is_ok());
    let mut told = scene.state_ids();
    told.push(topic.event_id.clone());
    let state = GivenState { event_id: kick.as_str().into(), state: told };
    let adopted = scene.world.engine.write(AdoptState { room_id: ROOM.into(), state }).wait().unwrap();
    assert_eq!(adopted.changed, 1);
    assert!(matches!(ask(&kick, THIRD), Err(Error::NotFound(What::State))));
    assert!(ask(&last, THIRD).is_ok() && ask(&kick, THERE).is_ok());
}

#[test]
fn what_was_only_heard_of_is_given_if_it_is_no_deeper() {
    let (scene, last) = with_dave();
    let early = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "early"}), &[&last], 13);
    // It has come with what it allows, before this server heard of what it follows.
    let late = scene.draft(BOB, "m.room.name", Some(""), json!({"name": "late"}), &[&last], 40);
    scene.receive_outliers(&[&early, &late]);
    scene.world.member(ROOM, ALICE, DAVE, "leave").unwrap();
    let is_given = |pdu: &Pdu, server: &str| {
        let event_ids = vec![pdu.event_id.to_string()];
        let asked = EventsById { room_id: None, event_ids, server: server.into() };
        scene.world.engine.read(&asked).unwrap().remove(0).is_ok()
    };
    assert!(is_given(&early, THERE) && is_given(&late, THERE));
    assert!(is_given(&early, THIRD) && !is_given(&late, THIRD));
}

/// Other servers' states say of each of two kicks that the other came before.
#[test]
fn who_was_turned_out_in_a_circle_is_owed_nothing() {
    const STRANGER: &str = "@stranger:other.example";
    let (scene, _) = with_dave();
    let kicks = [("$one", 30), ("$other", 31)]
        .map(|(prev, depth)| scene.member(BOB, STRANGER, "leave", &[prev], depth));
    let [one, other] = &kicks;
    let known = scene.state_ids();
    for (kick, before) in [(one, other), (other, one)] {
        let state = known.iter().chain([&before.event_id]).cloned().collect();
        let states = vec![GivenState { event_id: kick.event_id.clone(), state }];
        let (pdus, outliers) = (scene.check(&[kick]), scene.check(&[before]));
        let received = scene.write(ReceivePdus { pdus, outliers, states, ..ReceivePdus::default() });
        assert!(received.outcomes.contains(&(kick.event_id.clone(), Outcome::Accepted)), "{received:?}");
    }
    assert!(!scene.world.engine.read(&IsUntoldOfEnd { room_id: ROOM, user_id: STRANGER }).unwrap());
}
