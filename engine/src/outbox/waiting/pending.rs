//! What may be waiting for one server, and how that fares.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    outbox::{Failure, ephemeral::Ephemerals, missed::Missed},
};

/// What may be waiting for one server.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The rooms with events for it, and the position of the last.
    pub(super) rooms: BTreeMap<RoomNum, StreamPos>,
    /// Whether those of before the start are still to be looked for.
    pub(super) is_unknown: bool,
    /// Up to where there may be something in its queue.
    pub(super) queued: StreamPos,
    /// What is soon stale.
    pub(super) ephemerals: Ephemerals,
    /// The receipts that it has not been told and that are not among that.
    pub(super) missed: Missed,
    /// When it may be tried, in milliseconds since the epoch.
    pub(super) due_ms: u64,
    /// When that was said, in milliseconds since the epoch. If it is ahead of now, the clock was set back, and there is no telling
    /// how much of the pause is over.
    pub(super) said_ms: u64,
    /// Its last failure.
    pub(super) failure: Failure,
    /// Whether it was heard from since somebody is at it.
    pub(super) was_heard: bool,
    /// Where the rooms end, while it catches up.
    pub(super) ends: Option<Ends>,
    /// Its turn among those that are due, from when it is first seen to be until somebody is at it.
    pub(super) turn: Option<u64>,
    /// When its last turn was given, in milliseconds since the epoch; zero if none was.
    pub(super) turn_ms: u64,
    /// Whether somebody is at it.
    pub(super) taken: bool,
}

/// Where the rooms of a server end that catches up.
#[derive(Debug)]
pub(super) struct Ends {
    /// Up to where it catches up.
    pub(super) until: StreamPos,
    /// The rooms in which this server was when it was looked, and may be asked for the rest.
    pub(super) fetched: Arc<BTreeSet<RoomNum>>,
    /// The events, behind what it had when they were looked for.
    pub(super) events: BTreeSet<(StreamPos, EventNum)>,
}

impl Pending {
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.due_ms <= now_ms || self.said_ms > now_ms
    }

    pub(super) fn is_idle(&self) -> bool {
        self.next_ms(0).is_none()
    }

    /// Whether it has failed, and nothing is left for it whose taking would show that it is well.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.taken && self.is_idle() && self.failure.at_ms > 0 && !self.failure.is_shelved()
    }

    /// Its last failure, as one behind a sign of life where nothing waits: each notice of typing would make for an attempt.
    pub(super) fn patience(&self) -> Failure {
        let at_ms = if self.is_idle() { self.failure.at_ms } else { 0 };
        Failure { heard_ms: self.failure.heard_ms.max(at_ms), ..self.failure }
    }

    pub(super) fn hear(&mut self, due_ms: u64, now_ms: u64) -> u64 {
        self.failure = self.patience();
        self.failure.hear(due_ms, now_ms)
    }

    /// When it is to be sent something; `None` if there is nothing.
    pub(super) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let is_urgent = self.is_unknown
            || !self.rooms.is_empty()
            || self.queued != StreamPos::ZERO
            || self.missed.behind().is_some();
        let waits_ms = if is_urgent { Some(0) } else { self.ephemerals.due_ms() };
        let pause_ms = if self.is_due(now_ms) { 0 } else { self.due_ms };
        waits_ms.map(|waits_ms| waits_ms.max(pause_ms))
    }

    /// Receipts that came behind this position are to be looked for. Whoever is not dealt with is before the next start at the
    /// earliest, which is when all are.
    pub(super) fn miss(&mut self, behind: Option<StreamPos>) {
        if let Some(behind) = behind.filter(|_| !self.failure.is_shelved()) {
            self.missed.add(behind);
        }
    }
}
