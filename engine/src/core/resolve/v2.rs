//! State resolution versions 2 and 2.1, in the steps of "Algorithm" of room versions 2 and 12.

use super::auth_difference::auth_difference;
use super::conflict::Conflicts;
use super::events::{Events, Place};
use super::iterative::Resolving;
use super::mainline::mainline_order;
use super::power_order::power_order;
use super::subgraph::subgraph;
use super::{Change, ResolveError, StateGraph};
use crate::core::version::RoomVersion;

/// Resolves with version 2.1 if `from_empty`, else with version 2.
pub(super) fn resolve<G: StateGraph>(
    version: &'static RoomVersion,
    graph: &G,
    conflicts: &Conflicts,
    from_empty: bool,
) -> Result<Vec<Change>, ResolveError<G::Error>> {
    let mut state = Resolving::new(version, graph, conflicts, !from_empty)?;
    let (full, mut is_left) = full_conflicted_set(&mut state.events, conflicts, from_empty)?;
    // 1 and 2.
    let power_events = power_order(&mut state, &full, &is_left)?;
    state.apply(&power_events)?;
    // 3 and 4.
    for &place in &power_events {
        is_left[place] = false;
    }
    let left = full.into_iter().filter(|&place| is_left[place]).collect();
    let power_levels = state.power_levels_entry()?;
    let rest = mainline_order(&mut state.events, power_levels, left)?;
    state.apply(&rest)?;
    // 5.
    state.changes(conflicts)
}

/// A set of events, as a list and as marks by place.
type FullConflictedSet = (Vec<Place>, Vec<bool>);

/// The full conflicted set.
fn full_conflicted_set<G: StateGraph>(
    events: &mut Events<'_, G>,
    conflicts: &Conflicts,
    with_subgraph: bool,
) -> Result<FullConflictedSet, ResolveError<G::Error>> {
    let mut full = Vec::with_capacity(2 * conflicts.len());
    for (_, row) in conflicts.rows() {
        for (index, event) in row.iter().enumerate() {
            // An event is one entry's, so it can be twice in its own row only.
            if let Some(event) = event
                && row.get(..index).is_some_and(|before| !before.contains(&Some(*event)))
            {
                full.push(events.place(*event)?);
            }
        }
    }
    let difference = auth_difference(events, conflicts)?;
    let between = if with_subgraph { subgraph(events, &full)? } else { Vec::new() };
    let mut is_in = vec![false; events.len()];
    for &place in &full {
        is_in[place] = true;
    }
    for place in difference.into_iter().chain(between) {
        if !std::mem::replace(&mut is_in[place], true) {
            full.push(place);
        }
    }
    Ok((full, is_in))
}
