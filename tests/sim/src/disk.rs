//! The disk of a simulated server: the memory backend, on which the next commits can be made to fail or be the last.
//!
//! Invariant: what a commit wrote before a crash is there after it; what it did not write is not. A server that has
//! crashed writes nothing more until it is started again.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use warren_engine::{
    Durability, StorageError,
    store::{Backend, Change, Direction, Family, Memory, Read},
};

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and writes nothing; the server goes on.
    Refused,
    /// It is written, but seems to fail; the server goes on.
    Doubtful,
    /// The server dies before it is written.
    CrashBefore,
    /// The server dies when it is written and nobody has been told.
    CrashAfter,
}

/// A disk with faults.
pub struct Disk {
    memory: Mutex<Arc<Memory>>,
    state: Mutex<State>,
    /// Everything committed, kept only by a disk that is to forget some of it.
    log: Option<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    commits: Vec<Vec<Change>>,
    /// How many of them cannot be forgotten.
    settled: usize,
}

#[derive(Default)]
struct State {
    commits: u64,
    /// What happens to the commit after so many more.
    armed: Option<(u8, Fault)>,
    crashed: bool,
}

impl Disk {
    /// An empty disk. One that `forgets` loses its last commit in a crash: a fault that must not be, for proving that it
    /// would be found.
    pub fn new(forgets: bool) -> Self {
        Self {
            memory: Mutex::new(Arc::new(Memory::new())),
            state: Mutex::default(),
            log: forgets.then(Mutex::default),
        }
    }

    /// Lets `fault` happen to a commit, after `skipped` that succeed.
    pub fn arm(&self, skipped: u8, fault: Fault) {
        self.state.lock().armed = Some((skipped, fault));
    }

    /// Takes back a fault that has not happened.
    pub fn disarm(&self) {
        self.state.lock().armed = None;
    }

    /// Whether the server has died.
    pub fn has_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// How many commits were made.
    pub fn commits(&self) -> u64 {
        self.state.lock().commits
    }

    /// Makes sure of what was written so far, also on a disk that forgets.
    pub fn settle(&self) {
        if let Some(log) = &self.log {
            let mut log = log.lock();
            log.settled = log.commits.len();
        }
    }

    /// What a start after a crash finds.
    pub fn restart(&self) {
        let mut state = self.state.lock();
        (state.crashed, state.armed) = (false, None);
        if let Some(log) = &self.log {
            let mut log = log.lock();
            if log.commits.len() > log.settled {
                log.commits.pop();
            }
            let memory = Memory::new();
            for changes in &log.commits {
                memory.commit(changes, Durability::Commit).expect("it was committed before");
            }
            *self.memory.lock() = Arc::new(memory);
        }
    }

    fn memory(&self) -> Arc<Memory> {
        self.memory.lock().clone()
    }

    /// What is to happen to the next commit.
    fn strike(&self) -> Option<Fault> {
        let mut state = self.state.lock();
        state.commits += 1;
        match state.armed {
            Some((0, fault)) => {
                state.armed = None;
                state.crashed = matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
                Some(fault)
            }
            Some((skipped, fault)) => {
                state.armed = Some((skipped - 1, fault));
                None
            }
            None => None,
        }
    }
}

fn failed(what: &str) -> StorageError {
    StorageError::Io(what.to_owned())
}

impl Read for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.memory().get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.memory().get_many(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.memory().scan(family, start, end, direction, visit)
    }
}

impl Backend for Disk {
    fn snapshot(&self) -> Arc<dyn Read> {
        self.memory().snapshot()
    }

    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StorageError> {
        if self.has_crashed() {
            return Err(failed("the server has crashed"));
        }
        let fault = self.strike();
        match fault {
            Some(Fault::Refused) => return Err(failed("the disk refuses a write")),
            Some(Fault::CrashBefore) => return Err(failed("the server crashes before a write")),
            Some(Fault::CrashAfter | Fault::Doubtful) | None => {}
        }
        if let Some(log) = &self.log {
            log.lock().commits.push(changes.to_vec());
        }
        self.memory().commit(changes, durability)?;
        match fault {
            Some(_) => Err(failed("a write is done, but nobody is told")),
            None => Ok(()),
        }
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.memory().flush()
    }

    fn compact(&self, family: Family, start: &[u8], end: Option<&[u8]>) -> Result<(), StorageError> {
        self.memory().compact(family, start, end)
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        self.memory().figures()
    }
}
