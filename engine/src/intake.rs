//! Events of another server on their way in: what is checked, written and asked of whom until nothing is missing.
//!
//! Invariant: no question is asked twice, so that an intake ends whatever it is answered; what is still missing then stays
//! out. Of a state that is told, what is refused is left out, as of one that is told with a join, and last of all what those
//! who may be asked deny to have; what nobody can be asked for is waited for. Of what comes as an answer, only events that were
//! asked for are kept, or lead on from one that was. It does nothing itself: whoever drives it checks, writes and asks, with
//! tasks or a simulated network, and tells what came of it.

mod asking;
mod lacks;
mod signatures;
mod states;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, btree_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
pub use lacks::Lack;

use crate::{
    command::{ReceivePdus, Received, Unchecked},
    core::{
        checked::{CheckedPdu, MissingKey, PduCheck, Refused},
        event::{JsonObject, Pdu, verify_content_hash},
        version::{EventIdFormat, RoomVersion},
    },
    error::Missing,
    room::{
        policy::WantedSignature,
        receive::{GivenState, KeptPlaces, Outcome, PassedBy, Within},
    },
};

/// What is to be done next.
pub enum Next {
    /// Check these, and tell by [`Intake::checked`].
    Check(Vec<Bytes>),
    /// Write this, and tell by [`Intake::received`].
    Write(Box<ReceivePdus>),
    /// Ask another server, and tell by [`Intake::answered`].
    Ask(Question),
    /// Nothing more.
    Done,
}

/// What another server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Signing keys; they are stored before the answer is told.
    Keys {
        /// Which.
        keys: Vec<MissingKey>,
    },
    /// The events before these.
    MissingEvents {
        /// Events whose predecessors are missing.
        latest: Vec<Arc<str>>,
    },
    /// The state before an event.
    State {
        /// The event.
        event_id: Arc<str>,
    },
    /// The state before an event as another server tells it, since those that were told so far deny the event.
    OtherState {
        /// The event.
        event_id: Arc<str>,
        /// Its sender's server, whose word counts: it would shut out nobody but its own users.
        server: String,
        /// How many others were asked before; that server is the first.
        turn: usize,
    },
    /// Events.
    Events {
        /// Their ids.
        event_ids: Vec<Arc<str>>,
    },
    /// All events that allow an event, those that allow them included. The answer needs to have only those that are not here.
    AuthChain {
        /// The event.
        event_id: Arc<str>,
    },
    /// The policy server's signature on an event, [`Intake::event`].
    PolicySignature(WantedSignature),
}

impl Question {
    /// Which of the servers that know the room are asked, one after the other until one knows.
    pub fn asked_of(&self, servers: &[String]) -> Vec<String> {
        match self {
            Self::OtherState { server, turn: 0, .. } => vec![server.clone()],
            Self::OtherState { server, turn, .. } => {
                let mut others = servers.iter().filter(|other| *other != server);
                others.nth(turn.saturating_sub(1)).cloned().into_iter().collect()
            }
            _ => servers.to_vec(),
        }
    }
}

/// What another server answers.
pub enum Answer {
    /// Nobody could be reached, or nobody knows.
    Nothing,
    /// Events that were asked for cannot be had: all servers have denied to have them. One that could not be asked, or did not say, might
    /// have them: nobody makes a state of the room by denying the rest of it.
    Denied {
        /// Those of which all were asked who may be.
        event_ids: Vec<Arc<str>>,
    },
    /// The keys, as far as they could be had, which are stored by now.
    Keys,
    /// Events as JSON.
    Events(Vec<Bytes>),
    /// A state.
    State {
        /// The ids of its events.
        state: Vec<Arc<str>>,
        /// The ids of the events that allow it.
        auth_chain: Vec<Arc<str>>,
        /// Those of them that are not here, as far as they came along.
        pdus: Vec<Bytes>,
    },
    /// What the policy server answered; nothing if it refuses, or fails on the event.
    PolicySignature(Option<JsonObject>),
}

/// How an event came into the intake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// To be part of the room, and its place among what was sent: a key that comes late makes no event later.
    Live(usize),
    /// The same, of what nobody sent: it is told as what lies between, and may turn out to be history.
    Between,
    /// Only to be known.
    Outlier,
}

/// An event that lacks a key.
struct Keyless {
    json: Bytes,
    role: Role,
    /// Whose key it lacks.
    server: String,
}

/// Events of one room on their way in.
pub struct Intake {
    room_id: String,
    version: &'static RoomVersion,
    backfill: bool,
    within: Option<Within>,
    unchecked: Vec<(Bytes, Role)>,
    checking: Vec<(Bytes, Role)>,
    /// What cannot be checked yet for want of a key.
    keyless: Vec<Keyless>,
    live: BTreeMap<Arc<str>, Arc<CheckedPdu>>,
    /// Those that were sent, whatever became of them, and which of them came first.
    sent: BTreeMap<Arc<str>, usize>,
    outliers: BTreeMap<Arc<str>, Arc<CheckedPdu>>,
    states: Vec<GivenState>,
    /// The events whose state was told by others than their senders' servers.
    hearsay: BTreeSet<Arc<str>>,
    not_recommended: BTreeSet<Arc<str>>,
    /// Whether the policy server has not answered about an event of the past, which waits, with what it leads to.
    is_policy_server_silent: bool,
    /// Events of the past that cannot be taken in, and what they follow.
    passed_by: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// Where events of the past are to stand that wait.
    places: KeptPlaces,
    /// The events that may come as outliers.
    wanted: BTreeSet<Arc<str>>,
    questions: VecDeque<Question>,
    asked: BTreeSet<Question>,
    /// How often single events were asked for.
    asked_events: HashMap<Arc<str>, usize>,
    asked_keys: BTreeSet<MissingKey>,
    /// Single events that are not waited for any more: who may be asked denies to have them.
    denied: HashSet<Arc<str>>,
    /// Those that are history: they come as that, but may be known from outside of the graph before.
    past: BTreeSet<Arc<str>>,
    /// What was missing at the last write.
    missing: Missing,
    /// Whether there is something that was not written yet.
    is_new: bool,
    /// Whether states may lack events whose keys cannot be had.
    without_keys: bool,
    /// The servers whose members states may lack.
    awaited: HashSet<String>,
    /// Whether it is an invite of our user by an address.
    is_by_address: bool,
    /// The server that sent the events of its own accord.
    sent_by: Option<String>,
    /// What the states go without for that: by the id of the event before which it was told, and its own.
    left_out: BTreeMap<(Arc<str>, Arc<str>), Unchecked>,
    /// What became of each event.
    pub outcomes: BTreeMap<Arc<str>, Outcome>,
}

impl Intake {
    /// An intake of events that were sent for a room.
    pub fn new(room_id: String, version: &'static RoomVersion, pdus: Vec<Bytes>) -> Self {
        Self {
            room_id,
            version,
            backfill: false,
            within: None,
            unchecked: pdus.into_iter().enumerate().map(|(place, pdu)| (pdu, Role::Live(place))).collect(),
            checking: Vec::new(),
            keyless: Vec::new(),
            live: BTreeMap::new(),
            sent: BTreeMap::new(),
            outliers: BTreeMap::new(),
            states: Vec::new(),
            hearsay: BTreeSet::new(),
            not_recommended: BTreeSet::new(),
            is_policy_server_silent: false,
            passed_by: BTreeMap::new(),
            places: KeptPlaces::new(),
            wanted: BTreeSet::new(),
            questions: VecDeque::new(),
            asked: BTreeSet::new(),
            asked_events: HashMap::new(),
            asked_keys: BTreeSet::new(),
            denied: HashSet::new(),
            past: BTreeSet::new(),
            missing: Missing::default(),
            is_new: false,
            without_keys: false,
            awaited: HashSet::new(),
            is_by_address: false,
            sent_by: None,
            left_out: BTreeMap::new(),
            outcomes: BTreeMap::new(),
        }
    }

    /// An intake of events that a server sent for a room of its own accord. While it has no user there, not all that is denied is kept.
    pub fn sent_by(server: &str, room_id: String, version: &'static RoomVersion, pdus: Vec<Bytes>) -> Self {
        Self { sent_by: Some(server.to_owned()), ..Self::new(room_id, version, pdus) }
    }

    /// An intake of events of the room's past, which fill its gaps. A client waits for them: states go without what cannot be
    /// checked at once.
    pub fn of_history(room_id: String, version: &'static RoomVersion, pdus: Vec<Bytes>) -> Self {
        Self { backfill: true, without_keys: true, ..Self::new(room_id, version, pdus) }
    }

    /// An intake of one event of the room's past that nothing here leads to.
    pub fn within_gap(room_id: String, version: &'static RoomVersion, pdu: Bytes, within: Within) -> Self {
        Self { within: Some(within), ..Self::of_history(room_id, version, vec![pdu]) }
    }

    /// An intake of an invite of our user by an address, which comes in only if nothing has overtaken it.
    pub fn of_invite_by_address(room_id: String, version: &'static RoomVersion, pdu: Bytes) -> Self {
        Self { is_by_address: true, ..Self::new(room_id, version, vec![pdu]) }
    }

    /// Lets states that are told lack the events whose keys cannot be had, as those that are told with a join may: some servers
    /// are gone for good, and their keys with them.
    pub fn go_without_keys(&mut self) {
        self.without_keys = true;
    }

    /// Lets states that are told lack the members of servers whose keys were asked for in vain before, and are asked for again and
    /// again: nobody waits for them anew.
    pub fn go_without_members_of(&mut self, servers: HashSet<String>) {
        self.awaited = servers;
    }

    /// Whether the events are of the room's past, for which [`crate::view::CheckHistory`] stands.
    pub fn is_history(&self) -> bool {
        self.backfill
    }

    /// The version of the room.
    pub fn version(&self) -> &'static RoomVersion {
        self.version
    }

    /// The room's id.
    pub fn room_id(&self) -> &str {
        &self.room_id
    }

    /// What is to be done next.
    pub fn next_step(&mut self) -> Next {
        if !self.unchecked.is_empty() {
            self.checking = std::mem::take(&mut self.unchecked);
            return Next::Check(self.checking.iter().map(|(pdu, _)| pdu.clone()).collect());
        }
        if self.questions.is_empty() && !self.is_new {
            // What was answered led no further: there may be another way.
            let missing = std::mem::take(&mut self.missing);
            self.is_new = !self.ask_for(&missing) && self.leave_out_of_states(&missing);
            self.missing = missing;
        }
        if let Some(question) = self.questions.pop_front() {
            return Next::Ask(question);
        }
        if self.is_new && !self.live.is_empty() {
            // What is to be part of the room need not be known from outside of it first.
            let outliers = self.outliers.iter().filter(|(event_id, _)| !self.live.contains_key(*event_id));
            let outliers = outliers.map(|(_, pdu)| pdu);
            return Next::Write(Box::new(ReceivePdus {
                room_id: self.room_id.clone(),
                pdus: self.to_write(),
                outliers: outliers.cloned().collect(),
                states: self.states.clone(),
                hearsay: self.hearsay.clone(),
                told: self
                    .live
                    .keys()
                    .filter(|event_id| !self.sent.contains_key(*event_id))
                    .cloned()
                    .collect(),
                not_recommended: self.not_recommended.clone(),
                unchecked: self
                    .left_out
                    .iter()
                    .map(|((before, _), event)| (before.clone(), event.clone()))
                    .collect(),
                passed_by: self.passed_by(),
                backfill: self.backfill,
                within: self.within.clone(),
                places: self.places.clone(),
                are_by_address: self.is_by_address,
                sent_by: self.sent_by.clone(),
            }));
        }
        Next::Done
    }

    /// What is to be part of the room, in the order in which its server has sent it: of two events of which none follows the other, the
    /// first may be allowed before the second alone, as what somebody said before they left. What lies between is older.
    fn to_write(&self) -> Vec<Arc<CheckedPdu>> {
        let mut pdus: Vec<Arc<CheckedPdu>> = self.live.values().cloned().collect();
        if !self.backfill {
            pdus.sort_by_key(|checked| {
                let pdu = checked.pdu();
                (self.sent.get(&pdu.event_id).copied(), pdu.depth)
            });
        }
        pdus
    }

    /// What came of a check.
    pub fn checked(&mut self, checks: Vec<PduCheck>) {
        let checking = std::mem::take(&mut self.checking);
        let mut keys = BTreeSet::new();
        for ((json, role), check) in checking.into_iter().zip(checks) {
            match check {
                PduCheck::Ready(pdu) => self.ready(role, pdu),
                PduCheck::Refused { event_id, error } => {
                    self.pass_by(role, &json);
                    self.refused(event_id, error);
                }
                PduCheck::MissingKeys(missing) => {
                    self.pass_by(role, &json);
                    let server = missing.first().map(|key| key.server_name.clone()).unwrap_or_default();
                    keys.extend(missing);
                    self.keyless.push(Keyless { json, role, server });
                }
            }
        }
        keys.retain(|key| self.asked_keys.insert(key.clone()));
        if !keys.is_empty() {
            self.ask(Question::Keys { keys: keys.into_iter().collect() });
        }
    }

    fn ready(&mut self, role: Role, pdu: Arc<CheckedPdu>) {
        let event_id = pdu.pdu().event_id.clone();
        if role == Role::Outlier && !self.wanted.contains(&event_id) {
            return;
        }
        if let Role::Live(place) = role {
            let first = self.sent.entry(event_id.clone()).or_insert(place);
            *first = place.min(*first);
        }
        let (place, is_done) = match (role, self.outcomes.get(&event_id)) {
            // Another copy may have been a forgery.
            (Role::Live(_) | Role::Between, Some(Outcome::Stored | Outcome::Refused(_))) => {
                (&mut self.live, false)
            }
            (Role::Live(_) | Role::Between, outcome) => (&mut self.live, outcome.is_some()),
            // A state that is told may name it.
            (Role::Outlier, Some(Outcome::Past)) => (&mut self.outliers, false),
            (Role::Outlier, outcome) => (&mut self.outliers, outcome.is_some()),
        };
        if is_done {
            return;
        }
        match place.entry(event_id) {
            Entry::Vacant(free) => {
                free.insert(pdu);
                self.is_new = true;
            }
            // One server may tell it without its content, and another one whole.
            Entry::Occupied(known) if is_whole(known.get()) && !is_whole(&pdu) => {}
            Entry::Occupied(mut known) => drop(known.insert(pdu)),
        }
    }

    /// Of an event of the past that is not rightly signed, or of which nobody can tell, what it follows is kept: only the event
    /// itself is to be missing. In the oldest versions that is nothing but the word of who tells it.
    fn pass_by(&mut self, role: Role, json: &Bytes) {
        let is_past = self.backfill && role != Role::Outlier;
        if !is_past || self.version.event_ids == EventIdFormat::Own {
            return;
        }
        if let Ok(pdu) = Pdu::parse_history(self.version, json)
            && *pdu.room_id == *self.room_id
        {
            self.passed_by.insert(pdu.event_id, pdu.prev_events);
        }
    }

    /// The events that are passed by; another copy of one may be good.
    fn passed_by(&self) -> Vec<PassedBy> {
        let bad = self.passed_by.iter().filter(|(event_id, _)| !self.live.contains_key(*event_id));
        let passed = |(event_id, prev_events): (&Arc<str>, &Vec<Arc<str>>)| PassedBy {
            event_id: event_id.clone(),
            prev_events: prev_events.clone(),
        };
        bad.map(passed).collect()
    }

    /// The events of the past that came and are no part of the room, with what they follow as far as that can be told: they cannot
    /// be checked, or are refused, or wait. Whoever asks for them again is told the same.
    pub fn left_behind(&self) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
        let mut left: BTreeMap<Arc<str>, Vec<Arc<str>>> = self.passed_by.clone();
        left.extend(self.live.iter().map(|(id, checked)| (id.clone(), checked.pdu().prev_events.clone())));
        for keyless in self.keyless.iter().filter(|keyless| keyless.role != Role::Outlier) {
            if let Ok(pdu) = Pdu::parse_history(self.version, &keyless.json) {
                left.entry(pdu.event_id).or_default();
            }
        }
        for (event_id, outcome) in &self.outcomes {
            match outcome {
                // Nothing has led to an unrelated one, which something may by and by.
                Outcome::Refused(refused) if *refused != Refused::Unrelated => {
                    left.entry(event_id.clone()).or_default();
                }
                Outcome::Stored | Outcome::Waiting => {}
                _ => drop(left.remove(event_id)),
            }
        }
        left
    }

    fn refused(&mut self, event_id: Option<Arc<str>>, error: Refused) {
        // A forged copy of an event that was taken in says nothing about that one.
        if let Some(event_id) = event_id {
            self.outcomes.entry(event_id).or_insert(Outcome::Refused(error));
        }
    }

    /// What came of a question.
    pub fn answered(&mut self, question: Question, answer: Answer) {
        match (question, answer) {
            // What it leads to would wait for it, and be asked about in vain.
            (Question::PolicySignature(_), Answer::Nothing) if self.backfill => {
                self.policy_server_is_silent()
            }
            (_, Answer::Nothing) => {}
            (_, Answer::Denied { event_ids }) => self.denied.extend(event_ids),
            (_, Answer::Keys) => {
                let keyless = std::mem::take(&mut self.keyless).into_iter();
                self.unchecked.extend(keyless.map(|keyless| (keyless.json, keyless.role)));
            }
            (Question::MissingEvents { .. }, Answer::Events(pdus)) => self.add(pdus, Role::Between),
            (Question::Events { event_ids }, Answer::Events(pdus)) => {
                self.wanted.extend(event_ids);
                self.add(pdus, Role::Outlier);
            }
            (Question::AuthChain { .. }, Answer::Events(pdus)) => self.take_of_auth_chain(pdus),
            (Question::State { event_id }, Answer::State { state, auth_chain, pdus }) => {
                self.hearsay.insert(event_id.clone());
                self.take_state(GivenState { event_id, state }, auth_chain, pdus);
            }
            (Question::OtherState { event_id, turn, .. }, Answer::State { state, auth_chain, pdus }) => {
                match turn {
                    0 => self.hearsay.remove(&event_id),
                    _ => self.hearsay.insert(event_id.clone()),
                };
                self.states.retain(|given| given.event_id != event_id);
                self.left_out.retain(|(before, _), _| *before != event_id);
                self.take_state(GivenState { event_id, state }, auth_chain, pdus);
            }
            (Question::PolicySignature(wanted), Answer::PolicySignature(answer)) => {
                self.policy_answered(&wanted, answer);
            }
            (_, Answer::Events(_) | Answer::State { .. } | Answer::PolicySignature(_)) => {}
        }
    }

    fn take_state(&mut self, given: GivenState, auth_chain: Vec<Arc<str>>, pdus: Vec<Bytes>) {
        self.wanted.extend(given.state.iter().cloned().chain(auth_chain));
        self.states.push(given);
        self.add(pdus, Role::Outlier);
        self.is_new = true;
    }

    /// An event that is to be part of the room, as JSON.
    pub fn event(&self, event_id: &str) -> Option<&Bytes> {
        self.live.get(event_id).map(|pdu| &pdu.pdu().json)
    }

    fn add(&mut self, pdus: Vec<Bytes>, role: Role) {
        self.unchecked.extend(pdus.into_iter().map(|pdu| (pdu, role)));
    }

    /// What came of a write.
    pub fn received(&mut self, mut received: Received) {
        self.is_new = false;
        self.places = received.places;
        for (event_id, outcome) in received.outcomes {
            if outcome == Outcome::Waiting {
                continue;
            }
            self.live.remove(&event_id);
            self.outliers.remove(&event_id);
            if outcome == Outcome::Past {
                self.past.insert(event_id.clone());
            }
            // What is history stays that when it is known from outside of the graph as well.
            let is_outside = matches!(outcome, Outcome::Stored | Outcome::Known);
            if !is_outside || !self.past.contains(&event_id) {
                self.outcomes.insert(event_id, outcome);
            }
        }
        received.missing.prev_events.retain(|event_id| !self.past.contains(event_id));
        self.ask_for(&received.missing);
        self.missing = received.missing;
    }

    /// The events that were to be part of the room and cannot be judged yet.
    pub fn waiting(&self) -> Vec<Bytes> {
        let keyless = self.keyless.iter().filter(|keyless| keyless.role != Role::Outlier);
        let keyless = keyless.map(|keyless| keyless.json.clone());
        self.live.values().map(|pdu| pdu.pdu().json.clone()).chain(keyless).collect()
    }
}

fn is_whole(checked: &CheckedPdu) -> bool {
    matches!(verify_content_hash(checked.pdu()), Ok(true))
}

#[cfg(test)]
mod tests;
