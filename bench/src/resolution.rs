//! State resolution, ours and `ruma-state-res`'s, in one process, each on its natural input: snapshots as trees and events
//! digested once for us; maps of ids, sets of auth chains and events with their contents as text for the other.
//!
//! Preparing the input is not measured for either. What our side digests of an event and keeps (its power levels) is kept
//! from call to call, as the engine's cache of events keeps it; what the first call takes, which digests, is told beside it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use warren_engine::core::num::{EventNum, NodeId, StateKeyId};
use warren_engine::core::resolve::testing::{Room, Unknown, Workload, found_auth_difference};
use warren_engine::core::resolve::{AuthFacts, Change, ResolveError, StateGraph, resolve};
use warren_engine::core::version::RoomVersion;
use warren_engine::room::StateNode as Node;
use warren_engine::room::state::scan::diff;
use warren_engine::room::state::tree::{self, NodeRead, NodeStore, TreeError};
use warren_fuzz::oracle::{Input, Oracle};

use crate::timing::{in_turns, timed};

/// The room version that is measured: the last that both sides resolve by version 2.
const ROOM_VERSION: &str = "11";

/// A workload whose snapshots are trees.
pub struct Trees {
    room: Room,
    events: Vec<Arc<AuthFacts>>,
    nodes: Nodes,
    sides: [NodeId; 2],
    /// The first side, as the workload has it.
    state: NodeId,
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
        Ok(Trees { events, nodes, sides: [NodeId(first), NodeId(second)], state: left, room })
    }

    /// Resolves the two sides: what changes in the first.
    ///
    /// # Errors
    /// The workload is not whole.
    pub fn resolve(&self) -> Result<Vec<Change>, ResolveError<TreeError>> {
        resolve(self.room.version, self, &self.sides)
    }

    /// The ids of the events in the first state with `changes` made.
    fn resolved(&self, changes: &[Change]) -> BTreeSet<String> {
        let mut state = self.room.state(self.state).clone();
        for (key, event) in changes {
            match event {
                Some(event) => state.insert(*key, *event),
                None => state.remove(key),
            };
        }
        let facts = state.values().filter_map(|event| self.room.event(*event));
        facts.map(|facts| facts.pdu().event_id.to_string()).collect()
    }

    /// The auth difference of the two sides.
    ///
    /// # Errors
    /// The workload is not whole.
    pub fn auth_difference(&self) -> Result<Vec<EventNum>, ResolveError<TreeError>> {
        found_auth_difference(self, &self.sides)
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

    /// The input of one resolution.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Resolves the two sides, once for each input: the ids of the events in their state. `None` if that crate fails.
    pub fn resolve(&self, input: &mut Input) -> Option<impl Iterator<Item = String> + use<>> {
        Some(self.oracle.resolve(&self.room, input)?.into_values().map(|id| id.to_string()))
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

/// What the two sides take.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Seconds that ours takes, the median.
    pub ours: f64,
    /// The same of the other.
    pub theirs: f64,
    /// Seconds of our first call, which digests every event that it meets.
    pub first: f64,
}

/// How long either takes for the fork; `None` if they do not come to the same state.
pub fn compared(kind: Kind, conflicted: usize) -> Option<Compared> {
    let ours = Trees::new(kind.workload(conflicted)?).ok()?;
    let theirs = Ruma::new(kind.workload(conflicted)?)?;
    let mut changes = None;
    let first = timed(|| changes = ours.resolve().ok()).as_secs_f64();
    if ours.resolved(&changes?) != theirs.resolve(&mut theirs.input())?.collect() {
        return None;
    }
    let [ours, theirs] = in_turns([&mut || timed(|| ours.resolve()), &mut || {
        let mut input = theirs.input();
        timed(|| theirs.resolve(&mut input))
    }]);
    Some(Compared { ours, theirs, first })
}

/// How long the auth difference of ten new events takes on auth chains of these lengths, in seconds.
pub fn chains(lengths: [usize; 2]) -> Option<[f64; 2]> {
    let version = RoomVersion::get(ROOM_VERSION)?;
    let [one, other] = lengths.map(|length| Trees::new(Workload::chain(version, length)).ok());
    let (one, other) = (one?, other?);
    if one.auth_difference().ok()?.len() != other.auth_difference().ok()?.len() {
        return None;
    }
    Some(in_turns([&mut || timed(|| one.auth_difference()), &mut || timed(|| other.auth_difference())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_come_to_the_same_state() {
        for kind in [Kind::Joins, Kind::Mixed] {
            let compared = compared(kind, 20).expect("the same state");
            assert!(compared.ours > 0.0 && compared.theirs > 0.0 && compared.first > 0.0);
        }
    }
}
