//! State resolution, ours and `ruma-state-res`'s, in one process, each on its natural input: snapshots as trees and events
//! digested once for us; maps of ids, sets of auth chains and events with their contents as text for the other.
//!
//! Preparing the input is not measured for either. What our side digests of an event and keeps (its power levels) is kept
//! from call to call, as the engine's cache of events keeps it.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use warren_engine::core::num::{EventNum, NodeId, StateKeyId};
use warren_engine::core::resolve::testing::{Room, Unknown, Workload, found_auth_difference};
use warren_engine::core::resolve::{AuthFacts, StateGraph, resolve};
use warren_engine::core::version::RoomVersion;
use warren_engine::room::StateNode as Node;
use warren_engine::room::state::scan::diff;
use warren_engine::room::state::tree::{self, NodeRead, NodeStore, TreeError};
use warren_fuzz::oracle::{Input, Oracle};

/// The room version that is measured: the last that both sides resolve by version 2.
const ROOM_VERSION: &str = "11";

/// A figure is the least of so many runs: what disturbs a run only ever adds to it.
const RUNS: usize = 15;
/// A run repeats what it measures until it has taken as long.
const RUN: Duration = Duration::from_millis(4);

/// A workload whose snapshots are trees.
pub struct Trees {
    room: Room,
    events: Vec<Arc<AuthFacts>>,
    nodes: Nodes,
    sides: [NodeId; 2],
}

#[derive(Default)]
struct Nodes(Vec<Arc<Node>>);

impl NodeRead for Nodes {
    type Error = TreeError;

    fn load(&self, id: u64) -> Result<Arc<Node>, TreeError> {
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        index.and_then(|index| self.0.get(index)).cloned().ok_or(TreeError::Order { id })
    }
}

impl NodeStore for Nodes {
    fn store(&mut self, node: Node) -> Result<u64, TreeError> {
        self.0.push(Arc::new(node));
        Ok(self.0.len() as u64)
    }
}

impl Trees {
    /// Builds the first side's tree, and the other's from it, so that they share what is the same.
    ///
    /// # Errors
    /// The workload names what it does not have.
    pub fn new(workload: Workload) -> Result<Trees, TreeError> {
        let Workload { room, sides: [left, right] } = workload;
        let mut nodes = Nodes::default();
        let entries = |snapshot| room.state(snapshot).iter().map(|(key, event)| (key.0, event.0));
        let first = tree::build(&mut nodes, entries(left))?;
        let changed = entries(right).filter(|(key, event)| {
            room.state(left).get(&StateKeyId(*key)).is_none_or(|before| before.0 != *event)
        });
        let removed = room.state(left).keys().filter(|key| !room.state(right).contains_key(key));
        let changes = changed.map(|(key, event)| (key, Some(event))).chain(removed.map(|key| (key.0, None)));
        let second = tree::apply(&mut nodes, first, changes)?;
        let events = room.events().to_vec();
        Ok(Trees { events, nodes, sides: [NodeId(first), NodeId(second)], room })
    }

    /// Resolves the two sides; the number of changes.
    pub fn resolve(&self) -> usize {
        resolve(self.room.version, self, &self.sides).map_or(0, |changes| changes.len())
    }

    /// The size of the auth difference of the two sides.
    pub fn auth_difference(&self) -> usize {
        found_auth_difference(self, &self.sides).map_or(0, |events| events.len())
    }
}

impl StateGraph for Trees {
    type Error = TreeError;

    fn facts(&self, event: EventNum) -> Result<Arc<AuthFacts>, TreeError> {
        // Numbers count from one in these rooms.
        let index = usize::try_from(event.0).ok().and_then(|num| num.checked_sub(1));
        index.and_then(|index| self.events.get(index)).cloned().ok_or(TreeError::Order { id: event.0 })
    }

    fn key(&self, kind: &str, state_key: &str) -> Result<Option<StateKeyId>, TreeError> {
        self.room.key(kind, state_key).map_err(|Unknown(id)| TreeError::Order { id })
    }

    fn get(&self, snapshot: NodeId, key: StateKeyId) -> Result<Option<EventNum>, TreeError> {
        Ok(tree::get(&self.nodes, snapshot.0, key.0)?.map(EventNum))
    }

    fn difference(
        &self,
        before: NodeId,
        after: NodeId,
    ) -> Result<Vec<(StateKeyId, Option<EventNum>, Option<EventNum>)>, TreeError> {
        let rows = diff(&self.nodes, before.0, after.0);
        rows.map(|row| {
            row.map(|row| (StateKeyId(row.key), row.before.map(EventNum), row.after.map(EventNum)))
        })
        .collect()
    }

    fn citations(
        &self,
        event: EventNum,
        visit: &mut dyn FnMut(EventNum, StateKeyId) -> ControlFlow<()>,
    ) -> Result<bool, TreeError> {
        self.room.citations(event, visit).map_err(|Unknown(id)| TreeError::Order { id })
    }
}

/// A workload as `ruma-state-res` takes it.
pub struct Ruma {
    room: Room,
    oracle: Oracle,
    input: Input,
}

impl Ruma {
    /// Translates a workload; `None` if that crate does not take it.
    pub fn new(workload: Workload) -> Option<Ruma> {
        let oracle = Oracle::new(&workload.room)?;
        let input = oracle.input(&workload.room, &workload.sides);
        Some(Ruma { room: workload.room, oracle, input })
    }

    /// The input, which a resolution consumes.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Resolves the two sides; the number of entries.
    pub fn resolve(&self, input: Input) -> usize {
        self.oracle.resolve(&self.room, input).map_or(0, |state| state.len())
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Workload::joins`].
    Joins,
    /// [`Workload::mixed`].
    Mixed,
}

impl Kind {
    /// The workload with so many conflicted events.
    pub fn workload(self, conflicted: usize) -> Option<Workload> {
        let version = RoomVersion::get(ROOM_VERSION)?;
        Some(match self {
            Kind::Joins => Workload::joins(version, conflicted),
            Kind::Mixed => Workload::mixed(version, conflicted),
        })
    }
}

/// How long either side takes for a conflicted event, in seconds: ours, then the other's.
pub fn compared(kind: Kind, conflicted: usize) -> Option<(f64, f64)> {
    let ours = Trees::new(kind.workload(conflicted)?).ok()?;
    let theirs = Ruma::new(kind.workload(conflicted)?)?;
    let ours = least(|| timed(|| ours.resolve()));
    let theirs = least(|| {
        let input = theirs.input();
        timed(|| theirs.resolve(input))
    });
    Some((ours / conflicted as f64, theirs / conflicted as f64))
}

/// How long the resolution of a fork of ten events takes in a room of so many members, in seconds.
pub fn members(members: usize) -> Option<f64> {
    let trees = Trees::new(Workload::members(RoomVersion::get(ROOM_VERSION)?, members)).ok()?;
    Some(least(|| timed(|| trees.resolve())))
}

/// How long the auth difference of ten events on an auth chain of this length takes, in seconds.
pub fn chain(length: usize) -> Option<f64> {
    let trees = Trees::new(Workload::chain(RoomVersion::get(ROOM_VERSION)?, length)).ok()?;
    Some(least(|| timed(|| trees.auth_difference())))
}

fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

/// The least mean of some runs, in seconds; the first call warms up.
fn least(mut once: impl FnMut() -> Duration) -> f64 {
    once();
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let (mut taken, mut count) = (Duration::ZERO, 0.0);
        while taken < RUN {
            taken += once();
            count += 1.0;
        }
        least = least.min(taken.as_secs_f64() / count);
    }
    least
}
