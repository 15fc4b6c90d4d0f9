//! State resolution: the one state of a room that several forks of it have together.
//!
//! Three algorithms behind one call: that of room version 1, version 2 (room versions 2 to 11) and version 2.1 (room
//! version 12, MSC4297). Everything works on the numbers of events and of state keys; what it reads comes through
//! [`StateGraph`]. Invariant: the result is a function of the *set* of snapshots and of the events alone; neither
//! numbers nor the order in which anything is stored or given decide.
//!
//! What it costs: the conflicted set is taken from differences of trees, the auth difference from walks that end where
//! all forks meet (`auth_difference`), the mainline is read as far as an event asks for (`mainline`). Nothing recurses,
//! and no event is expanded twice, so that hostile graphs cost time in proportion to their events and edges.
//!
//! Where the text leaves a choice, what every deployed implementation does is done, since resolution is about arriving
//! at the same state: see `auth_difference` (what is in the auth chain of a state), `power_order` (how that of a power event is followed) and
//! `iterative` (rejected events).
//!
//! Not here: the authorisation rules (`core::auth`, which judges every event here too), storage, memoisation.
//! Source: "State resolution" of room versions 1, 2 and 12.

mod auth_difference;
mod conflict;
mod events;
mod facts;
mod hash;
mod iterative;
mod mainline;
mod power_order;
mod subgraph;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

pub use facts::AuthFacts;

use super::num::{EventNum, NodeId, StateKeyId};
use super::version::{RoomVersion, StateResolution};
use conflict::Conflicts;

/// What changes in one entry of a state: the entry, and the event it is set to (`None`: removed).
pub type Change = (StateKeyId, Option<EventNum>);

/// What resolution reads of a room: its snapshots and the events in them and in their auth chains.
pub trait StateGraph {
    /// What can go wrong in the store.
    type Error;

    /// What resolution looks at of an event; the caller keeps it.
    fn facts(&self, event: EventNum) -> Result<Arc<AuthFacts>, Self::Error>;

    /// The id of (`kind`, `state_key`) if such a pair was ever stored.
    fn key(&self, kind: &str, state_key: &str) -> Result<Option<StateKeyId>, Self::Error>;

    /// An entry of a snapshot.
    fn get(&self, snapshot: NodeId, key: StateKeyId) -> Result<Option<EventNum>, Self::Error>;

    /// What differs between two snapshots, as (entry, before, after), in O(changes). The default [`NodeId`] is the
    /// empty state.
    #[allow(clippy::type_complexity, reason = "a row of three")]
    fn difference(
        &self,
        before: NodeId,
        after: NodeId,
    ) -> Result<Vec<(StateKeyId, Option<EventNum>, Option<EventNum>)>, Self::Error>;

    /// Tells `visit` the state events that have `event` among their auth events, with the entry that each is of the
    /// state, until it breaks; best those first that are entries still. It is not asked for the create event. `false` where
    /// no such index is kept: then a resolution whose auth chains differ reads the whole state once.
    fn citations(
        &self,
        event: EventNum,
        visit: &mut dyn FnMut(EventNum, StateKeyId) -> ControlFlow<()>,
    ) -> Result<bool, Self::Error> {
        let _ = (event, visit);
        Ok(false)
    }
}

/// Why a state could not be resolved: the storage is at fault, never a remote event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum ResolveError<E> {
    /// The store failed.
    #[error(transparent)]
    Graph(#[from] E),
    /// An event's auth depth is not above that of its auth events, so that the graph could be a circle.
    #[error("event {0:?} is not above its auth events")]
    AuthDepth(EventNum),
}

/// Resolves the states `snapshots` of one room, the states after the events that an event follows.
///
/// Returns what differs from `snapshots[0]` in the resolved state, by entry, ascending.
///
/// # Errors
/// The store failed or is damaged.
pub fn resolve<G: StateGraph>(
    version: &'static RoomVersion,
    graph: &G,
    snapshots: &[NodeId],
) -> Result<Vec<Change>, ResolveError<G::Error>> {
    let Some(conflicts) = Conflicts::between(graph, snapshots)? else { return Ok(Vec::new()) };
    let mut changes = match version.state_resolution {
        StateResolution::V1 => v1::resolve(version, graph, &conflicts)?,
        StateResolution::V2 => v2::resolve(version, graph, &conflicts, false)?,
        StateResolution::V2_1 => v2::resolve(version, graph, &conflicts, true)?,
    };
    changes.sort_unstable();
    Ok(changes)
}
