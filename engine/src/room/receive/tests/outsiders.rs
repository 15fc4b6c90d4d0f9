//! What a server sends that has no user in the room any more, or not yet as far as is known here.

use super::*;
use crate::{
    command::ParkPdus,
    core::limits::OUTSIDER_OUTLIERS_BYTES_MAX,
    fetching::{Begun, Round},
};

const THERE: &str = "there.example";
const DAVE: &str = "@dave:third.example";

impl Scene {
    /// Receives what a server sends of its own accord.
    fn receive_from(&self, server: &str, pdus: &[&Pdu]) -> Received {
        let sent_by = Some(server.to_owned());
        self.write(ReceivePdus { pdus: self.check(pdus), sent_by, ..ReceivePdus::default() })
    }

    /// The same, asking for what is missing.
    fn intake_from(&self, server: &str, sent: &Pdu, answer: impl FnMut(&Question) -> Answer) -> Intake {
        self.drive(Intake::sent_by(server, ROOM.into(), version(), vec![sent.json.clone()]), answer)
    }

    /// A message that is allowed by a membership of its sender's.
    fn message_by(&self, sender: &str, membership: &Pdu, prev: &[&str], depth: u64) -> Pdu {
        let state = |kind: &str| self.state(kind, "").unwrap();
        let (create, powers) = (state("m.room.create"), state("m.room.power_levels"));
        let auth = vec![&*create, &*powers, &*membership.event_id];
        let content = json!({"msgtype": "m.text", "body": "x"});
        self.peer.make(Draft {
            sender,
            kind: "m.room.message",
            state_key: None,
            content,
            prev: prev.to_vec(),
            auth,
            depth,
        })
    }

    fn ban_bob(&self) -> String {
        self.world.member(ROOM, ALICE, BOB, "ban").unwrap()
    }
}

fn of(received: &Received, pdu: &Pdu) -> Outcome {
    received.outcomes.iter().find(|(event_id, _)| *event_id == pdu.event_id).unwrap().1.clone()
}

/// What an event would be of which nothing is kept.
fn unkept(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Unkept(verdict) => *verdict,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_who_is_banned_nothing_is_kept_that_is_denied() {
    let scene = Scene::new();
    let before = scene.ends();
    let late = scene.message(BOB, &strs(&before), 20);
    let later = scene.message(BOB, &[&late.event_id], 21);
    let ban = scene.ban_bob();
    let after = scene.message(BOB, &[&ban], 30);
    let received = scene.receive_from(THERE, &[&late, &later, &after]);
    assert!(matches!(unkept(of(&received, &late)), Outcome::SoftFailed(_)));
    assert!(matches!(unkept(of(&received, &later)), Outcome::SoftFailed(_)));
    assert!(matches!(unkept(of(&received, &after)), Outcome::Rejected(_)));
    assert!(received.missing.is_nothing());
    for pdu in [&late, &later, &after] {
        assert_eq!(scene.status(&pdu.event_id), None);
    }
    assert_eq!(scene.ends(), [ban]);
    scene.is_sound();
}

#[test]
fn what_somebody_in_the_room_tells_of_it_is_kept() {
    let scene = Scene::new();
    scene.world.join(ROOM, DAVE);
    let late = scene.message(BOB, &strs(&scene.ends()), 20);
    scene.ban_bob();
    assert!(matches!(unkept(of(&scene.receive_from(THERE, &[&late]), &late)), Outcome::SoftFailed(_)));
    assert!(matches!(of(&scene.receive_from("third.example", &[&late]), &late), Outcome::SoftFailed(_)));
    assert_eq!(scene.status(&late.event_id), Some(EventStatus::SoftFailed));
    scene.is_sound();
}

#[test]
fn what_the_room_takes_is_kept_with_what_it_follows() {
    let scene = Scene::new();
    let before = scene.ends();
    let late = scene.message(BOB, &strs(&before), 20);
    let idle = scene.message(BOB, &strs(&before), 21);
    let join = scene.member(CARL, CARL, "join", &[&late.event_id], 22);
    scene.ban_bob();
    let received = scene.receive_from(THERE, &[&late, &idle, &join]);
    assert_eq!(of(&received, &join), Outcome::Accepted);
    assert!(matches!(of(&received, &late), Outcome::SoftFailed(_)));
    assert!(matches!(unkept(of(&received, &idle)), Outcome::SoftFailed(_)));
    assert!(scene.is_joined(CARL));
    assert_eq!(scene.status(&late.event_id), Some(EventStatus::SoftFailed));
    assert_eq!(scene.status(&idle.event_id), None);
    // From now on the server is in the room.
    assert!(matches!(of(&scene.receive_from(THERE, &[&idle]), &idle), Outcome::SoftFailed(_)));
    assert_eq!(scene.status(&idle.event_id), Some(EventStatus::SoftFailed));
    scene.is_sound();
}

#[test]
fn what_is_denied_waits_with_what_follows_it() {
    let scene = Scene::new();
    let late = scene.message(BOB, &strs(&scene.ends()), 20);
    let missing = scene.message(BOB, &[&late.event_id], 21);
    let last = scene.message(BOB, &[&late.event_id, &missing.event_id], 22);
    scene.ban_bob();
    let received = scene.receive_from(THERE, &[&late, &last]);
    assert_eq!((of(&received, &late), of(&received, &last)), (Outcome::Waiting, Outcome::Waiting));
    assert_eq!(received.missing.prev_events, std::slice::from_ref(&missing.event_id));
    assert_eq!(scene.status(&late.event_id), None);
    let received = scene.receive_from(THERE, &[&late, &missing, &last]);
    for pdu in [&late, &missing, &last] {
        assert!(matches!(unkept(of(&received, pdu)), Outcome::SoftFailed(_)));
        assert_eq!(scene.status(&pdu.event_id), None);
    }
}

#[test]
fn what_is_only_told_about_it_is_not_kept_either() {
    let scene = Scene::new();
    let before = scene.ends();
    let named = json!({"membership": "join", "displayname": "Bob"});
    let named = scene.draft(BOB, "m.room.member", Some(BOB), named, &strs(&before), 20);
    let sent = scene.message_by(BOB, &named, &strs(&before), 21);
    scene.ban_bob();
    let mut is_asked = false;
    let intake = scene.intake_from(THERE, &sent, |question| {
        assert_eq!(*question, Question::Events { event_ids: vec![named.event_id.clone()] });
        is_asked = true;
        Answer::Events(vec![named.json.clone()])
    });
    assert!(is_asked);
    assert!(matches!(unkept(intake.outcomes[&sent.event_id].clone()), Outcome::SoftFailed(_)));
    assert_eq!((scene.status(&named.event_id), scene.status(&sent.event_id)), (None, None));
    assert!(intake.waiting().is_empty());
    scene.is_sound();
}

#[test]
fn who_came_back_without_this_server_having_heard_of_it_is_taken_in() {
    let scene = Scene::new();
    let leave = scene.member(BOB, BOB, "leave", &strs(&scene.ends()), 20);
    assert!(accepted(&scene.receive_from(THERE, &[&leave])));
    let join = scene.member(CARL, CARL, "join", &[&leave.event_id], 21);
    let sent = scene.message_by(CARL, &join, &[&join.event_id], 22);
    let received = scene.receive_from(THERE, &[&sent]);
    assert_eq!(received.outcomes, [(sent.event_id.clone(), Outcome::Waiting)]);
    let intake = scene.intake_from(THERE, &sent, |question| match question {
        Question::MissingEvents { .. } => Answer::Events(vec![join.json.clone()]),
        _ => Answer::Nothing,
    });
    assert_eq!(intake.outcomes[&sent.event_id], Outcome::Accepted);
    assert!(scene.is_joined(CARL));
    assert_eq!(scene.ends(), [sent.event_id.to_string()]);
    scene.is_sound();
}

#[test]
fn what_waited_is_let_go_and_what_came_for_it_is_not_kept() {
    let scene = Scene::new();
    let late = scene.message(BOB, &strs(&scene.ends()), 20);
    let last = scene.message(BOB, &[&late.event_id], 21);
    scene.ban_bob();
    let park = ParkPdus { room_id: ROOM.into(), origin: THERE.into(), pdus: vec![last.json.clone()] };
    scene.world.engine.write(park).wait().unwrap();
    let begun = Round::begin(&scene.world.engine, ROOM, THERE).unwrap();
    let Begun::Round(round) = begun else { panic!("it waits") };
    let mut round = *round;
    round.intake = scene.drive(round.intake, |question| match question {
        Question::MissingEvents { .. } => Answer::Events(vec![late.json.clone()]),
        other => panic!("{other:?}"),
    });
    for pdu in [&late, &last] {
        assert!(matches!(unkept(round.intake.outcomes[&pdu.event_id].clone()), Outcome::SoftFailed(_)));
        assert_eq!(scene.status(&pdu.event_id), None);
    }
    let ended = round.end(scene.world.engine.now_ms());
    assert!(ended.is_done && !ended.has_got_on);
    assert_eq!(ended.release.unwrap().event_ids, [last.event_id.to_string()]);
}

#[test]
fn little_is_held_beside_what_waits() {
    const TEXT_BYTES: usize = 60_000;
    let scene = Scene::new();
    let before = scene.ends();
    let large = |number: usize| {
        let content =
            json!({"membership": "join", "displayname": number.to_string(), "much": "~".repeat(TEXT_BYTES)});
        scene.draft(BOB, "m.room.member", Some(BOB), content, &strs(&before), 20)
    };
    let told: Vec<Pdu> = (0..=OUTSIDER_OUTLIERS_BYTES_MAX / TEXT_BYTES).map(large).collect();
    let sent = scene.message(BOB, &["$unknown"], 21);
    scene.ban_bob();
    for (count, is_held) in [(1, true), (told.len(), false)] {
        let told: Vec<&Pdu> = told.iter().take(count).collect();
        let (pdus, outliers) = (scene.check(&[&sent]), scene.check(&told));
        let sent_by = Some(THERE.to_owned());
        let received = scene.write(ReceivePdus { pdus, outliers, sent_by, ..ReceivePdus::default() });
        assert_eq!(of(&received, &sent), Outcome::Waiting);
        for pdu in told {
            let outcome = of(&received, pdu);
            assert!(if is_held { outcome == Outcome::Waiting } else { unkept(outcome) == Outcome::Stored });
            assert_eq!(scene.status(&pdu.event_id), None);
        }
    }
}
