//! Servers bring each other what there is: the outbox and its deliveries over a network with faults.
//!
//! What is sent to whom, in which transaction, and when again, the engine decides; here is the wire. A server has one
//! delivery under way to each other one; copies that the network made of its transactions come when they come.

use std::sync::Arc;

use warren_engine::{
    Error,
    command::{HeardFromServer, Transaction},
    delivery::{Delivery, Next, STORE_FAILED_WAIT_MS, Sent},
    view::federation::{DestinationOf, Due, DueDestinations, LeaveDestination, MakeDue, MayBeBack},
};

use super::{Breach, Plant, SERVER_NAMES, Stopped, World, take_in::Received};
use crate::plan::Fate;

/// Destinations that are taken up at once: all there are.
const DESTINATIONS_MAX: usize = 100;
/// Who could not be reached for this long, in milliseconds, is sent only what was last in each room.
const CATCH_UP_AFTER_MS: u64 = 60 * 60 * 1000;

impl World {
    /// The network does something to one transaction from a server to another.
    pub(super) fn carry(&mut self, (from, to): (usize, usize), pick: u8, fate: Fate) -> Result<(), Breach> {
        let copies = self.network.copies.entry((from, to)).or_default();
        if pick > 0 && !copies.is_empty() && self.reaches(from, to) {
            let copies = self.network.copies.entry((from, to)).or_default();
            let index = usize::from(pick - 1) % copies.len();
            let Some(copy) = copies.remove(index) else { return Ok(()) };
            let received = self.receive(from, to, &copy)?;
            self.tell_of(from, to, &copy, &format!("an old copy: {received}"));
            return Ok(());
        }
        self.take_up(from)?;
        let Some(transaction) = self.next_transaction(from, to)? else { return Ok(()) };
        if self.plant == Plant::MuteGuest
            && transaction.edus.is_empty()
            && self.ledger.is_told_again(from, to, &self.event_ids(&transaction))
        {
            self.tell_of(from, to, &transaction, "which is not told again");
            return self.sent(from, to, true);
        }
        let is_cut = !self.reaches(from, to);
        if is_cut || fate == Fate::IsLost {
            let how = if is_cut { "which cannot get through" } else { "lost on the way" };
            self.tell_of(from, to, &transaction, how);
            return self.sent(from, to, self.plant == Plant::TrustfulSender);
        }
        match fate {
            Fate::Waits => {
                self.tell_of(from, to, &transaction, "still on its way");
                return Ok(());
            }
            Fate::IsLate => {
                self.keep_copy(from, to, transaction.clone());
                self.tell_of(from, to, &transaction, "which is late and given up");
                return self.sent(from, to, false);
            }
            Fate::ArrivesTwice => self.keep_copy(from, to, transaction.clone()),
            Fate::Arrives | Fate::AnswerIsLost | Fate::IsLost => {}
        }
        let received = self.receive(from, to, &transaction)?;
        let is_told = matches!(received, Received::Answered(_)) && fate != Fate::AnswerIsLost;
        let how = match fate {
            Fate::AnswerIsLost => format!("{received}, the answer is lost"),
            Fate::ArrivesTwice => format!("{received}, to come again"),
            _ => received.to_string(),
        };
        self.tell_of(from, to, &transaction, &how);
        if is_told {
            self.note_taken(from, to, &transaction);
        }
        self.sent(from, to, is_told)
    }

    fn keep_copy(&mut self, from: usize, to: usize, transaction: Transaction) {
        self.network.copies.entry((from, to)).or_default().push_back(transaction);
    }

    /// Begins to deliver to all who are due. Answers when others will be.
    pub(super) fn take_up(&mut self, from: usize) -> Result<Option<u64>, Breach> {
        let server = &self.servers[from];
        let read = || {
            server.engine().read(&DueDestinations { limit: DESTINATIONS_MAX, laggards_max: DESTINATIONS_MAX })
        };
        // The first look after a start only begins to listen.
        let looks = read().and_then(|first: Due| Ok([first, read()?]));
        let looks = looks.map_err(|error| Breach::new("outbox", error))?;
        for destination in looks.iter().flat_map(|due| &due.destinations) {
            let to = SERVER_NAMES.iter().position(|name| **name == **destination);
            let to = to.filter(|to| *to < self.servers.len() && *to != from);
            let to = to.ok_or_else(|| Breach::new("audience", format!("something is for {destination}")))?;
            let before = server.deliveries.lock().insert(to, Delivery::new(destination.clone()));
            if before.is_some() {
                return Err(Breach::new("outbox", format!("two deliveries at once to {destination}")));
            }
        }
        Ok(looks[1].next_ms)
    }

    /// Goes on with a delivery until it has something to send, or nothing more to do.
    pub(super) fn next_transaction(&mut self, from: usize, to: usize) -> Result<Option<Transaction>, Breach> {
        loop {
            let Some(mut delivery) = self.servers[from].deliveries.lock().remove(&to) else {
                return Ok(None);
            };
            let step = match delivery.next_step() {
                Next::Send(transaction) => {
                    self.servers[from].deliveries.lock().insert(to, delivery);
                    self.check_sent(from, to, &transaction)?;
                    return Ok(Some(transaction));
                }
                Next::Leave(due_ms) => {
                    self.leave(from, to, due_ms)?;
                    return Ok(None);
                }
                Next::Begin(next) => {
                    if next.acknowledged.is_some() {
                        self.note_silence(from, to);
                    }
                    let server = &self.servers[from];
                    server
                        .write(next)
                        .and_then(|next| delivery.begun(&server.engine(), next).map_err(Stopped::Failed))
                }
                Next::Fail(failed) => {
                    let server = &self.servers[from];
                    server.write(failed).map(|retry_ms| delivery.failed(retry_ms))
                }
            };
            match step {
                Ok(()) => drop(self.servers[from].deliveries.lock().insert(to, delivery)),
                Err(Stopped::Crashed) => {
                    self.tell(format!("{} crashes while it delivers, and starts again", SERVER_NAMES[from]));
                    self.servers[from].restart()?;
                    return Ok(None);
                }
                Err(Stopped::Failed(Error::Storage(_))) => {
                    self.tell(format!("{} cannot note what it delivers", SERVER_NAMES[from]));
                    let due_ms = self.servers[from].engine().now_ms() + STORE_FAILED_WAIT_MS;
                    self.leave(from, to, due_ms)?;
                    return Ok(None);
                }
                Err(Stopped::Failed(error)) => return Err(Breach::new("outbox", error)),
            }
        }
    }

    fn leave(&self, from: usize, to: usize, due_ms: u64) -> Result<(), Breach> {
        let left = self.servers[from].engine().read(&LeaveDestination {
            destination: SERVER_NAMES[to],
            due_ms,
            was_prompt: None,
        });
        left.map_err(|error| Breach::new("outbox", error))
    }

    /// What came of sending; then the delivery goes on up to its next transaction, which is not sent yet.
    pub(super) fn sent(&mut self, from: usize, to: usize, is_done: bool) -> Result<(), Breach> {
        let sent =
            if is_done { Sent::Done } else { Sent::Failed { retry_after_ms: 0, is_rate_limit: false } };
        // A crash may have ended it.
        if let Some(delivery) = self.servers[from].deliveries.lock().get_mut(&to) {
            delivery.sent(sent);
        }
        self.next_transaction(from, to).map(drop)
    }

    /// Notes whether the server was silent for so long that the other is sent only what is last.
    fn note_silence(&mut self, from: usize, to: usize) {
        let engine = self.servers[from].engine();
        let Ok(status) = engine.read(&DestinationOf(SERVER_NAMES[to])) else { return };
        let since_ms = status.failing_since_ms;
        if since_ms > 0 && since_ms + CATCH_UP_AFTER_MS <= engine.now_ms() {
            self.ledger.catches_up(from, to);
        }
    }

    /// A server hears from another: one that it could not reach is worth another attempt.
    pub(super) fn hear(&self, server: usize, from: usize) -> Result<(), Stopped> {
        let (engine, destination) = (self.servers[server].engine(), SERVER_NAMES[from]);
        if engine.read(&MayBeBack(destination)).map_err(Stopped::Failed)?
            && let Some(due_ms) =
                self.servers[server].write(HeardFromServer { destination: destination.to_owned() })?
        {
            engine.read(&MakeDue { destination, due_ms }).map_err(Stopped::Failed)?;
        }
        Ok(())
    }

    pub(super) fn tell_of(&mut self, from: usize, to: usize, transaction: &Transaction, how: &str) {
        let event_ids = self.event_ids(transaction);
        let mut parts: Vec<String> = event_ids.iter().map(|event_id| self.event_name(event_id)).collect();
        for edu in &transaction.edus {
            let edu: serde_json::Value = serde_json::from_slice(edu).unwrap_or_default();
            parts.push(edu["edu_type"].as_str().unwrap_or("?").to_owned());
        }
        let way = format!("{} → {}", SERVER_NAMES[from], SERVER_NAMES[to]);
        self.tell(format!("{way}: {}, {how}", parts.join(", ")));
    }

    /// Events of a room as a transaction that no outbox made.
    pub(super) fn transaction_of(&mut self, pdus: Vec<(Arc<str>, bytes::Bytes)>) -> Transaction {
        self.messages += 1;
        let id = format!("told-{}", self.messages);
        let pdus = pdus.into_iter().map(|(_, json)| json).collect();
        Transaction { id, origin_server_ts: 0, pdus, edus: Vec::new() }
    }
}
