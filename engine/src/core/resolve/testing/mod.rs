//! Rooms in memory for the tests, fuzz targets and benches of resolution. Nothing else may use it.

mod history;
mod reference;
mod room;
mod workload;

pub use history::History;
pub use reference::{auth_difference, resolve_v1, subgraph};
pub use room::{Room, State, Unknown, pdu};
pub use workload::Workload;

use super::auth_difference::auth_difference as fast_auth_difference;
use super::conflict::Conflicts;
use super::events::Events;
use super::{ResolveError, StateGraph};
use crate::core::num::{EventNum, NodeId};

/// The auth difference of snapshots, as resolution finds it.
///
/// # Errors
/// As [`super::resolve`].
pub fn found_auth_difference<G: StateGraph>(
    graph: &G,
    snapshots: &[NodeId],
) -> Result<Vec<EventNum>, ResolveError<G::Error>> {
    let Some(conflicts) = Conflicts::between(graph, snapshots)? else { return Ok(Vec::new()) };
    let mut events = Events::new(graph, conflicts.len());
    let found = fast_auth_difference(&mut events, &conflicts)?;
    Ok(found.into_iter().map(|place| events.facts(place).num()).collect())
}
