//! The backend in memory: for tests, simulation and embedders who keep nothing.
//!
//! A snapshot is one shared pointer and a commit makes new nodes only along the paths that it changes, whatever snapshots
//! are held. Strict where a distributed engine would be: it refuses what is over FoundationDB's limits, so that nothing
//! above the seam comes to depend on more. It knows what a machine that loses its power would find again
//! ([`Memory::crash`]), and its faults come from a seed ([`Faults`]).

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use rpds::RedBlackTreeMapSync;

use super::{Backend, Change, Direction, Durability, Family, Read, Visit};
use crate::store::StorageError;

#[cfg(test)]
mod tests;

/// FoundationDB refuses values over 100,000 bytes; a Matrix event is at most 65,536.
const VALUE_BYTES_MAX: usize = 100_000;
/// FoundationDB refuses keys over 10,000 bytes.
const KEY_BYTES_MAX: usize = 10_000;
/// FoundationDB refuses transactions over 10 MB.
const BATCH_BYTES_MAX: usize = 10_000_000;
/// Relaxed commits that a crash may lose; an older one counts as written by the operating system meanwhile, so that what
/// is kept of the past has a bound.
const RELAXED_COMMITS_MAX: usize = 64;

/// How often commits fail, each kind in one of so many commits (zero: never), decided by a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What decides; the same seed brings the same faults for the same commits.
    pub seed: u64,
    /// Fails having written nothing.
    pub refused_one_in: u64,
    /// Fails although it was written: the answer was lost.
    pub unknown_one_in: u64,
    /// Fails and is not there, but may be there after a crash, unless a commit has succeeded since: the record is in a
    /// log that could not be synced.
    pub late_one_in: u64,
}

/// What a commit comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    Refused,
    Unknown,
    Late,
}

impl Faults {
    /// The next number of the seed's sequence (SplitMix64).
    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fate(&mut self) -> Fate {
        let kinds = [
            (self.refused_one_in, Fate::Refused),
            (self.unknown_one_in, Fate::Unknown),
            (self.late_one_in, Fate::Late),
        ];
        for (one_in, fate) in kinds {
            if one_in != 0 && self.next().is_multiple_of(one_in) {
                return fate;
            }
        }
        Fate::Good
    }
}

/// All rows of a moment.
#[derive(Clone, Default)]
struct Tables([RedBlackTreeMapSync<Vec<u8>, Bytes>; Family::ALL.len()]);

impl Tables {
    fn family(&self, family: Family) -> &RedBlackTreeMapSync<Vec<u8>, Bytes> {
        &self.0[family as usize]
    }

    /// The tables with all changes applied; these stay as they are.
    fn with(&self, changes: &[Change]) -> Self {
        let mut tables = self.clone();
        for change in changes {
            match change {
                Change::Put(family, key, value) => {
                    tables.0[*family as usize].insert_mut(key.to_vec(), value.clone());
                }
                Change::Delete(family, key) => {
                    tables.0[*family as usize].remove_mut(&**key);
                }
                Change::DeleteRange(family, start, end) => {
                    let rows = range(tables.family(*family), start, Some(end));
                    let keys: Vec<Vec<u8>> = rows.map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        tables.0[*family as usize].remove_mut(&key);
                    }
                }
            }
        }
        tables
    }
}

fn range<'a>(
    table: &'a RedBlackTreeMapSync<Vec<u8>, Bytes>,
    start: &'a [u8],
    end: Option<&'a [u8]>,
) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a Bytes)> {
    // A range written backwards would panic in the map; it is made an empty one instead.
    let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(start)));
    table.range::<[u8], _>((Bound::Included(start), end))
}

/// What is there, and what would be after a crash.
#[derive(Default)]
struct State {
    now: Arc<Tables>,
    /// What no crash takes away.
    durable: Arc<Tables>,
    /// What was there after each relaxed commit since, the oldest first.
    relaxed: VecDeque<Arc<Tables>>,
    /// What is there if the last commit, which failed, comes true.
    late: Option<Arc<Tables>>,
    faults: Faults,
}

impl State {
    fn apply(&mut self, changes: &[Change], durability: Durability) {
        self.now = Arc::new(self.now.with(changes));
        self.late = None;
        match durability {
            Durability::Commit => self.sync(),
            Durability::Relaxed => {
                self.relaxed.push_back(self.now.clone());
                if self.relaxed.len() > RELAXED_COMMITS_MAX
                    && let Some(oldest) = self.relaxed.pop_front()
                {
                    self.durable = oldest;
                }
            }
        }
    }

    fn sync(&mut self) {
        self.durable = self.now.clone();
        self.relaxed.clear();
    }
}

/// An ordered map in memory with snapshots.
#[derive(Default)]
pub struct Memory {
    state: RwLock<State>,
}

impl Memory {
    /// An empty store that never fails.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose commits fail as `faults` say.
    pub fn with_faults(faults: Faults) -> Self {
        let memory = Self::default();
        memory.set_faults(faults);
        memory
    }

    /// Lets commits fail as `faults` say from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.write().faults = faults;
    }

    /// The machine loses its power: what is durable stays, with as many of the relaxed commits after it, in their order,
    /// as the seed decides; and perhaps the last commit, if it failed without an answer. To be called when the engine
    /// that was open on it has been dropped; another can then be opened.
    pub fn crash(&self) {
        let mut state = self.state.write();
        let survivors = state.faults.next() as usize % (state.relaxed.len() + 1);
        let all_survive = survivors == state.relaxed.len();
        if let Some(last) = survivors.checked_sub(1).and_then(|last| state.relaxed.get(last)) {
            state.now = last.clone();
        } else {
            state.now = state.durable.clone();
        }
        let comes_true = all_survive && state.faults.next().is_multiple_of(2);
        if let Some(late) = state.late.take().filter(|_| comes_true) {
            state.now = late;
        }
        state.sync();
    }

    fn moment(&self) -> Arc<Tables> {
        self.state.read().now.clone()
    }
}

fn check_limits(changes: &[Change]) -> Result<(), StorageError> {
    let mut total = 0;
    for change in changes {
        let (key, value) = match change {
            Change::Put(_, key, value) => (key.len(), value.len()),
            Change::Delete(_, key) => (key.len(), 0),
            Change::DeleteRange(_, start, end) => (start.len().max(end.len()), 0),
        };
        if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
            return Err(StorageError::TooLarge);
        }
        total += key + value;
    }
    if total > BATCH_BYTES_MAX { Err(StorageError::TooLarge) } else { Ok(()) }
}

impl Read for Tables {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.family(family).get(key).cloned())
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StorageError> {
        keys.iter().map(|key| self.get(family, key)).collect()
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        let mut rows = range(self.family(family), start, end);
        // The first row that the visitor does not want to go on from ends the walk.
        match direction {
            Direction::Forward => rows.all(|(key, value)| visit(key, value)),
            Direction::Backward => rows.rev().all(|(key, value)| visit(key, value)),
        };
        Ok(())
    }
}

impl Read for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.moment().get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.moment().get_many(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        self.moment().scan(family, start, end, direction, visit)
    }
}

impl Backend for Memory {
    fn snapshot(&self) -> Arc<dyn Read> {
        self.moment()
    }

    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StorageError> {
        check_limits(changes)?;
        let mut state = self.state.write();
        let fate = state.faults.fate();
        match fate {
            Fate::Good | Fate::Unknown => state.apply(changes, durability),
            // A log that has failed takes no second record.
            Fate::Late if state.late.is_none() => state.late = Some(Arc::new(state.now.with(changes))),
            Fate::Refused | Fate::Late => {}
        }
        if fate == Fate::Good {
            return Ok(());
        }
        Err(StorageError::Io("a fault that the seed asked for".into()))
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.state.write().sync();
        Ok(())
    }

    fn compact(&self, _: Family, _: &[u8], _: Option<&[u8]>) -> Result<(), StorageError> {
        Ok(())
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let entries: usize = self.moment().0.iter().map(|table| table.size()).sum();
        vec![("entries", entries as u64)]
    }
}
