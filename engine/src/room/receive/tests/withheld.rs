//! A server sends an event without what lies before it, makes up the state there, and tells what lies between afterwards.

use super::*;

/// Bob had power once, and says that he has it still, and that Alice never came in. Returns what he holds back, and an event behind it
/// that is here with that state.
fn made_up(scene: &Scene) -> [Pdu; 2] {
    let power = |levels: Value| {
        scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": levels}));
        scene.state("m.room.power_levels", "").unwrap()
    };
    let once = power(json!({ALICE: 100, BOB: 99}));
    let left_out = [power(json!({ALICE: 100})), scene.state("m.room.member", ALICE).unwrap()];
    let mut state = scene.state_ids();
    state.retain(|event_id| !left_out.contains(&event_id.to_string()));
    state.push(once.into());
    let held_back = scene.message(BOB, &strs(&scene.ends()), 40);
    let sent = scene.message(BOB, &[&held_back.event_id], 41);
    let states = vec![GivenState { event_id: sent.event_id.clone(), state }];
    let pdus = scene.check(&[&sent]);
    let received = scene.write(ReceivePdus { pdus, states, ..ReceivePdus::default() });
    assert!(accepted(&received), "{received:?}");
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
