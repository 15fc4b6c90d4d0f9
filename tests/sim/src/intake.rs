//! Events of another server on their way into the engine: what is asked of whom until nothing is missing.
//!
//! Invariant: nothing is asked twice, so that an intake ends whatever it is answered; what is still missing then stays out,
//! and comes in with a later transaction. It does nothing itself: whoever drives it checks, writes and asks, with threads,
//! tasks or a simulated network, and tells what came of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use warren_engine::{
    GivenState, Missing, Outcome,
    command::{ReceivePdus, Received},
    core::{
        checked::{CheckedPdu, PduCheck},
        version::RoomVersion,
    },
};

/// Questions that one transaction may lead to: far more than filling an ordinary gap takes.
const QUESTIONS_MAX: usize = 60;
/// Events asked for at once.
const EVENTS_MAX: usize = 50;

/// What is to be done next.
pub enum Next {
    /// Check these, and tell by [`Intake::checked`].
    Check(Vec<Bytes>),
    /// Write this, and tell by [`Intake::received`].
    Write(ReceivePdus),
    /// Ask another server, and tell by [`Intake::answered`].
    Ask(Question),
    /// Nothing more.
    Done,
}

/// What another server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The signing keys of a server; they are stored before the answer is told.
    Keys {
        /// Whose.
        server_name: String,
    },
    /// The events before these.
    MissingEvents {
        /// Events whose predecessors are missing.
        latest: Vec<Arc<str>>,
    },
    /// The state before an event.
    StateIds {
        /// The event.
        event_id: Arc<str>,
    },
    /// Events.
    Events {
        /// Their ids.
        event_ids: Vec<Arc<str>>,
    },
}

/// What another server answers.
pub enum Answer {
    /// Nobody could be reached, or nobody knows.
    Nothing,
    /// The keys, which are stored by now.
    Keys,
    /// Events as JSON.
    Events(Vec<Bytes>),
    /// The ids of a state.
    State(Vec<Arc<str>>),
}

/// How an event came into the intake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// To be part of the room.
    Live,
    /// Only to be known.
    Outlier,
}

/// Events of one room on their way in.
pub struct Intake {
    room_id: String,
    version: &'static RoomVersion,
    unchecked: Vec<(Bytes, Role)>,
    checking: Vec<(Bytes, Role)>,
    /// What cannot be checked yet for want of a key.
    keyless: Vec<(Bytes, Role)>,
    live: BTreeMap<Arc<str>, Arc<CheckedPdu>>,
    outliers: BTreeMap<Arc<str>, Arc<CheckedPdu>>,
    states: Vec<GivenState>,
    questions: VecDeque<Question>,
    asked: BTreeSet<Question>,
    /// What was missing at the last write.
    missing: Missing,
    /// Whether there is something that was not written yet.
    is_new: bool,
    /// What became of each event.
    pub outcomes: BTreeMap<Arc<str>, Outcome>,
}

impl Intake {
    /// An intake of events that were sent for a room.
    pub fn new(room_id: String, version: &'static RoomVersion, pdus: Vec<Bytes>) -> Self {
        Self {
            room_id,
            version,
            unchecked: pdus.into_iter().map(|pdu| (pdu, Role::Live)).collect(),
            checking: Vec::new(),
            keyless: Vec::new(),
            live: BTreeMap::new(),
            outliers: BTreeMap::new(),
            states: Vec::new(),
            questions: VecDeque::new(),
            asked: BTreeSet::new(),
            missing: Missing::default(),
            is_new: false,
            outcomes: BTreeMap::new(),
        }
    }

    /// The version of the room.
    pub fn version(&self) -> &'static RoomVersion {
        self.version
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
            self.ask_for(&missing);
        }
        if let Some(question) = self.questions.pop_front() {
            return Next::Ask(question);
        }
        if self.is_new && !self.live.is_empty() {
            // What is to be part of the room need not be known from outside of it first.
            let outliers = self.outliers.iter().filter(|(event_id, _)| !self.live.contains_key(*event_id));
            let outliers = outliers.map(|(_, pdu)| pdu);
            return Next::Write(ReceivePdus {
                room_id: self.room_id.clone(),
                pdus: self.live.values().cloned().collect(),
                outliers: outliers.cloned().collect(),
                states: self.states.clone(),
                backfill: false,
            });
        }
        Next::Done
    }

    /// What came of a check.
    pub fn checked(&mut self, checks: Vec<PduCheck>) {
        let checking = std::mem::take(&mut self.checking);
        for ((json, role), check) in checking.into_iter().zip(checks) {
            match check {
                PduCheck::Ready(pdu) => {
                    let event_id = pdu.pdu().event_id.clone();
                    let (place, is_done) = match (role, self.outcomes.get(&event_id)) {
                        (Role::Live, Some(Outcome::Stored)) => (&mut self.live, false),
                        (Role::Live, outcome) => (&mut self.live, outcome.is_some()),
                        (Role::Outlier, outcome) => (&mut self.outliers, outcome.is_some()),
                    };
                    self.is_new |= !is_done && place.insert(event_id, pdu).is_none();
                }
                PduCheck::Refused { event_id, error } => {
                    self.outcomes.extend(event_id.map(|event_id| (event_id, Outcome::Refused(error))));
                }
                PduCheck::MissingKeys(keys) => {
                    for key in keys {
                        self.ask(Question::Keys { server_name: key.server_name });
                    }
                    self.keyless.push((json, role));
                }
            }
        }
    }

    /// What came of a question.
    pub fn answered(&mut self, question: Question, answer: Answer) {
        match (question, answer) {
            (_, Answer::Nothing) => {}
            (_, Answer::Keys) => self.unchecked.append(&mut self.keyless),
            (Question::MissingEvents { .. }, Answer::Events(pdus)) => self.add(pdus, Role::Live),
            (_, Answer::Events(pdus)) => self.add(pdus, Role::Outlier),
            (Question::StateIds { event_id }, Answer::State(state)) => {
                self.states.push(GivenState { event_id, state });
                self.is_new = true;
            }
            (_, Answer::State(_)) => {}
        }
    }

    fn add(&mut self, pdus: Vec<Bytes>, role: Role) {
        self.unchecked.extend(pdus.into_iter().map(|pdu| (pdu, role)));
    }

    /// What came of a write.
    pub fn received(&mut self, received: Received) {
        self.is_new = false;
        for (event_id, outcome) in received.outcomes {
            if outcome == Outcome::Waiting {
                continue;
            }
            self.live.remove(&event_id);
            self.outliers.remove(&event_id);
            self.outcomes.insert(event_id, outcome);
        }
        self.ask_for(&received.missing);
        self.missing = received.missing;
    }

    /// Asks first for single events, then for what lies between, and for a state only when that leads no further.
    fn ask_for(&mut self, missing: &Missing) {
        for event_ids in missing.auth_events.chunks(EVENTS_MAX) {
            self.ask(Question::Events { event_ids: event_ids.to_vec() });
        }
        if !missing.prev_events.is_empty() {
            let follows_missing = |pdu: &CheckedPdu| {
                pdu.pdu().prev_events.iter().any(|event_id| missing.prev_events.contains(event_id))
            };
            let latest = self.live.iter().filter(|(_, pdu)| follows_missing(pdu));
            let latest = latest.map(|(event_id, _)| event_id.clone()).collect();
            if self.ask(Question::MissingEvents { latest }) {
                return;
            }
        }
        for event_id in &missing.state {
            self.ask(Question::StateIds { event_id: event_id.clone() });
        }
    }

    /// Returns whether it is asked, which is once.
    fn ask(&mut self, question: Question) -> bool {
        let is_new = self.asked.len() < QUESTIONS_MAX && self.asked.insert(question.clone());
        if is_new {
            self.questions.push_back(question);
        }
        is_new
    }
}
