//! An engine on the disk that is measured, as a server drives it: what comes is checked, then judged and stored.

use std::collections::VecDeque;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use warren_engine::command::{EnterRoom, ReceivePdus, Received, StoreOutliers, StoreServerKeys};
use warren_engine::core::checked::{self, CheckedPdu, PduCheck};
use warren_engine::core::event::Pdu;
use warren_engine::remote::ServerKey;
use warren_engine::view::CheckPdus;
use warren_engine::{Committer, Durability, Engine, Options, Outcome, Pending};

use super::engine_error;
use super::room::{Room, version};
use crate::error::{Error, Result};

/// The name of the server.
const NAME: &str = "here.example";
/// Bytes for the engine's caches, and for the store: the default memory budget.
const CACHE_BYTES: usize = 256 << 20;
const STORE_BYTES: usize = 256 << 20;
/// Outliers in one command: a batch of a few hundred kilobytes.
const OUTLIERS: usize = 500;
/// Commands of a join that are under way at once: while one is decided, others are on their way to the disk.
const UNDER_WAY_MAX: usize = 2;
/// How long the store is given to settle after rooms were entered.
const SETTLE_MAX: Duration = Duration::from_secs(20);
const SETTLE_STEP: Duration = Duration::from_millis(50);

/// How an engine writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// As a server does: durably, by a committer beside those who decide.
    Durable,
    /// Each command decides, writes and publishes before it returns, without waiting for the disk, whose time is the same
    /// for every room: nothing but the processor's work is left to measure.
    AtOnce,
}

/// See the module.
pub struct Host {
    engine: Engine,
}

/// A room's state before a join, and the join, as they come from the network.
pub struct Entry {
    pub room_id: Arc<str>,
    pub state: Vec<Bytes>,
    pub join: Bytes,
    /// Ids of the state's events.
    pub ids: Vec<Arc<str>>,
}

/// How long it took to enter a room.
pub struct Entered {
    /// To parse and hash the state.
    pub parsing: Duration,
    /// To judge and store it, and to enter.
    pub storing: Duration,
    /// To check it whole, signatures with the rest.
    pub verifying: Duration,
}

impl Entry {
    /// Of events as they were made.
    pub fn new(room_id: Arc<str>, state: Vec<Pdu>, join: Pdu) -> Entry {
        let (ids, state) = state.into_iter().map(|pdu| (pdu.event_id, pdu.json)).unzip();
        Entry { room_id, state, join: join.json, ids }
    }
}

impl Host {
    /// Opens the engine in `folder`, where it knows the keys of all servers of a room.
    pub fn open(folder: &Path, writes: Writes, room: &Room) -> Result<Host> {
        let host = Host::named(NAME, folder, writes)?;
        for server_name in room.servers() {
            host.know(server_name, room.server_key())?;
        }
        Ok(host)
    }

    /// Opens the engine of a server in `folder`.
    pub fn named(server_name: &str, folder: &Path, writes: Writes) -> Result<Host> {
        let mut options = Options::new(server_name);
        options.cache_bytes = Some(CACHE_BYTES);
        if writes == Writes::AtOnce {
            (options.durability, options.committer) = (Durability::Relaxed, Committer::Inline);
        }
        let engine = Engine::open_embedded(folder, STORE_BYTES, options).map_err(engine_error)?;
        Ok(Host { engine })
    }

    /// From now on it knows the key of a server.
    pub fn know(&self, server_name: String, key: ServerKey) -> Result<()> {
        let keys = StoreServerKeys { server_name, keys: vec![key] };
        self.engine.write(keys).wait().map_err(engine_error).map(drop)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Checks events with their signatures, on all processors.
    pub fn check(&self, json: &[Bytes]) -> Result<Vec<Arc<CheckedPdu>>> {
        let parts = in_parallel(json, |part| {
            let version = version()?;
            let checks = self.engine.read(&CheckPdus { version, pdus: part }).map_err(engine_error)?;
            let ready = |check| match check {
                PduCheck::Ready(checked) => Ok(checked),
                other => Err(Error::Implausible(format!("{other:?}"))),
            };
            checks.into_iter().map(ready).collect::<Result<Vec<_>>>()
        });
        Ok(parts?.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// Enters a room. Signatures are verified, and not counted.
    pub fn enter(&self, entry: &Entry) -> Result<Entered> {
        let begun = Instant::now();
        parse(&entry.state)?;
        let parsing = begun.elapsed();
        let begun = Instant::now();
        let state = self.check(&entry.state)?;
        let verifying = begun.elapsed();
        let join = self.check(std::slice::from_ref(&entry.join))?.pop().ok_or(Error::Needs("a join"))?;
        let begun = Instant::now();
        self.store(&entry.room_id, &state)?;
        let enter = EnterRoom {
            room_id: entry.room_id.to_string(),
            version: version()?,
            join,
            untold: Vec::new(),
            state: entry.ids.clone(),
            partial: None,
        };
        let (outcome, _) = self.engine.write(enter).wait().map_err(engine_error)?;
        if outcome != Outcome::Accepted {
            return Err(Error::Implausible(format!("the join: {outcome:?}")));
        }
        Ok(Entered { parsing, storing: begun.elapsed(), verifying })
    }

    /// Stores the events of a state as outliers.
    fn store(&self, room_id: &str, state: &[Arc<CheckedPdu>]) -> Result<()> {
        let stored = |pending: Pending<Received>| {
            let received = pending.wait().map_err(engine_error)?;
            let mut refused =
                received.outcomes.into_iter().filter(|(_, outcome)| *outcome != Outcome::Stored);
            refused.next().map_or(Ok(()), |refused| Err(Error::Implausible(format!("{refused:?}"))))
        };
        let mut under_way = VecDeque::new();
        for pdus in state.chunks(OUTLIERS) {
            let (room_id, pdus) = (room_id.to_owned(), pdus.to_vec());
            under_way.push_back(self.engine.write(StoreOutliers { room_id, version: version()?, pdus }));
            if under_way.len() > UNDER_WAY_MAX
                && let Some(first) = under_way.pop_front()
            {
                stored(first)?;
            }
        }
        under_way.into_iter().try_for_each(stored)
    }

    /// Takes in events that come together; each is to be accepted. How long that took.
    pub fn receive(&self, room_id: &str, pdus: &[Arc<CheckedPdu>]) -> Result<Duration> {
        let command =
            ReceivePdus { room_id: room_id.to_owned(), pdus: pdus.to_vec(), ..ReceivePdus::default() };
        let begun = Instant::now();
        let received = self.engine.write(command).wait().map_err(engine_error)?;
        let taken = begun.elapsed();
        if received.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Accepted) {
            return Ok(taken);
        }
        Err(Error::Implausible(format!("{:?}", received.outcomes)))
    }

    /// One of the engine's figures.
    pub fn figure(&self, name: &str) -> u64 {
        let figures = self.engine.figures();
        figures.into_iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| value)
    }

    /// Waits until the store has nothing left to tidy up.
    pub fn settle(&self) {
        let begun = Instant::now();
        while begun.elapsed() < SETTLE_MAX {
            std::thread::sleep(SETTLE_STEP);
            if self.figure("running_compactions") == 0 {
                return;
            }
        }
    }
}

/// Parses events and checks their hashes, on all processors.
fn parse(json: &[Bytes]) -> Result<()> {
    let parts = in_parallel(json, |part| {
        let version = version()?;
        part.iter().try_for_each(|json| checked::parse(version, json).map(drop).map_err(engine_error))
    });
    parts?.into_iter().collect()
}

/// Does something with a part of the events on each processor.
fn in_parallel<T: Send>(json: &[Bytes], work: impl Fn(&[Bytes]) -> T + Sync) -> Result<Vec<T>> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part = json.len().div_ceil(processors).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = json.chunks(part).map(|part| scope.spawn(|| work(part))).collect();
        let broke_off = |_| Error::Implausible("a thread broke off".to_owned());
        parts.into_iter().map(|part| part.join().map_err(broke_off)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_events_in_their_order() {
        for count in [0, 1, 2, 7, 100] {
            let events: Vec<Bytes> = (0..count).map(|number| Bytes::from(format!("{number}"))).collect();
            let parts = in_parallel(&events, |part| part.to_vec()).expect("all parts");
            assert_eq!(parts.concat(), events);
        }
    }
}
