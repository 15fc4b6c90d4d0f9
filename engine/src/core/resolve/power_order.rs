//! The reverse topological power ordering: power events and what they rest on, so that what takes power away comes before
//! what it is taken from.
//!
//! "The events in the auth chain of P which also belong to the full conflicted set" are found by following auth events
//! within that set, as every implementation does. By the letter, a conflicted event behind one that is in everybody's
//! auth chain would belong to them too; a server that took it in would order such rooms as no other server does.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::events::Place;
use super::facts::AuthFacts;
use super::iterative::Resolving;
use super::{ResolveError, StateGraph};
use crate::core::power_levels::Level;

/// The power events of the full conflicted set `events` and what of that set they rest on, in their order; `is_in` tells
/// by place what is in the set.
pub(super) fn power_order<G: StateGraph>(
    state: &mut Resolving<'_, G>,
    events: &[Place],
    is_in: &[bool],
) -> Result<Vec<Place>, ResolveError<G::Error>> {
    let is_power_event = |place: &Place| state.events.brief(*place).is_power_event;
    let mut pending: Vec<Place> = events.iter().copied().filter(is_power_event).collect();
    let mut graph = Graph::new(is_in.len());
    for &place in &pending {
        graph.add(place);
    }
    while let Some(place) = pending.pop() {
        for &auth in state.events.load_auth(place)? {
            if is_in.get(auth) == Some(&true) {
                if graph.add(auth) {
                    pending.push(auth);
                }
                graph.connect(auth, place);
            }
        }
    }
    let mut levels = Vec::with_capacity(graph.nodes.len());
    for &place in &graph.nodes {
        levels.push(state.own_level(place)?);
    }
    Ok(graph.sort(|node, place| {
        let events = &state.events;
        Candidate { level: levels[node], time: events.brief(place).time, facts: events.facts(place), node }
    }))
}

/// A graph whose edges lead from auth events to those that rest on them.
struct Graph {
    nodes: Vec<Place>,
    /// By place, the index of its node plus one; zero for none.
    index: Vec<usize>,
    /// By node, how many of its auth events have not been sorted yet.
    waiting: Vec<usize>,
    /// By node, the last of its edges plus one.
    last: Vec<usize>,
    /// (node that rests on this one, the edge before plus one).
    edges: Vec<(usize, usize)>,
}

impl Graph {
    fn new(places: usize) -> Graph {
        Graph {
            nodes: Vec::new(),
            index: vec![0; places],
            waiting: Vec::new(),
            last: Vec::new(),
            edges: Vec::new(),
        }
    }

    /// Adds a node; false if it was there.
    fn add(&mut self, place: Place) -> bool {
        if self.index[place] != 0 {
            return false;
        }
        self.nodes.push(place);
        self.index[place] = self.nodes.len();
        self.waiting.push(0);
        self.last.push(0);
        true
    }

    /// `place` rests on `auth`; both are nodes.
    fn connect(&mut self, auth: Place, place: Place) {
        let (auth, node) = (self.index[auth] - 1, self.index[place] - 1);
        self.edges.push((node, self.last[auth]));
        self.last[auth] = self.edges.len();
        self.waiting[node] += 1;
    }

    /// Kahn's algorithm, taking the smallest of the candidates at each step.
    fn sort<'a>(mut self, candidate: impl Fn(usize, Place) -> Candidate<'a>) -> Vec<Place> {
        let ready = |node: usize, nodes: &[Place]| Reverse(candidate(node, nodes[node]));
        let first = (0..self.nodes.len()).filter(|&node| self.waiting[node] == 0);
        let mut heap: BinaryHeap<_> = first.map(|node| ready(node, &self.nodes)).collect();
        let mut sorted = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse(Candidate { node, .. })) = heap.pop() {
            sorted.push(self.nodes[node]);
            let mut edge = self.last[node];
            while edge != 0 {
                let (above, before) = self.edges[edge - 1];
                self.waiting[above] -= 1;
                if self.waiting[above] == 0 {
                    heap.push(ready(above, &self.nodes));
                }
                edge = before;
            }
        }
        sorted
    }
}

/// An event all of whose auth events are sorted.
struct Candidate<'a> {
    /// Of its sender, by its own auth events.
    level: Level,
    time: u64,
    facts: &'a AuthFacts,
    node: usize,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_id = || self.facts.pdu().event_id.cmp(&other.facts.pdu().event_id);
        other.level.cmp(&self.level).then(self.time.cmp(&other.time)).then_with(by_id)
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}
