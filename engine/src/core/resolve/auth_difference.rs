//! The auth difference: events that are in the auth chains of some of the states, but not of all.
//!
//! With U for the entries that all states share and K_i for the conflicted entries of state i, the full auth chain of
//! state i is chain(U) ∪ chain(K_i). So the difference is what is in some chain(K_i), not in all, and not in chain(U).
//! The chains of the K_i are walked together, by descending auth depth, each event with a bit for each state that reaches
//! it; an event is looked at after all that reach it. The walk ends when all that is left is reached by all.
//!
//! Whether an event is in chain(U) is asked without walking U: upwards, by the events that cite it ([`Cover`]), until one
//! is a shared entry. What is in chain(U) is not walked further, for so are all its auth events. This makes the cost
//! follow the difference and not the chains or the state. An event that no shared entry rests on costs a look at all that
//! rest on it: replaced state, which is little, but is the worst case: the events and edges above it, each once.
//! Without an index of citations the walk starts from the auth events of all of U too, which costs O(state).

use std::collections::{BinaryHeap, VecDeque};
use std::ops::ControlFlow;

use super::conflict::Conflicts;
use super::events::{Events, Place};
use super::hash::{NumMap, NumSet};
use super::{ResolveError, StateGraph};
use crate::core::num::{EventNum, NodeId, StateKeyId};

/// Most states that one walk can tell apart.
const STATES_MAX: usize = u64::BITS as usize;

/// The auth difference of the states in conflict.
pub(super) fn auth_difference<G: StateGraph>(
    events: &mut Events<'_, G>,
    conflicts: &Conflicts,
) -> Result<Vec<Place>, ResolveError<G::Error>> {
    let mut cover = Cover::new(conflicts);
    let mut difference = Vec::new();
    // An event is in some but not in all chains exactly if some state differs from the first one in having it, so
    // more states than a walk can tell apart are taken in groups that all have the first.
    let mut from = 1;
    while from < conflicts.count {
        let to = conflicts.count.min(from + STATES_MAX - 1);
        difference.append(&mut walk(events, conflicts, from..to, &mut cover)?);
        from = to;
    }
    if conflicts.count > STATES_MAX {
        difference.sort_unstable();
        difference.dedup();
    }
    Ok(difference)
}

/// The difference between the first state and those of `group`.
fn walk<G: StateGraph>(
    events: &mut Events<'_, G>,
    conflicts: &Conflicts,
    group: std::ops::Range<usize>,
    cover: &mut Cover,
) -> Result<Vec<Place>, ResolveError<G::Error>> {
    // The first state has bit 0, and the group the bits above.
    let all = u64::MAX >> (u64::BITS as usize - 1 - group.len());
    let mut front = Front { all, reached: Vec::new(), queue: BinaryHeap::new(), partial: 0 };
    for (_, row) in conflicts.rows() {
        let own = row.first().into_iter().chain(row.get(group.clone()).unwrap_or_default());
        for (bit, event) in own.enumerate() {
            if let Some(event) = event {
                let place = events.place(*event)?;
                front.reach_auth(events, place, 1 << bit)?;
            }
        }
    }
    let mut difference = Vec::new();
    let mut is_indexed = None;
    while front.partial > 0 {
        if is_indexed.is_none() {
            let indexed =
                front.queue.peek().map(|next| has_index(events, events.facts(next.1).num())).transpose()?;
            if indexed == Some(false) {
                front.reach_shared(events, conflicts, cover)?;
            }
            is_indexed = indexed;
        }
        let Some((_, place)) = front.queue.pop() else { break };
        let bits = front.bits(place);
        let is_partial = bits != all;
        if is_partial {
            front.partial -= 1;
        }
        if is_indexed == Some(true) && cover.has(events, place)? {
            continue;
        }
        if is_partial {
            difference.push(place);
        }
        front.reach_auth(events, place, bits)?;
    }
    Ok(difference)
}

/// Whether the graph keeps an index of citations.
fn has_index<G: StateGraph>(events: &Events<'_, G>, event: EventNum) -> Result<bool, ResolveError<G::Error>> {
    Ok(events.graph.citations(event, &mut |_| ControlFlow::Break(()))?)
}

/// The events that a walk has reached and not yet looked at.
struct Front {
    all: u64,
    /// By place, the states that reach the event; zero is not reached.
    reached: Vec<u64>,
    /// The deepest first.
    queue: BinaryHeap<(u32, Place)>,
    /// How many in the queue are not reached by all.
    partial: usize,
}

impl Front {
    fn bits(&self, place: Place) -> u64 {
        self.reached.get(place).copied().unwrap_or(0)
    }

    /// The auth events of an event are reached by the states in `bits`.
    fn reach_auth<G: StateGraph>(
        &mut self,
        events: &mut Events<'_, G>,
        place: Place,
        bits: u64,
    ) -> Result<(), ResolveError<G::Error>> {
        events.load_auth(place)?;
        for &auth in events.auth(place) {
            self.reach(events, auth, bits);
        }
        Ok(())
    }

    fn reach<G: StateGraph>(&mut self, events: &Events<'_, G>, place: Place, bits: u64) {
        if self.reached.len() <= place {
            self.reached.resize(events.len().max(place + 1), 0);
        }
        let Some(reached) = self.reached.get_mut(place) else { return };
        let before = *reached;
        *reached |= bits;
        let after = *reached;
        if before == 0 {
            self.queue.push((events.brief(place).auth_depth, place));
            self.partial += usize::from(after != self.all);
        } else if before != self.all && after == self.all {
            self.partial -= 1;
        }
    }

    /// The auth events of all shared entries are reached by all. O(state).
    fn reach_shared<G: StateGraph>(
        &mut self,
        events: &mut Events<'_, G>,
        conflicts: &Conflicts,
        cover: &Cover,
    ) -> Result<(), ResolveError<G::Error>> {
        for (key, _, event) in events.graph.difference(NodeId::default(), conflicts.base)? {
            let Some(event) = event.filter(|_| !cover.conflicted.contains(&key)) else { continue };
            let facts = events.graph.facts(event)?;
            for &auth in facts.auth() {
                let auth = events.place(auth)?;
                self.reach(events, auth, self.all);
            }
        }
        Ok(())
    }
}

/// Knows of events whether they are in the auth chain of a shared entry.
struct Cover {
    base: NodeId,
    conflicted: NumSet<StateKeyId>,
    known: NumMap<EventNum, bool>,
}

impl Cover {
    fn new(conflicts: &Conflicts) -> Cover {
        let conflicted = conflicts.rows().map(|(key, _)| key).collect();
        Cover { base: conflicts.base, conflicted, known: NumMap::default() }
    }

    /// Whether the event at `place` is in the auth chain of a shared entry.
    fn has<G: StateGraph>(
        &mut self,
        events: &Events<'_, G>,
        place: Place,
    ) -> Result<bool, ResolveError<G::Error>> {
        let event = events.facts(place).num();
        let mut seen = NumSet::from_iter([event]);
        let mut pending = VecDeque::from([event]);
        let mut found = false;
        while let Some(next) = pending.pop_front() {
            match self.known.get(&next) {
                Some(true) => found = true,
                Some(false) => continue,
                None => found = self.is_cited(events, next, &mut seen, &mut pending)?,
            }
            if found {
                break;
            }
        }
        if found {
            self.known.insert(event, true);
        } else {
            // Nothing above the event is shared, so neither is it above any of these.
            self.known.extend(seen.into_iter().map(|event| (event, false)));
        }
        Ok(found)
    }

    /// Whether a shared entry cites `event` itself; what else cites it and was not seen is added to `pending`.
    fn is_cited<G: StateGraph>(
        &self,
        events: &Events<'_, G>,
        event: EventNum,
        seen: &mut NumSet<EventNum>,
        pending: &mut VecDeque<EventNum>,
    ) -> Result<bool, ResolveError<G::Error>> {
        let mut outcome = Ok(false);
        events.graph.citations(event, &mut |citing| {
            if seen.insert(citing) {
                outcome = self.is_shared(events, citing);
                pending.push_back(citing);
            }
            if matches!(outcome, Ok(false)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome
    }

    /// Whether an event is an entry of all states.
    fn is_shared<G: StateGraph>(
        &self,
        events: &Events<'_, G>,
        event: EventNum,
    ) -> Result<bool, ResolveError<G::Error>> {
        let key = match events.known(event) {
            Some(place) => events.brief(place).key,
            None => events.graph.facts(event)?.key(),
        };
        let Some(key) = key.filter(|key| !self.conflicted.contains(key)) else { return Ok(false) };
        Ok(events.graph.get(self.base, key)? == Some(event))
    }
}
