//! What servers send that have no user in the room any more.

use super::*;
use crate::core::limits::{OUTSIDERS_BYTES_MAX, OUTSIDERS_PERIOD_MS};

const THERE: &str = "there.example";
const DAVE: &str = "@dave:third.example";
/// Bytes of a message that is nearly as large as one may be.
const LARGE: usize = 60_000;

impl Scene {
    /// Receives what a server sends of its own accord.
    fn receive_from(&self, server: &str, pdus: &[&Pdu]) -> Received {
        let sent_by = Some(server.to_owned());
        self.write(ReceivePdus { pdus: self.check(pdus), sent_by, ..ReceivePdus::default() })
    }

    /// A large message of Bob's.
    fn large(&self, prev: &str, number: u64) -> Pdu {
        let content = json!({"msgtype": "m.text", "body": "x".repeat(LARGE)});
        self.draft(BOB, "m.room.message", None, content, &[prev], number)
    }

    /// Bob is banned, and his server sends more than is kept. Returns the event before the ban.
    fn flooded(&self) {
        let before = self.ends().remove(0);
        let large: Vec<Pdu> =
            (0..1 + OUTSIDERS_BYTES_MAX / LARGE).map(|at| self.large(&before, at as u64)).collect();
        self.world.member(ROOM, ALICE, BOB, "ban").unwrap();
        for pdus in large.chunks(20) {
            self.receive_from(THERE, &pdus.iter().collect::<Vec<_>>());
        }
    }
}

fn of(received: &Received, pdu: &Pdu) -> Outcome {
    received.outcomes.iter().find(|(event_id, _)| *event_id == pdu.event_id).unwrap().1.clone()
}

#[test]
fn so_much_is_kept_of_who_is_banned_and_then_nothing() {
    let scene = Scene::new();
    let before = scene.ends().remove(0);
    let first = scene.message(BOB, &[&before], 20);
    let too_much = scene.message(BOB, &[&before], 21);
    scene.flooded();
    let again = scene.receive_from(THERE, &[&first, &too_much]);
    for pdu in [&first, &too_much] {
        assert_eq!(of(&again, pdu), Outcome::Refused(Refused::Outsider));
        assert_eq!(scene.status(&pdu.event_id), None);
    }
    scene.is_sound();
}

#[test]
fn what_somebody_in_the_room_tells_of_it_is_kept_all_the_same() {
    let scene = Scene::new();
    scene.world.join(ROOM, DAVE);
    let late = scene.message(BOB, &strs(&scene.ends()), 20);
    scene.flooded();
    assert!(matches!(of(&scene.receive_from("third.example", &[&late]), &late), Outcome::SoftFailed(_)));
    assert_eq!(scene.status(&late.event_id), Some(EventStatus::SoftFailed));
    scene.is_sound();
}

#[test]
fn a_week_later_some_is_kept_again() {
    let scene = Scene::new();
    let late = scene.message(BOB, &strs(&scene.ends()), 20);
    scene.flooded();
    assert_eq!(of(&scene.receive_from(THERE, &[&late]), &late), Outcome::Refused(Refused::Outsider));
    scene.world.pass_ms(OUTSIDERS_PERIOD_MS);
    assert!(matches!(of(&scene.receive_from(THERE, &[&late]), &late), Outcome::SoftFailed(_)));
    scene.is_sound();
}

#[test]
fn who_is_in_the_room_is_not_counted() {
    let scene = Scene::new();
    let before = scene.ends().remove(0);
    for number in 0..3 {
        let said = scene.large(&before, number);
        assert_eq!(of(&scene.receive_from(THERE, &[&said]), &said), Outcome::Accepted);
    }
    scene.flooded();
    let late = scene.message(BOB, &[&before], 20);
    assert_eq!(of(&scene.receive_from(THERE, &[&late]), &late), Outcome::Refused(Refused::Outsider));
}
