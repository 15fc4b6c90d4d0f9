//! What an intake asks of other servers, and in which order.
//!
//! What lies between comes first: what allows events is part of it, as a rule. Then single events that allow others; where
//! these lead to more of their kind, all at once that allows an event; and a state when that leads no further. Invariant: a
//! chain of events, each allowed by the one before, costs one question, and where nobody tells it as a whole no more than one
//! for each of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{Intake, Question, Role, states::allowed_by};
use crate::{
    core::{event::Pdu, identifiers::server_name},
    error::Missing,
    room::receive::Outcome,
};

/// Questions that one intake may lead to: far more than filling an ordinary gap takes.
const QUESTIONS_MAX: usize = 60;
/// And beside them, how many events a policy server is asked about, each of which is judged then: what is sent at once, and what lies
/// between as others give it. The rest has the next round, which follows at once.
pub(super) const SIGNATURES_ASKED_MAX: usize = 250;
/// Of the questions, how often what lies before events is asked for, twenty or so at a time: what a server missed in a short
/// outage. Behind a longer one the state is asked for, and the rest is history.
const MISSING_EVENTS_ASKED_MAX: usize = 10;
/// And how often all that allows an event: whoever has changed a name or powers many times while a server was away makes one
/// chain, and few do. Each answer may be as large as a room's state.
const AUTH_CHAINS_ASKED_MAX: usize = 5;
/// Events that are taken of one such answer: ten thousand changes in one room while a server was away, and a second of work.
/// What a longer one has comes with a state.
pub(super) const AUTH_CHAIN_EVENTS_MAX: usize = 10_000;
/// Servers that are asked for a state before an event which the first one's denies: its sender's, and as many as there are to ask.
const OTHER_STATES_OF_EVENT_MAX: usize = 6;
/// How often that is asked in all, so that a server which lies about many events takes no more than its share of the questions.
const OTHER_STATES_ASKED_MAX: usize = 12;
/// Events asked for at once.
const EVENTS_MAX: usize = 50;
/// Signatures asked for before what has its own is written: what a round does not get to is asked for anew in the next.
const SIGNATURES_AT_ONCE: usize = 10;
/// The same of the past, which may be asked for side by side: a hundred events of a page take seven turns, each of which is taken in before
/// the next is asked for, and a policy server has so many questions of a room at a time.
const PAST_SIGNATURES_AT_ONCE: usize = 16;
/// How often one event is asked for by its id: who gives only some of those that are asked for together leaves the others to
/// the next question, and so to the next server.
const EVENT_ASKED_MAX: usize = 3;

impl Intake {
    /// Asks for the next of what may lead further. Returns whether there is anything.
    pub(super) fn ask_for(&mut self, missing: &Missing) -> bool {
        // What follows events that lack a signature may lack nothing else.
        let signatures = missing.signatures.iter().cloned().map(Question::PolicySignature);
        let at_once = match (self.backfill, self.is_policy_server_silent) {
            (false, _) => SIGNATURES_AT_ONCE,
            (true, false) => PAST_SIGNATURES_AT_ONCE,
            (true, true) => 0,
        };
        let signatures: Vec<Question> =
            signatures.filter(|question| !self.asked.contains(question)).take(at_once).collect();
        let is_chain = self.count_asked(|question| matches!(question, Question::Events { .. })) > 0;
        self.ask_all(signatures)
            || self.ask_for_other_states(missing)
            || self.ask_for_what_lies_between(missing)
            || !is_chain && self.ask_for_events(missing)
            || self.ask_for_auth_chain(missing)
            || self.ask_for_states(missing, true)
            || self.ask_for_events(missing)
            || self.ask_for_states(missing, false)
    }

    fn ask_for_what_lies_between(&mut self, missing: &Missing) -> bool {
        let asked = self.count_asked(|question| matches!(question, Question::MissingEvents { .. }));
        if missing.prev_events.is_empty() || asked >= MISSING_EVENTS_ASKED_MAX {
            return false;
        }
        let prev_events: HashSet<&Arc<str>> = missing.prev_events.iter().collect();
        let latest = self.live.iter().filter(|(_, checked)| {
            checked.pdu().prev_events.iter().any(|event_id| prev_events.contains(event_id))
        });
        let latest = latest.map(|(event_id, _)| event_id.clone()).collect();
        self.ask(Question::MissingEvents { latest })
    }

    fn ask_for_events(&mut self, missing: &Missing) -> bool {
        // What came and is of no use would come again, and keep others from being asked for the rest.
        let is_again = missing.auth_events.iter().any(|event_id| self.asked_events.contains_key(event_id));
        let useless = if is_again { self.useless() } else { HashSet::new() };
        let may_be_asked = |event_id: &&Arc<str>| {
            let asked = self.asked_events.get(*event_id);
            asked.is_none_or(|asked| *asked < EVENT_ASKED_MAX && !useless.contains(*event_id))
        };
        let wanted: Vec<Arc<str>> = missing.auth_events.iter().filter(may_be_asked).cloned().collect();
        let mut is_asked = false;
        for event_ids in wanted.chunks(EVENTS_MAX) {
            if self.ask(Question::Events { event_ids: event_ids.to_vec() }) {
                is_asked = true;
                for event_id in event_ids {
                    *self.asked_events.entry(event_id.clone()).or_default() += 1;
                }
            }
        }
        is_asked
    }

    /// The events that came, and are refused or lack a key.
    fn useless(&self) -> HashSet<Arc<str>> {
        let parsed = self.keyless.iter().map(|keyless| Pdu::parse_history(self.version, &keyless.json));
        let keyless = parsed.filter_map(|parsed| parsed.ok().map(|pdu| pdu.event_id));
        let refused = self.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_)));
        refused.map(|(event_id, _)| event_id.clone()).chain(keyless).collect()
    }

    fn ask_for_auth_chain(&mut self, missing: &Missing) -> bool {
        let asked = self.count_asked(|question| matches!(question, Question::AuthChain { .. }));
        if missing.auth_events.is_empty() || asked >= AUTH_CHAINS_ASKED_MAX {
            return false;
        }
        self.auth_chain_with(&missing.auth_events).is_some_and(|question| self.ask(question))
    }

    /// The question for an auth chain that has some of these, and was not asked for: that of an event at hand which no other
    /// one there is allowed by, so that it has much.
    fn auth_chain_with(&self, auth_events: &[Arc<str>]) -> Option<Question> {
        let allowed_by = allowed_by(self.live.iter().chain(&self.outliers));
        let followers = |event_id: &Arc<str>| allowed_by.get(event_id).into_iter().flatten().copied();
        let mut passed: HashSet<&Arc<str>> = HashSet::new();
        for event_id in auth_events {
            let mut last = event_id;
            while let Some(next) = followers(last).find(|next| passed.insert(*next)) {
                last = next;
            }
            // A way that ends where another one went by leads to a chain that was asked for. One of a single event is to a
            // part of a state, which allows nothing.
            if last != event_id && followers(last).next().is_none() {
                let question = Question::AuthChain { event_id: last.clone() };
                if !self.asked.contains(&question) {
                    return Some(question);
                }
            }
        }
        None
    }

    /// Takes of an auth chain what leads on from what is missing, and nothing that nothing leads to.
    pub(super) fn take_of_auth_chain(&mut self, pdus: Vec<Bytes>) {
        if pdus.len() > AUTH_CHAIN_EVENTS_MAX {
            return;
        }
        let mut told: HashMap<Arc<str>, (Bytes, Vec<Arc<str>>)> = HashMap::new();
        for json in pdus {
            // Only what allows it is looked at here: whether it is rightly signed is checked as with any other event.
            if let Ok(pdu) = Pdu::parse_history(self.version, &json) {
                told.entry(pdu.event_id).or_insert((json, pdu.auth_events));
            }
        }
        let mut next = self.missing.auth_events.clone();
        let mut taken = Vec::new();
        while let Some(event_id) = next.pop() {
            if let Some((json, auth_events)) = told.remove(&event_id) {
                next.extend(auth_events);
                taken.push(json);
                self.wanted.insert(event_id);
            }
        }
        self.add(taken, Role::Outlier);
    }

    /// Asks for the states before events: of the `first`, or of all. Those that follow others which wait are told theirs by
    /// these, as a rule; not by history that goes on waiting for a signature.
    fn ask_for_states(&mut self, missing: &Missing, first: bool) -> bool {
        let unsigned = self.left_unsigned(missing);
        let is_waiting = |prev: &Arc<str>| self.live.contains_key(prev) && !unsigned.contains(prev);
        let follows_waiting = |event_id: &Arc<str>| {
            let checked = self.live.get(event_id);
            checked.is_some_and(|checked| checked.pdu().prev_events.iter().any(is_waiting))
        };
        let wanted = missing.state.iter().filter(|event_id| !first || !follows_waiting(event_id));
        let questions: Vec<Question> =
            wanted.map(|event_id| Question::State { event_id: event_id.clone() }).collect();
        drop(unsigned);
        self.ask_all(questions)
    }

    /// The events of the past that wait for a policy server which is silent, and what they lead to: none of them is taken in any more.
    fn left_unsigned<'a>(&'a self, missing: &'a Missing) -> HashSet<&'a Arc<str>> {
        let mut unsigned = HashSet::new();
        if !self.is_policy_server_silent {
            return unsigned;
        }
        let mut next: Vec<&Arc<str>> = missing.signatures.iter().map(|wanted| &wanted.event_id).collect();
        while let Some(event_id) = next.pop() {
            if unsigned.insert(event_id) {
                let checked = self.live.get(event_id).map(|checked| &checked.pdu().prev_events);
                next.extend(checked.or_else(|| self.passed_by.get(event_id)).into_iter().flatten());
            }
        }
        unsigned
    }

    /// Asks the next server for the states before events that the last one's denies.
    fn ask_for_other_states(&mut self, missing: &Missing) -> bool {
        let mut is_asked = false;
        for event_id in &missing.other_state {
            let all = self.count_asked(|question| matches!(question, Question::OtherState { .. }));
            let turn = self.count_asked(|question| match question {
                Question::OtherState { event_id: asked, .. } => asked == event_id,
                _ => false,
            });
            let sender = self.live.get(event_id).and_then(|checked| server_name(&checked.pdu().sender));
            if let Some(server) = sender
                && turn < OTHER_STATES_OF_EVENT_MAX
                && all < OTHER_STATES_ASKED_MAX
            {
                let server = server.to_owned();
                is_asked |= self.ask(Question::OtherState { event_id: event_id.clone(), server, turn });
            }
        }
        is_asked
    }

    fn count_asked(&self, is_counted: impl Fn(&Question) -> bool) -> usize {
        self.asked.iter().filter(|question| is_counted(question)).count()
    }

    fn ask_all(&mut self, questions: impl IntoIterator<Item = Question>) -> bool {
        let mut is_asked = false;
        for question in questions {
            is_asked |= self.ask(question);
        }
        is_asked
    }

    /// Returns whether it is asked, which is once.
    pub(super) fn ask(&mut self, question: Question) -> bool {
        let is_signature = |question: &Question| matches!(question, Question::PolicySignature(_));
        let signatures = self.count_asked(is_signature);
        let has_place = match is_signature(&question) {
            true => signatures < SIGNATURES_ASKED_MAX,
            false => self.asked.len() - signatures < QUESTIONS_MAX,
        };
        let is_new = has_place && self.asked.insert(question.clone());
        if is_new {
            self.questions.push_back(question);
        }
        is_new
    }
}
