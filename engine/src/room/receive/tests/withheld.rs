//! A server sends an event without what lies before it, makes up the state there, and tells what lies between afterwards.

use super::*;

/// What Bob may not send.
const HIGH: &str = "org.example.high";

/// Bob had power once, and says that he has it still, and that Alice never came in: the state that he makes up.
fn made_up_state(scene: &Scene) -> Vec<Arc<str>> {
    let power = |levels: Value| {
        let content = json!({"users": levels, "events": {HIGH: 100}});
        scene.world.state(ROOM, ALICE, "m.room.power_levels", "", content);
        scene.state("m.room.power_levels", "").unwrap()
    };
    let once = power(json!({ALICE: 100, BOB: 99}));
    let left_out = [power(json!({ALICE: 100})), scene.state("m.room.member", ALICE).unwrap()];
    let mut state = scene.state_ids();
    state.retain(|event_id| !left_out.contains(&event_id.to_string()));
    state.push(once.into());
    state
}

/// Takes an event in, and is told the state before it if there is one.
fn take(scene: &Scene, pdu: &Pdu, state: Option<&[Arc<str>]>, backfill: bool) -> Outcome {
    let given = |state: &[Arc<str>]| GivenState { event_id: pdu.event_id.clone(), state: state.to_vec() };
    let (states, pdus) = (state.map(given).into_iter().collect(), scene.check(&[pdu]));
    let received = scene.write(ReceivePdus { pdus, states, backfill, ..ReceivePdus::default() });
    received.outcomes[0].1.clone()
}

/// What Bob holds back, and an event behind it that is here with the state that he makes up.
fn made_up(scene: &Scene) -> [Pdu; 2] {
    let state = made_up_state(scene);
    let held_back = scene.message(BOB, &strs(&scene.ends()), 40);
    let sent = scene.message(BOB, &[&held_back.event_id], 41);
    assert_eq!(take(scene, &sent, Some(&state), false), Outcome::Accepted);
    [held_back, sent]
}

#[test]
fn who_holds_back_what_lies_before_an_event_takes_no_room_over() {
    for backfill in [true, false] {
        let scene = Scene::new();
        let [held_back, sent] = made_up(&scene);
        let state = scene.state_ids();
        assert!(scene.is_joined(ALICE));
        let pdus = scene.check(&[&held_back]);
        let received = scene.write(ReceivePdus { pdus, backfill, ..ReceivePdus::default() });
        assert!(accepted(&received), "{received:?}");
        assert_eq!(scene.state_ids(), state, "backfill: {backfill}");
        assert!(scene.is_joined(ALICE));
        scene.is_sound();
        // Nor does what follows only his event.
        let next = scene.message(BOB, &[&sent.event_id], 42);
        assert!(accepted(&scene.receive(&[&next])));
        assert!(scene.is_joined(ALICE));
        let own = scene.world.message(ROOM, ALICE, "still here");
        assert_eq!(scene.ends(), [own]);
        assert_eq!(scene.state_ids(), state);
        scene.is_sound();
    }
}

#[test]
fn what_is_told_rightly_leaves_one_end_when_what_lay_between_is_here() {
    for backfill in [true, false] {
        let scene = Scene::new();
        let between = scene.message(BOB, &strs(&scene.ends()), 40);
        let last = behind_gap(&scene, &between);
        let pdus = scene.check(&[&between]);
        assert!(accepted(&scene.write(ReceivePdus { pdus, backfill, ..ReceivePdus::default() })));
        assert_eq!(scene.ends(), [last.event_id.to_string()]);
        scene.is_sound();
    }
}

/// He says so of the state before what is refused as well, or it is taken to be that before what follows. What follows an event that
/// is not shown follows what that one follows.
#[test]
fn what_is_refused_in_a_gap_leads_past_nothing_that_the_state_rests_on() {
    for is_told in [true, false] {
        let scene = Scene::new();
        let state = made_up_state(&scene);
        let ends = scene.ends();
        let mut prev = strs(&ends);
        prev.push("$unknown");
        let refused = scene.draft(BOB, HIGH, None, json!({}), &prev, 40);
        let sent = scene.message(BOB, &[&refused.event_id], 41);
        assert_eq!(take(&scene, &sent, Some(&state), false), Outcome::Accepted);
        let right = scene.state_ids();
        let told = is_told.then_some(&state[..]);
        let outcome = take(&scene, &refused, told, true);
        assert!(matches!(outcome, Outcome::Rejected(_)), "{is_told} {outcome:?}");
        let last = scene.message(BOB, &[&refused.event_id, &sent.event_id], 42);
        assert_eq!(take(&scene, &last, None, false), Outcome::Accepted);
        assert_eq!(scene.ends(), [last.event_id.to_string()]);
        assert!(scene.is_joined(ALICE), "{is_told}");
        assert_eq!(scene.state_ids(), right);
        scene.is_sound();
    }
}

#[test]
fn what_follows_both_sides_of_a_gap_stands_on_both() {
    for is_here in [false, true] {
        let scene = Scene::new();
        let state = made_up_state(&scene);
        let ends = scene.ends();
        let held_back = scene.message(BOB, &strs(&ends), 40);
        let sent = scene.message(BOB, &[&held_back.event_id], 41);
        assert_eq!(take(&scene, &sent, Some(&state), false), Outcome::Accepted);
        let right = scene.state_ids();
        if is_here {
            assert_eq!(take(&scene, &held_back, None, true), Outcome::Accepted);
        }
        let mut prev = strs(&ends);
        prev.push(&sent.event_id);
        let last = scene.message(BOB, &prev, 42);
        assert_eq!(take(&scene, &last, None, false), Outcome::Accepted);
        assert_eq!(scene.ends(), [last.event_id.to_string()]);
        assert_eq!(scene.state_ids(), right);
        scene.is_sound();
    }
}

#[test]
fn what_is_told_not_to_have_been_counts_when_it_comes_live() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let ends = scene.ends();
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "so be it"}), &strs(&ends), 40);
    // With the state before the topic.
    let behind = behind_gap(&scene, &topic);
    assert_eq!(scene.state("m.room.topic", ""), None);
    assert!(accepted(&scene.receive(&[&topic])));
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    scene.is_sound();
    let next = scene.message(BOB, &[&behind.event_id], 50);
    assert!(accepted(&scene.receive(&[&next])));
    assert_eq!(scene.state("m.room.topic", ""), Some(topic.event_id.to_string()));
    scene.is_sound();
}
