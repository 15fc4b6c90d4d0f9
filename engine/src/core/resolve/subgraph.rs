//! The conflicted state subgraph of version 2.1: what lies on a way along auth events from one conflicted event to another.
//!
//! Only events that can be auth events can end a way, so nothing at or below the lowest of these is looked at.

use super::events::{Events, Place};
use super::facts::Role;
use super::{ResolveError, StateGraph};

/// The events on the ways between any two of `conflicted`, these themselves left out.
pub(super) fn subgraph<G: StateGraph>(
    events: &mut Events<'_, G>,
    conflicted: &[Place],
) -> Result<Vec<Place>, ResolveError<G::Error>> {
    let ends = conflicted.iter().map(|&place| events.brief(place)).filter(|brief| brief.role != Role::Other);
    let Some(lowest) = ends.map(|brief| brief.auth_depth).min() else { return Ok(Vec::new()) };
    let mut marks = vec![Mark::default(); events.len()];
    for &place in conflicted {
        marks[place] = Mark { is_seen: true, leads_to_conflicted: true };
    }
    // All that can lie on a way: the auth chains of the conflicted events, down to the lowest end.
    let mut pending = conflicted.to_vec();
    let mut between = Vec::new();
    while let Some(place) = pending.pop() {
        events.load_auth(place)?;
        marks.resize(events.len(), Mark::default());
        for &auth in events.auth(place) {
            if !marks[auth].is_seen && events.brief(auth).auth_depth > lowest {
                marks[auth].is_seen = true;
                pending.push(auth);
                between.push(auth);
            }
        }
    }
    // Of these, those from which a conflicted event can be reached; the lowest first, so that it is known of auth events.
    between.sort_unstable_by_key(|&place| events.brief(place).auth_depth);
    between.retain(|&place| {
        let leads = events.auth(place).iter().any(|&auth| marks[auth].leads_to_conflicted);
        marks[place].leads_to_conflicted = leads;
        leads
    });
    Ok(between)
}

#[derive(Clone, Copy, Default)]
struct Mark {
    is_seen: bool,
    /// A way from here, of any length, ends at a conflicted event.
    leads_to_conflicted: bool,
}
