//! The events that one resolution has looked at, under small numbers of their own.
//!
//! Invariant: an event is loaded once, and so are the places of its auth events; an event's auth depth is above that of
//! each of its auth events, so that walks by depth end.

use std::ops::Range;
use std::sync::Arc;

use super::facts::{AuthFacts, Brief, Role};
use super::hash::NumMap;
use super::{ResolveError, StateGraph};
use crate::core::event::Pdu;
use crate::core::num::EventNum;

/// The place of an event in [`Events`].
pub(super) type Place = usize;

/// The events at hand.
pub(super) struct Events<'g, G> {
    pub graph: &'g G,
    places: NumMap<EventNum, Place>,
    facts: Vec<Arc<AuthFacts>>,
    briefs: Vec<Brief>,
    /// Where in `edges` the auth events of each event are, once they are loaded.
    auth: Vec<Option<Range<usize>>>,
    edges: Vec<Place>,
}

impl<'g, G: StateGraph> Events<'g, G> {
    pub fn new(graph: &'g G, capacity: usize) -> Self {
        Events {
            graph,
            places: NumMap::with_capacity_and_hasher(capacity, Default::default()),
            facts: Vec::with_capacity(capacity),
            briefs: Vec::with_capacity(capacity),
            auth: Vec::with_capacity(capacity),
            edges: Vec::with_capacity(4 * capacity),
        }
    }

    /// How many events are at hand: all places are below.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// The place of an event.
    pub fn place(&mut self, event: EventNum) -> Result<Place, ResolveError<G::Error>> {
        if let Some(&place) = self.places.get(&event) {
            return Ok(place);
        }
        let facts = self.graph.facts(event)?;
        let place = self.facts.len();
        self.places.insert(event, place);
        self.briefs.push(facts.brief());
        self.facts.push(facts);
        self.auth.push(None);
        Ok(place)
    }

    pub fn facts(&self, place: Place) -> &Arc<AuthFacts> {
        &self.facts[place]
    }

    pub fn brief(&self, place: Place) -> Brief {
        self.briefs[place]
    }

    pub fn pdu(&self, place: Place) -> &Arc<Pdu> {
        self.facts[place].pdu()
    }

    /// Loads the auth events of an event.
    pub fn load_auth(&mut self, place: Place) -> Result<&[Place], ResolveError<G::Error>> {
        if self.auth[place].is_none() {
            let start = self.edges.len();
            let mut next = 0;
            while let Some(&event) = self.facts[place].auth().get(next) {
                let auth = self.place(event)?;
                if self.briefs[auth].auth_depth >= self.briefs[place].auth_depth {
                    return Err(ResolveError::AuthDepth(self.facts[place].num()));
                }
                self.edges.push(auth);
                next += 1;
            }
            self.auth[place] = Some(start..self.edges.len());
        }
        Ok(self.auth(place))
    }

    /// The auth events of an event, if they were loaded.
    pub fn auth(&self, place: Place) -> &[Place] {
        self.auth[place].clone().and_then(|range| self.edges.get(range)).unwrap_or_default()
    }

    /// The auth event of an event that plays `role`.
    pub fn auth_of_role(
        &mut self,
        place: Place,
        role: Role,
    ) -> Result<Option<Place>, ResolveError<G::Error>> {
        self.load_auth(place)?;
        Ok(self.auth(place).iter().copied().find(|&auth| self.briefs[auth].role == role))
    }
}
