//! The backend in memory: for tests, simulation and embedders who keep nothing.
//!
//! Strict where a distributed engine would be: it refuses what is over FoundationDB's limits, so that nothing above the
//! seam comes to depend on more. Its faults come from a seed: a commit can fail, having written nothing.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Backend, Change, Direction, Durability, Family, Read, Visit};
use crate::store::StorageError;

/// FoundationDB refuses values over 100,000 bytes; a Matrix event is at most 65,536.
const VALUE_BYTES_MAX: usize = 100_000;
/// FoundationDB refuses keys over 10,000 bytes.
const KEY_BYTES_MAX: usize = 10_000;
/// FoundationDB refuses transactions over 10 MB.
const BATCH_BYTES_MAX: usize = 10_000_000;

/// A map that is cheap to take a snapshot of: snapshots share it until the next commit copies what they still hold.
type Tables = BTreeMap<(Family, Vec<u8>), Bytes>;

/// An ordered map in memory with snapshots.
pub struct Memory {
    tables: RwLock<Arc<Tables>>,
    faults: Faults,
}

/// How often commits fail, decided by a seed.
#[derive(Debug, Default)]
struct Faults {
    /// One commit in this many fails; zero for none.
    one_in: u64,
    state: AtomicU64,
}

impl Faults {
    /// A SplitMix64 step decides whether the next commit fails.
    fn strike(&self) -> bool {
        if self.one_in == 0 {
            return false;
        }
        let seed = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)).is_multiple_of(self.one_in)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store that never fails.
    pub fn new() -> Self {
        Self { tables: RwLock::default(), faults: Faults::default() }
    }

    /// An empty store of which one commit in `one_in` fails, as `seed` decides.
    pub fn with_faults(seed: u64, one_in: u64) -> Self {
        Self { tables: RwLock::default(), faults: Faults { one_in, state: AtomicU64::new(seed) } }
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

fn scan_tables(
    tables: &Tables,
    family: Family,
    start: &[u8],
    end: Option<&[u8]>,
    direction: Direction,
    visit: Visit<'_>,
) {
    if end.is_some_and(|end| end <= start) {
        return;
    }
    let from = Bound::Included((family, start.to_vec()));
    let to = end.map_or(Bound::Unbounded, |end| Bound::Excluded((family, end.to_vec())));
    let rows = tables.range((from, to)).take_while(|((found, _), _)| *found == family);
    let mut step = |((_, key), value): (&(Family, Vec<u8>), &Bytes)| visit(key, value);
    match direction {
        Direction::Forward => {
            for row in rows {
                if !step(row) {
                    return;
                }
            }
        }
        Direction::Backward => {
            for row in rows.collect::<Vec<_>>().into_iter().rev() {
                if !step(row) {
                    return;
                }
            }
        }
    }
}

impl Read for Tables {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(BTreeMap::get(self, &(family, key.to_vec())).cloned())
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StorageError> {
        keys.iter().map(|key| Read::get(self, family, key)).collect()
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        scan_tables(self, family, start, end, direction, visit);
        Ok(())
    }
}

impl Read for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Read::get(&**self.tables.read(), family, key)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.tables.read().get_many(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        let tables = self.tables.read().clone();
        scan_tables(&tables, family, start, end, direction, visit);
        Ok(())
    }
}

impl Backend for Memory {
    fn snapshot(&self) -> Arc<dyn Read> {
        self.tables.read().clone()
    }

    fn commit(&self, changes: Vec<Change>, _: Durability) -> Result<(), StorageError> {
        check_limits(&changes)?;
        if self.faults.strike() {
            return Err(StorageError::Io("a fault that the seed asked for".into()));
        }
        let mut tables = self.tables.write();
        let tables = Arc::make_mut(&mut tables);
        for change in changes {
            match change {
                Change::Put(family, key, value) => {
                    tables.insert((family, key), value);
                }
                Change::Delete(family, key) => {
                    tables.remove(&(family, key));
                }
                Change::DeleteRange(family, start, end) => {
                    tables.retain(|(found, key), _| *found != family || *key < start || *key >= end);
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("entries", self.tables.read().len() as u64)]
    }
}
