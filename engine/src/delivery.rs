//! What there is for one server, brought to it: one transaction after the other, each until the server has taken it.
//!
//! Invariant: what goes out under an id is what went out under it before, or less of what is soon stale; a server that has
//! taken a transaction may have done so without our knowing. What is soon stale and was not taken comes under another. It does nothing itself: whoever drives it writes and sends,
//! over a real or a simulated network, and tells what came of it.
//! Not here: whom to deliver to ([`crate::view::federation::DueDestinations`]), and how long to wait after a failure, which
//! the commands decide.

use std::sync::Arc;

use crate::{
    command::{DeliveryFailed, NextTransaction, NextUp, Transaction},
    engine::Engine,
    error::Result,
    view::federation::EphemeralEdus,
};

/// The random part of the id of a transaction that is not repeated: 96 bits.
const ID_CHARS: usize = 16;
/// How long a server is left alone when the store failed, in milliseconds: as long as after a first failure to reach it.
pub const STORE_FAILED_WAIT_MS: u64 = 10_000;

/// What is to be done next.
pub enum Next {
    /// Write this, and tell by [`Delivery::begun`].
    Begin(NextTransaction),
    /// Send this, and tell by [`Delivery::sent`].
    Send(Transaction),
    /// Write this, and tell by [`Delivery::failed`].
    Fail(DeliveryFailed),
    /// Nothing more, until then, in milliseconds since the epoch. To be told by
    /// [`crate::view::federation::LeaveDestination`], as after every failure of the store.
    Leave(u64),
}

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The server has taken it, or refuses it for good.
    Done,
    /// The same, but it was slow, or had its place for long: it waits for its turn before it is sent more. That is begun then, so
    /// that it goes out as soon as it is begun, with what is soon stale and has come meanwhile.
    DoneForNow,
    /// It may not have come there, or could not be taken.
    Failed {
        /// For how long the server asked to be left alone, in milliseconds.
        retry_after_ms: u64,
        /// Whether it is its limit on requests that says so.
        is_rate_limit: bool,
    },
}

enum State {
    Begin { acknowledged: Option<String>, took_brief: bool, is_over: bool },
    Send { transaction: Transaction, is_kept: bool },
    Fail { retry_after_ms: u64, is_rate_limit: bool },
    Leave { due_ms: u64 },
}

/// What is for one server, on its way.
pub struct Delivery {
    destination: Arc<str>,
    state: State,
}

impl Delivery {
    /// Begins where the last one ended. There may be one at a time for each server.
    pub fn new(destination: Arc<str>) -> Self {
        Self { destination, state: State::Begin { acknowledged: None, took_brief: false, is_over: false } }
    }

    /// The server.
    pub fn destination(&self) -> &Arc<str> {
        &self.destination
    }

    /// What is to be done next; the same again until it is told what came of it.
    pub fn next_step(&self) -> Next {
        let destination = self.destination.to_string();
        match &self.state {
            State::Begin { acknowledged, took_brief, is_over } => {
                let (acknowledged, took_brief, begins) = (acknowledged.clone(), *took_brief, !is_over);
                Next::Begin(NextTransaction { destination, acknowledged, took_brief, begins })
            }
            State::Send { transaction, .. } => Next::Send(transaction.clone()),
            State::Fail { retry_after_ms, is_rate_limit } => {
                let (retry_after_ms, is_rate_limit) = (*retry_after_ms, *is_rate_limit);
                Next::Fail(DeliveryFailed { destination, retry_after_ms, is_rate_limit })
            }
            State::Leave { due_ms } => Next::Leave(*due_ms),
        }
    }

    /// What is next for the server; what is soon stale is added here.
    ///
    /// Errors: those of the store.
    pub fn begun(&mut self, engine: &Engine, next: NextUp) -> Result<()> {
        let is_over = matches!(self.state, State::Begin { is_over: true, .. });
        let is_all = next.transaction.is_none() && !is_over;
        // The server may have taken it without our knowing, and would pass over what is new in it.
        let has = next.transaction.as_ref().map_or(0, |transaction| transaction.edus.len());
        let takes_more = !next.is_repeated && !is_over;
        let limit = if takes_more { Transaction::EDUS_MAX.saturating_sub(has) } else { 0 };
        let (destination, delivered_to) = (&*self.destination, next.delivered_to);
        let edus = engine.read(&EphemeralEdus { destination, delivered_to, is_all, limit })?;
        self.state = match next.transaction {
            _ if is_over => State::Leave { due_ms: engine.now_ms() },
            None if edus.is_empty() => State::Leave { due_ms: 0 },
            kept => {
                let is_kept = kept.is_some();
                let mut transaction = kept.unwrap_or_else(|| Transaction {
                    id: engine.random_text(ID_CHARS),
                    origin_server_ts: engine.now_ms(),
                    pdus: Vec::new(),
                    edus: Vec::new(),
                });
                transaction.edus.extend(edus);
                State::Send { transaction, is_kept }
            }
        };
        Ok(())
    }

    /// What came of sending.
    pub fn sent(&mut self, sent: Sent) {
        let is_over = sent == Sent::DoneForNow;
        self.state = match (sent, &self.state) {
            (Sent::Failed { retry_after_ms, is_rate_limit }, _) => {
                State::Fail { retry_after_ms, is_rate_limit }
            }
            (_, State::Send { transaction, is_kept }) => {
                let acknowledged = is_kept.then(|| transaction.id.clone());
                State::Begin { acknowledged, took_brief: !is_kept, is_over }
            }
            _ => State::Begin { acknowledged: None, took_brief: false, is_over },
        };
    }

    /// The failure is noted; `retry_ms` is what the command answered.
    pub fn failed(&mut self, retry_ms: u64) {
        self.state = State::Leave { due_ms: retry_ms };
    }
}

#[cfg(test)]
mod tests;
