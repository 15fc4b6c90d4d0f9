//! The auth difference: events that are in the auth chains of some of the states, but not of all.
//!
//! An event of a state counts as in the chain of that state, as deployed servers have it: so what all states share is no
//! difference, whether or not anything else of them rests on it.
//!
//! With U for the entries that all states share and K_i for the conflicted entries of state i, the full auth chain of
//! state i is U ∪ chain(U) ∪ chain(K_i), beside K_i, which is in conflict anyway. So the difference is what is in some chain(K_i),
//! not in all, and not in U ∪ chain(U).
//! The chains of the K_i are walked together, by descending auth depth, each event with a bit for each state that reaches
//! it; an event is looked at after all that reach it. The walk ends when all that is left is reached by all.
//!
//! Whether an event is in U ∪ chain(U) is asked without walking U: whether it is a shared entry, and then upwards, by the state events
//! that cite it ([`Cover`]), until one is. What is in there is not walked further, for so are all its auth events. The create event,
//! which nearly every shared entry cites, has no index. This makes the cost follow the difference and not the chains or
//! the state. An event that no shared entry rests on costs a look at all that
//! rest on it, each once: the difference above it, and what has been replaced since. Where that grows beyond measure, or
//! where there is no index of citations, the walk is begun anew from the auth events of all of U too, which costs O(state).

use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;

use super::conflict::Conflicts;
use super::events::{Events, Place};
use super::facts::Role;
use super::hash::{NumMap, NumSet};
use super::{ResolveError, StateGraph};
use crate::core::num::{EventNum, NodeId, StateKeyId};

/// Most states that one walk can tell apart.
const STATES_MAX: usize = u64::BITS as usize;

/// How many citations a resolution looks at before it reads the state instead: as many as can be looked at while a state of
/// a thousand entries is read.
const CITATIONS_MAX: usize = 10_000;

/// How many more for each event at hand, so that a large difference may take what is in proportion to it.
const CITATIONS_PER_EVENT_MAX: usize = 16;

/// The auth difference of the states in conflict.
pub(super) fn auth_difference<G: StateGraph>(
    events: &mut Events<'_, G>,
    conflicts: &Conflicts,
) -> Result<Vec<Place>, ResolveError<G::Error>> {
    let mut cover = Some(Cover::new(conflicts));
    let mut difference = Vec::new();
    // An event is in some but not in all chains exactly if some state differs from the first one in having it, so
    // more states than a walk can tell apart are taken in groups that all have the first.
    let mut from = 1;
    while from < conflicts.count {
        let to = conflicts.count.min(from + STATES_MAX - 1);
        match walk(events, conflicts, from..to, cover.as_mut())? {
            Some(mut found) => {
                difference.append(&mut found);
                from = to;
            }
            None => cover = None,
        }
    }
    if conflicts.count > STATES_MAX {
        difference.sort_unstable();
        difference.dedup();
    }
    Ok(difference)
}

/// The difference between the first state and those of `group`; `None` if `cover` cannot tell. Without one, the shared
/// entries are walked, too.
fn walk<G: StateGraph>(
    events: &mut Events<'_, G>,
    conflicts: &Conflicts,
    group: std::ops::Range<usize>,
    mut cover: Option<&mut Cover>,
) -> Result<Option<Vec<Place>>, ResolveError<G::Error>> {
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
    if cover.is_none() && front.partial > 0 {
        front.reach_shared(events, conflicts)?;
    }
    let mut difference = Vec::new();
    while front.partial > 0 {
        let Some((_, place)) = front.queue.pop() else { break };
        let bits = front.bits(place);
        let is_partial = bits != all;
        if is_partial {
            front.partial -= 1;
        }
        if let Some(cover) = &mut cover {
            match cover.has(events, place)? {
                Some(true) => continue,
                Some(false) => {}
                None => return Ok(None),
            }
        }
        if is_partial {
            difference.push(place);
        }
        front.reach_auth(events, place, bits)?;
    }
    Ok(Some(difference))
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

    /// All shared entries are reached by all. O(state).
    fn reach_shared<G: StateGraph>(
        &mut self,
        events: &mut Events<'_, G>,
        conflicts: &Conflicts,
    ) -> Result<(), ResolveError<G::Error>> {
        let conflicted = conflicted_keys(conflicts);
        for (key, _, event) in events.graph.difference(NodeId::default(), conflicts.base)? {
            if let Some(event) = event.filter(|_| !conflicted.contains(&key)) {
                let event = events.place(event)?;
                self.reach(events, event, self.all);
            }
        }
        Ok(())
    }
}

fn conflicted_keys(conflicts: &Conflicts) -> NumSet<StateKeyId> {
    conflicts.rows().map(|(key, _)| key).collect()
}

/// The types of the shared entries, of those with an empty state key, that are asked whether they cite the create event: a
/// state that has none of them is that of a room that has hardly begun.
const CREATE_CITING: [&str; 3] = ["m.room.power_levels", "m.room.join_rules", "m.room.history_visibility"];

/// Knows of events whether they are shared entries, or in the auth chain of one.
struct Cover {
    shared: Shared,
    /// Of events that were looked at, whether they are shared entries or in the auth chain of one.
    known: NumMap<EventNum, bool>,
    /// How many citations were looked at.
    looks: usize,
}

impl Cover {
    fn new(conflicts: &Conflicts) -> Cover {
        let shared = Shared { base: conflicts.base, conflicted: conflicted_keys(conflicts) };
        Cover { shared, known: NumMap::default(), looks: 0 }
    }

    /// Whether the event at `place` is a shared entry, or in the auth chain of one; `None` if that cannot be told, or would take
    /// too long.
    fn has<G: StateGraph>(
        &mut self,
        events: &Events<'_, G>,
        place: Place,
    ) -> Result<Option<bool>, ResolveError<G::Error>> {
        let event = events.facts(place).num();
        if self.known.get(&event) == Some(&false) {
            return Ok(Some(false));
        }
        if let Some(key) = events.brief(place).key
            && self.shared.has(events.graph, key, event)?
        {
            return Ok(Some(true));
        }
        if events.brief(place).role == Role::Create {
            return Ok(self.has_create(events, event)?.then_some(true));
        }
        let most = CITATIONS_MAX + CITATIONS_PER_EVENT_MAX * events.len();
        // What is being looked at stands as neither, so that it is looked at once. So it is, if nothing of all that rests
        // on the event is shared; if something is, nothing is known of the others.
        let mut looked_at = vec![event];
        let mut next = 0;
        while let Some(&cited) = looked_at.get(next) {
            next += 1;
            match self.is_cited(events, cited, most, &mut looked_at)? {
                Some(false) => {}
                Some(true) => {
                    for other in looked_at {
                        self.known.remove(&other);
                    }
                    self.known.insert(event, true);
                    return Ok(Some(true));
                }
                None => return Ok(None),
            }
        }
        self.known.insert(event, false);
        Ok(Some(false))
    }

    /// Whether some shared entry is found that cites the create event.
    fn has_create<G: StateGraph>(
        &self,
        events: &Events<'_, G>,
        create: EventNum,
    ) -> Result<bool, ResolveError<G::Error>> {
        for kind in CREATE_CITING {
            if let Some(key) = events.graph.key(kind, "")?
                && let Some(entry) = self.shared.get(events.graph, key)?
                && events.graph.facts(entry)?.auth().contains(&create)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a shared entry, or an event in the auth chain of one, cites `event` itself. What else cites it and was not
    /// looked at is added to `looked_at`.
    fn is_cited<G: StateGraph>(
        &mut self,
        events: &Events<'_, G>,
        event: EventNum,
        most: usize,
        looked_at: &mut Vec<EventNum>,
    ) -> Result<Option<bool>, ResolveError<G::Error>> {
        let Cover { shared, known, looks } = self;
        let mut found = Ok(false);
        let is_indexed = events.graph.citations(event, &mut |citing, key| {
            match known.entry(citing) {
                Entry::Occupied(known) => found = Ok(*known.get()),
                Entry::Vacant(unknown) => {
                    unknown.insert(false);
                    looked_at.push(citing);
                    *looks += 1;
                    found = shared.has(events.graph, key, citing);
                }
            }
            let goes_on = matches!(found, Ok(false)) && *looks <= most;
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let found = found?;
        let is_told = is_indexed && (found || self.looks <= most);
        Ok(is_told.then_some(found))
    }
}

/// The entries that all states share.
struct Shared {
    base: NodeId,
    conflicted: NumSet<StateKeyId>,
}

impl Shared {
    /// Whether `event` is the shared entry `key`.
    fn has<G: StateGraph>(&self, graph: &G, key: StateKeyId, event: EventNum) -> Result<bool, G::Error> {
        Ok(self.get(graph, key)? == Some(event))
    }

    /// The shared entry `key`.
    fn get<G: StateGraph>(&self, graph: &G, key: StateKeyId) -> Result<Option<EventNum>, G::Error> {
        if self.conflicted.contains(&key) { Ok(None) } else { graph.get(self.base, key) }
    }
}
