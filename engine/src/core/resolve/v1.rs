//! State resolution version 1, in the passes of "State resolution" of room version 1.
//!
//! An entry is in conflict here only if states have *different* events for it; where one state has none, the others' event
//! is taken. Each conflicted entry is resolved by itself, judged by what was resolved in the passes before: so neither
//! the order of the entries nor that of the states decides. Where no event passes, the entry is left out.

use std::cmp::Ordering;
use std::sync::Arc;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN, digest};

use super::conflict::Conflicts;
use super::events::Place;
use super::iterative::Resolving;
use super::{Change, ResolveError, StateGraph};
use crate::core::num::StateKeyId;
use crate::core::version::RoomVersion;

/// The types that the passes are about, in their order.
const PASSES: [&str; 3] = ["m.room.power_levels", "m.room.join_rules", "m.room.member"];

/// A conflicted entry with its events, each once, the smallest depth first.
struct Conflict {
    key: StateKeyId,
    kind: Arc<str>,
    events: Vec<Place>,
}

/// Resolves with version 1.
pub(super) fn resolve<G: StateGraph>(
    version: &'static RoomVersion,
    graph: &G,
    conflicts: &Conflicts,
) -> Result<Vec<Change>, ResolveError<G::Error>> {
    let mut state = Resolving::new(version, graph, conflicts, true)?;
    let conflicts_left = split(&mut state, conflicts)?;
    for pass in PASSES {
        let mut resolved = Vec::new();
        for conflict in conflicts_left.iter().filter(|conflict| *conflict.kind == *pass) {
            resolved.extend(last_allowed(&mut state, conflict)?.map(|place| (conflict.key, place)));
        }
        for (key, place) in resolved {
            state.set(key, place);
        }
    }
    // No other events affect the authorisation rules.
    let mut resolved = Vec::new();
    for conflict in conflicts_left.iter().filter(|conflict| !PASSES.contains(&&*conflict.kind)) {
        for &place in conflict.events.iter().rev() {
            if state.allows(place)? {
                resolved.push((conflict.key, place));
                break;
            }
        }
    }
    for (key, place) in resolved {
        state.set(key, place);
    }
    state.changes(conflicts)
}

/// Sets the entries that have one event wherever they have any, and returns the others.
fn split<G: StateGraph>(
    state: &mut Resolving<'_, G>,
    conflicts: &Conflicts,
) -> Result<Vec<Conflict>, ResolveError<G::Error>> {
    let mut left = Vec::new();
    for (key, row) in conflicts.rows() {
        let mut events: Vec<Place> = Vec::new();
        for event in row.iter().flatten() {
            let place = state.events.place(*event)?;
            if !events.contains(&place) {
                events.push(place);
            }
        }
        let Some(&first) = events.first() else { continue };
        if events.len() == 1 {
            state.set(key, first);
            continue;
        }
        let kind = state.events.pdu(first).kind.clone();
        sort(state, &mut events);
        left.push(Conflict { key, kind, events });
    }
    Ok(left)
}

/// Sorts by ascending depth, as the events claim it, then descending SHA-1 of the event id.
fn sort<G: StateGraph>(state: &Resolving<'_, G>, events: &mut Vec<Place>) {
    let mut rows: Vec<(u64, [u8; SHA1_OUTPUT_LEN], Place)> = Vec::with_capacity(events.len());
    for &place in events.iter() {
        let pdu = state.events.pdu(place);
        let mut hash = [0; SHA1_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, pdu.event_id.as_bytes()).as_ref());
        rows.push((pdu.depth, hash, place));
    }
    rows.sort_unstable_by(|one, other| match one.0.cmp(&other.0) {
        Ordering::Equal => other.1.cmp(&one.1),
        order => order,
    });
    events.clear();
    events.extend(rows.into_iter().map(|row| row.2));
}

/// The first event, or the last of those that follow it for as long as each is allowed while the one before is the entry.
/// The state is left as it was.
fn last_allowed<G: StateGraph>(
    state: &mut Resolving<'_, G>,
    conflict: &Conflict,
) -> Result<Option<Place>, ResolveError<G::Error>> {
    let Some((&first, others)) = conflict.events.split_first() else { return Ok(None) };
    let mut last = first;
    for &next in others {
        state.set(conflict.key, last);
        if !state.allows(next)? {
            break;
        }
        last = next;
    }
    state.clear(conflict.key);
    Ok(Some(last))
}
