//! Which events have a place in the graph here, and what follows them.

use super::*;

/// The events that an event follows here, by their ids.
fn followed_by(scene: &Scene, event_id: &str) -> Vec<String> {
    scene.world.ask(|reader| {
        let event = reader.event(reader.event_num(event_id)?.unwrap())?;
        event.header.prev.iter().map(|num| Ok(reader.event(*num)?.event_id.to_string())).collect()
    })
}

#[test]
fn a_rejected_outlier_is_no_part_of_the_graph_until_it_comes_live() {
    let scene = Scene::new();
    let ends = scene.ends();
    let topic = scene.draft(BOB, "m.room.topic", Some(""), json!({"topic": "mine"}), &strs(&ends), 20);
    let received = scene.receive_outliers(&[&topic]);
    assert!(matches!(received.outcomes[..], [(_, Outcome::Rejected(_))]), "{received:?}");
    // What follows it has no state before it.
    let after = scene.message(BOB, &[&topic.event_id], 21);
    let received = scene.receive(&[&after]);
    assert_eq!(received.outcomes, [(after.event_id.clone(), Outcome::Waiting)]);
    assert_eq!(received.missing.prev_events, std::slice::from_ref(&topic.event_id));
    let received = scene.receive(&[&topic]);
    assert!(matches!(received.outcomes[..], [(_, Outcome::Rejected(_))]), "{received:?}");
    assert!(accepted(&scene.receive(&[&after])));
    assert_eq!(followed_by(&scene, &after.event_id), [topic.event_id.to_string()]);
    assert_eq!((scene.ends(), scene.is_joined(BOB)), (vec![after.event_id.to_string()], true));
    scene.is_sound();
}

/// Dora's server leaves the room, and comes back by a join that follows `prev` and has the room's state before it.
fn enter_again(scene: &Scene, join: &Pdu) -> Outcome {
    let state = scene.world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        let entries = reader.state_entries(room.num, room.head.state)?;
        let ids = entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.clone()));
        ids.collect::<crate::error::Result<Vec<_>>>()
    });
    let join = scene.check(&[join]).remove(0);
    let enter = EnterRoom {
        room_id: ROOM.into(),
        version: version(),
        join,
        untold: Vec::new(),
        state,
        partial: None,
    };
    scene.world.engine.write(enter).wait().unwrap().0
}

#[test]
fn a_join_follows_what_is_known_of_what_it_names() {
    let scene = Scene::new();
    let leave = scene.member(BOB, BOB, "leave", &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive(&[&leave])));
    // Nothing happened meanwhile: there is no gap.
    let join = scene.member(BOB, BOB, "join", &[&leave.event_id], 21);
    assert_eq!(enter_again(&scene, &join), Outcome::Accepted);
    assert_eq!(followed_by(&scene, &join.event_id), [leave.event_id.to_string()]);
    let is_behind_gap = |event_id: &str| {
        scene.world.ask(|reader| Ok(reader.event(reader.event_num(event_id)?.unwrap())?.header.after_gap))
    };
    assert!(!is_behind_gap(&join.event_id));
    scene.is_sound();
    // Something did.
    let leave = scene.member(BOB, BOB, "leave", &[&join.event_id], 22);
    assert!(accepted(&scene.receive(&[&leave])));
    let missed = scene.message(ALICE, &[&leave.event_id], 23);
    let join = scene.member(BOB, BOB, "join", &[&leave.event_id, &missed.event_id], 24);
    assert_eq!(enter_again(&scene, &join), Outcome::Accepted);
    assert_eq!(followed_by(&scene, &join.event_id), [leave.event_id.to_string()]);
    assert!(is_behind_gap(&join.event_id));
    assert_eq!(scene.ends(), [join.event_id.to_string()]);
    assert!(scene.is_joined(BOB));
    scene.is_sound();
}

/// The graph has both side by side. Only the order in which their server sends them tells that they were in the room still.
#[test]
fn what_somebody_said_before_they_left_is_shown_though_the_leave_does_not_follow_it() {
    for depth in 20..28 {
        let scene = Scene::new();
        let ends = scene.ends();
        let said = scene.message(BOB, &strs(&ends), depth);
        let left = scene.member(BOB, BOB, "leave", &strs(&ends), depth + 20);
        let sent = vec![said.json.clone(), left.json.clone()];
        let intake = scene.drive(Intake::new(ROOM.into(), version(), sent), |_| Answer::Nothing);
        assert_eq!(intake.outcomes.get(&said.event_id), Some(&Outcome::Accepted));
        assert!(scene.timeline().ends_with(&[said.event_id.to_string(), left.event_id.to_string()]));
        assert!(!scene.is_joined(BOB));
    }
}
