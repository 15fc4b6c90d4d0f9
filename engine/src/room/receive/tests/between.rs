//! What another server tells as what lies between, and what it tells of the state there: history is not taken for news, and one
//! server's word shuts nobody out.

use std::collections::VecDeque;

use super::*;
use crate::room::entrance;

/// A server that tells what lies between, the same each time, and states one after the other.
struct Teller<'a> {
    scene: &'a Scene,
    between: Vec<&'a Pdu>,
    states: VecDeque<Option<Vec<Arc<str>>>>,
    asked: Vec<Question>,
}

impl<'a> Teller<'a> {
    /// One that tells the state of now.
    fn new(scene: &'a Scene, between: &[&'a Pdu]) -> Self {
        let states = std::iter::repeat_n(Some(scene.state_ids()), 20).collect();
        Self { scene, between: between.to_vec(), states, asked: Vec::new() }
    }

    fn send(&mut self, sent: &Pdu) -> Intake {
        self.scene.intake(sent, |question| {
            let answer = self.answer(question);
            self.asked.push(question.clone());
            answer
        })
    }

    fn answer(&mut self, question: &Question) -> Answer {
        match question {
            Question::MissingEvents { .. } => {
                Answer::Events(self.between.iter().map(|pdu| pdu.json.clone()).collect())
            }
            Question::State { .. } | Question::OtherState { .. } => match self.states.pop_front().flatten() {
                Some(state) => Answer::State { state, auth_chain: Vec::new(), pdus: Vec::new() },
                None => Answer::Nothing,
            },
            _ => Answer::Nothing,
        }
    }

    fn asks_what_lies_between(&self) -> bool {
        self.asked.iter().any(|question| matches!(question, Question::MissingEvents { .. }))
    }
}

impl Scene {
    fn last_pos(&self) -> StreamPos {
        self.world.ask(|reader| {
            let room = RoomCtx::load(reader, ROOM)?;
            Ok(reader.event(room.head.extremities[0].0)?.pos())
        })
    }

    /// As if this server had come back to the room by the last event.
    fn come_back(&self) {
        let pos = self.last_pos();
        self.world
            .act(|tx| {
                let room = tx.room_num(ROOM)?.unwrap();
                entrance::note(tx, room, pos);
                Ok(())
            })
            .unwrap();
    }
}

fn is_accepted(intake: &Intake, pdu: &Pdu) -> bool {
    intake.outcomes.get(&pdu.event_id) == Some(&Outcome::Accepted)
}

#[test]
fn what_is_missing_in_a_gap_is_not_asked_for_and_what_is_behind_is_not_taken() {
    let scene = Scene::new();
    let [one, two, three, four] = with_gap(&scene);
    let before = scene.timeline();
    let fork = scene.message(BOB, &[&three.event_id], 26);
    let mut teller = Teller::new(&scene, &[&one, &two, &three]);
    let intake = teller.send(&fork);
    assert!(is_accepted(&intake, &fork), "{:?} {:?}", intake.outcomes, teller.asked);
    assert!(!teller.asks_what_lies_between());
    // By way of one that is not here.
    let between = scene.message(BOB, &[&three.event_id], 24);
    let last = scene.message(BOB, &[&between.event_id], 25);
    let mut teller = Teller::new(&scene, &[&one, &two, &three, &between]);
    let intake = teller.send(&last);
    assert!(teller.asks_what_lies_between());
    assert!(is_accepted(&intake, &between) && is_accepted(&intake, &last));
    for past in [&one, &two, &three] {
        assert_eq!(intake.outcomes.get(&past.event_id), Some(&Outcome::Past));
        assert_eq!(scene.status(&past.event_id), None);
    }
    let mut whole = before;
    whole.extend([&fork, &between, &last].map(|pdu| pdu.event_id.to_string()));
    assert_eq!(scene.timeline(), whole);
    assert_eq!(scene.ends().len(), 4, "and where it was before, and {}", four.event_id);
    // As history it comes before what it was missing before.
    let backfill =
        ReceivePdus { pdus: scene.check(&[&one, &two, &three]), backfill: true, ..ReceivePdus::default() };
    assert!(accepted(&scene.write(backfill)));
    let at = |pdu: &Pdu| scene.timeline().iter().position(|id| **id == *pdu.event_id).unwrap();
    assert!(at(&three) < at(&four));
    scene.is_sound();
}

#[test]
fn what_was_said_before_this_server_came_is_not_taken_for_news() {
    let scene = Scene::new();
    let ends = scene.ends();
    let one = scene.message(BOB, &strs(&ends), 20);
    let two = scene.message(BOB, &[&one.event_id], 21);
    let fork = scene.message(BOB, &[&two.event_id], 22);
    let entrance = scene.message(BOB, &strs(&ends), 100);
    assert!(accepted(&scene.receive(&[&entrance])));
    scene.come_back();
    let intake = Teller::new(&scene, &[&one, &two]).send(&fork);
    assert!(is_accepted(&intake, &fork), "{:?}", intake.outcomes);
    for past in [&one, &two] {
        assert_eq!(intake.outcomes.get(&past.event_id), Some(&Outcome::Past));
    }
    scene.is_sound();
}

/// Only a room's creation follows nothing, and who walks back to the room's beginning comes to it.
#[test]
fn what_follows_nothing_is_no_news() {
    let scene = Scene::new();
    let first = scene.draft(BOB, "m.room.message", None, json!({"body": "first"}), &[], 200);
    let fork = scene.message(BOB, &[&first.event_id], 201);
    let intake = Teller::new(&scene, &[&first]).send(&fork);
    assert_eq!(intake.outcomes.get(&first.event_id), Some(&Outcome::Past));
    assert!(is_accepted(&intake, &fork));
}

/// Depths are their servers' words: what follows an event of the stay is news, whatever it claims.
#[test]
fn what_was_missed_is_news_whatever_depths_claim() {
    const DEPTH_MAX: u64 = (1 << 53) - 1;
    for (of_entrance, first) in [(100, 101), (100, 30), (DEPTH_MAX, DEPTH_MAX)] {
        let scene = Scene::new();
        let entrance = scene.message(BOB, &strs(&scene.ends()), of_entrance);
        assert!(accepted(&scene.receive(&[&entrance])));
        scene.come_back();
        let depth = |at: u64| (first + at).min(DEPTH_MAX);
        let text = |body: &str, prev: &str, depth: u64| {
            scene.draft(BOB, "m.room.message", None, json!({"body": body}), &[prev], depth)
        };
        let one = text("one", &entrance.event_id, depth(0));
        let two = text("two", &one.event_id, depth(1));
        let last = text("last", &two.event_id, depth(2));
        let mut teller = Teller::new(&scene, &[&one, &two]);
        let intake = teller.send(&last);
        assert!([&one, &two, &last].iter().all(|pdu| is_accepted(&intake, pdu)), "{:?}", intake.outcomes);
        assert!(teller.asked.iter().all(|question| matches!(question, Question::MissingEvents { .. })));
        assert_eq!(scene.ends(), [last.event_id.to_string()]);
    }
}

/// An event of Bob's before the one that it follows, and a state without Bob.
fn censored(scene: &Scene) -> (Pdu, Pdu, Vec<Arc<str>>) {
    let before = scene.message(BOB, &strs(&scene.ends()), 20);
    let event = scene.message(BOB, &[&before.event_id], 21);
    let joined = scene.state("m.room.member", BOB).unwrap();
    let lie = scene.state_ids().into_iter().filter(|event_id| **event_id != *joined).collect();
    (before, event, lie)
}

#[test]
fn a_state_that_denies_an_event_is_asked_for_elsewhere() {
    let scene = Scene::new();
    let (_, event, lie) = censored(&scene);
    let mut teller = Teller::new(&scene, &[]);
    teller.states.push_front(Some(lie));
    assert!(is_accepted(&teller.send(&event), &event));
    let event_id = event.event_id.clone();
    let first = Question::OtherState { event_id, server: "there.example".to_owned(), turn: 0 };
    assert_eq!(teller.asked.last(), Some(&first));
    let servers = ["evil.example", "there.example", "here.example"].map(str::to_owned);
    assert_eq!(first.asked_of(&servers), ["there.example"]);
    scene.is_sound();
}

#[test]
fn nobody_but_its_own_server_has_an_event_rejected_by_a_state() {
    let scene = Scene::new();
    let (before, event, lie) = censored(&scene);
    let mut teller = Teller::new(&scene, &[]);
    // The sender's server is silent, the others lie.
    teller.states = std::iter::repeat_n(Some(lie.clone()), 20).collect();
    teller.states.insert(1, None);
    let intake = teller.send(&event);
    assert_eq!(intake.outcomes.get(&event.event_id), None);
    assert_eq!(intake.waiting(), std::slice::from_ref(&event.json), "it waits");
    assert!(teller.asked.len() <= 10, "{:?}", teller.asked);
    assert_eq!(scene.status(&event.event_id), None);
    assert!(accepted(&scene.receive(&[&before, &event])));
    // A server's word on its own users' events counts.
    let (_, event, lie) = censored(&scene);
    let mut teller = Teller::new(&scene, &[]);
    teller.states = [Some(lie.clone()), Some(lie)].into();
    let intake = teller.send(&event);
    assert!(matches!(intake.outcomes.get(&event.event_id), Some(Outcome::Rejected(_))));
    scene.is_sound();
}
