//! Events behind a chain of events that allow each other, of which nothing is here: what is told as missing, and what an
//! intake asks of servers that tell all of it, some of it, and none.

use std::collections::HashMap;

use super::*;

/// More than it takes to get a chain of any length, each event that is asked for by its id counted.
const REQUESTS_MAX: usize = 20;

/// The id of Bob's membership.
fn joined(scene: &Scene) -> String {
    scene.state("m.room.member", BOB).unwrap()
}

/// So many changes of Bob's name, each allowed by the one before, the first by `first`; and a message behind them.
fn chain(scene: &Scene, length: u64, first: &str) -> Vec<Pdu> {
    let joined = joined(scene);
    let (mut member, mut prev) = (first.to_owned(), scene.ends());
    let mut events: Vec<Pdu> = Vec::new();
    for depth in 20..=20 + length {
        let is_last = depth == 20 + length;
        let (kind, state_key, content) = match is_last {
            true => ("m.room.message", None, json!({"body": "at last"})),
            false => {
                ("m.room.member", Some(BOB), json!({"membership": "join", "displayname": depth.to_string()}))
            }
        };
        let allowing = scene.auth(BOB, kind, state_key, !is_last);
        let auth = strs(&allowing).into_iter().map(|id| if id == joined { member.as_str() } else { id });
        let (auth, prev_events) = (auth.collect(), strs(&prev));
        let draft = Draft { sender: BOB, kind, state_key, content, prev: prev_events, auth, depth };
        let event = scene.peer.make(draft);
        member = event.event_id.to_string();
        prev = vec![member.clone()];
        events.push(event);
    }
    events
}

fn json_of(events: &[Pdu]) -> Vec<Bytes> {
    events.iter().map(|event| event.json.clone()).collect()
}

/// The server that has sent the last event of a chain, and is asked for what is missing.
struct Sender<'a> {
    scene: &'a Scene,
    events: Vec<Pdu>,
    places: HashMap<Arc<str>, usize>,
    tells_what_lies_between: bool,
    tells_auth_chains: bool,
    tells_states: bool,
    asked: Vec<Question>,
}

impl<'a> Sender<'a> {
    /// One that tells all.
    fn new(scene: &'a Scene, events: Vec<Pdu>) -> Self {
        let places = events.iter().enumerate().map(|(at, event)| (event.event_id.clone(), at)).collect();
        Self {
            scene,
            events,
            places,
            tells_what_lies_between: true,
            tells_auth_chains: true,
            tells_states: true,
            asked: Vec::new(),
        }
    }

    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::MissingEvents { latest } if self.tells_what_lies_between => {
                let at = latest.iter().filter_map(|event_id| self.places.get(event_id)).min();
                let at = at.copied().unwrap_or_default();
                Answer::Events(json_of(&self.events[at.saturating_sub(20)..at]))
            }
            Question::Events { event_ids } => {
                let found = event_ids.iter().filter_map(|event_id| self.places.get(event_id));
                Answer::Events(found.map(|at| self.events[*at].json.clone()).collect())
            }
            Question::AuthChain { event_id } if self.tells_auth_chains => {
                Answer::Events(json_of(&self.events[..self.places[event_id]]))
            }
            Question::State { event_id } if self.tells_states => self.state_before(self.places[event_id]),
            _ => Answer::Nothing,
        }
    }

    /// What is not here of it comes along, without what allows that.
    fn state_before(&self, at: usize) -> Answer {
        let joined = joined(self.scene);
        let mut state = self.scene.state_ids();
        let mut pdus = Vec::new();
        if let Some(member) = at.checked_sub(1).map(|before| &self.events[before]) {
            state.retain(|event_id| **event_id != *joined);
            state.push(member.event_id.clone());
            pdus.extend(self.scene.status(&member.event_id).is_none().then(|| member.json.clone()));
        }
        Answer::State { state, auth_chain: Vec::new(), pdus }
    }

    /// Sends its last event, and answers what it is asked until nothing is.
    fn send(&mut self) -> Intake {
        let last = self.events.last().unwrap().clone();
        self.scene.intake(&last, |question| {
            let answer = self.answer(question);
            self.asked.push(question.clone());
            answer
        })
    }

    /// The ids by which single events were asked for.
    fn asked_ids(&self) -> Vec<Arc<str>> {
        let ids = self.asked.iter().filter_map(|question| match question {
            Question::Events { event_ids } => Some(event_ids.clone()),
            _ => None,
        });
        ids.flatten().collect()
    }

    /// How many requests the questions made: one for each event that was asked for by its id.
    fn requests(&self) -> usize {
        let others = self.asked.iter().filter(|question| !matches!(question, Question::Events { .. }));
        self.asked_ids().len() + others.count()
    }

    /// Whether its last event was taken in, and with what state.
    fn is_taken_in(&self) {
        let [.., member, last] = &self.events[..] else { panic!("a chain") };
        assert_eq!(self.scene.status(&last.event_id), Some(EventStatus::Accepted), "{:?}", self.asked);
        assert_eq!(self.scene.state("m.room.member", BOB), Some(member.event_id.to_string()));
        self.scene.is_sound();
    }
}

#[test]
fn what_is_given_is_not_missing_and_what_lies_between_is() {
    let scene = Scene::new();
    let events = chain(&scene, 3, &joined(&scene));
    let [_, second, third, last] = &events[..] else { panic!("{events:?}") };
    let receive = |outliers: &[&Pdu]| {
        let (pdus, outliers) = (scene.check(&[last]), scene.check(outliers));
        scene.write(ReceivePdus { pdus, outliers, ..ReceivePdus::default() }).missing
    };
    let missing = receive(&[]);
    assert_eq!(missing.auth_events, std::slice::from_ref(&third.event_id));
    assert_eq!(missing.prev_events, std::slice::from_ref(&third.event_id));
    assert_eq!(missing.state, std::slice::from_ref(&last.event_id));
    // An outlier is enough for what it allows, and not for what follows it.
    let missing = receive(&[third]);
    assert_eq!(missing.auth_events, std::slice::from_ref(&second.event_id));
    assert_eq!(missing.prev_events, std::slice::from_ref(&third.event_id));
    assert_eq!(scene.status(&third.event_id), None);
}

#[test]
fn an_outlier_that_is_refused_is_missing_still() {
    let scene = Scene::new();
    let ends = scene.ends();
    let create = scene.peer.make(Draft {
        sender: BOB,
        kind: "m.room.create",
        state_key: Some(""),
        content: json!({"room_version": "10", "creator": BOB}),
        prev: strs(&ends),
        auth: Vec::new(),
        depth: 20,
    });
    let allowing = scene.auth(BOB, "m.room.message", None, false);
    let message = scene.peer.make(Draft {
        sender: BOB,
        kind: "m.room.message",
        state_key: None,
        content: json!({"body": "in another's room"}),
        prev: strs(&ends),
        auth: strs(&allowing).into_iter().chain([&*create.event_id]).collect(),
        depth: 20,
    });
    let (pdus, outliers) = (scene.check(&[&message]), scene.check(&[&create]));
    let received = scene.write(ReceivePdus { pdus, outliers, ..ReceivePdus::default() });
    let refused = (create.event_id.clone(), Outcome::Refused(Refused::SecondCreate));
    assert_eq!(received.outcomes, [refused, (message.event_id.clone(), Outcome::Waiting)]);
    assert_eq!(received.missing.auth_events, std::slice::from_ref(&create.event_id));
}

#[test]
fn a_chain_costs_no_more_requests_the_longer_it_is() {
    for (length, is_told_between) in [(58, true), (58, false), (250, true), (250, false), (1_000, false)] {
        let scene = Scene::new();
        let mut sender = Sender::new(&scene, chain(&scene, length, &joined(&scene)));
        sender.tells_what_lies_between = is_told_between;
        sender.send();
        sender.is_taken_in();
        assert!(sender.requests() <= REQUESTS_MAX, "{length}: {:?}", sender.asked);
        // The state before the first event that came, and not before each.
        let states = sender.asked.iter().filter(|question| matches!(question, Question::State { .. }));
        assert!(states.count() <= 1, "{length}: {:?}", sender.asked);
    }
}

#[test]
fn a_chain_that_lies_between_is_told_with_all_else_there() {
    let scene = Scene::new();
    let mut sender = Sender::new(&scene, chain(&scene, 70, &joined(&scene)));
    sender.send();
    sender.is_taken_in();
    let is_between = |question: &Question| matches!(question, Question::MissingEvents { .. });
    assert!(sender.asked.iter().all(is_between), "{:?}", sender.asked);
    assert_eq!(scene.ends(), [sender.events.last().unwrap().event_id.to_string()]);
}

#[test]
fn a_chain_that_nobody_tells_as_a_whole_costs_a_request_for_each_of_its_events() {
    const LENGTH: u64 = 40;
    let scene = Scene::new();
    let mut sender = Sender::new(&scene, chain(&scene, LENGTH, &joined(&scene)));
    (sender.tells_what_lies_between, sender.tells_auth_chains) = (false, false);
    sender.send();
    sender.is_taken_in();
    let mut ids = sender.asked_ids();
    ids.sort_unstable();
    let mut members: Vec<Arc<str>> = sender.events.iter().map(|event| event.event_id.clone()).collect();
    members.pop();
    members.sort_unstable();
    assert_eq!(ids, members);
}

#[test]
fn a_chain_without_a_beginning_is_not_asked_for_without_end_and_not_kept() {
    let scene = Scene::new();
    let before = scene.ends();
    let mut sender = Sender::new(&scene, chain(&scene, 200, "$nobody_has_it"));
    (sender.tells_what_lies_between, sender.tells_states) = (false, false);
    let intake = sender.send();
    assert_eq!(intake.waiting(), [sender.events.last().unwrap().json.clone()]);
    assert!(sender.requests() <= REQUESTS_MAX, "{:?}", sender.asked);
    for event in &sender.events {
        assert_eq!(scene.status(&event.event_id), None);
    }
    assert_eq!(scene.ends(), before);
    scene.is_sound();
}
