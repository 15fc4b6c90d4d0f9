//! A room in memory: its events, and snapshots as plain maps.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::Value;

use crate::core::event::Pdu;
use crate::core::num::{EventNum, NodeId, StateKeyId, TextNum};
use crate::core::resolve::facts::Role;
use crate::core::resolve::hash::NumMap;
use crate::core::resolve::{AuthFacts, ResolveError, StateGraph, resolve};
use crate::core::version::RoomVersion;

/// An event or snapshot that the room does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room has no number {0}")]
pub struct Unknown(pub u64);

/// A state as a plain map.
pub type State = BTreeMap<StateKeyId, EventNum>;

/// A room in memory.
#[derive(Debug)]
pub struct Room {
    /// Its rules.
    pub version: &'static RoomVersion,
    /// Whether it answers for citations.
    pub is_indexed: bool,
    events: Vec<Arc<AuthFacts>>,
    places: NumMap<EventNum, usize>,
    nums: HashMap<Arc<str>, EventNum>,
    texts: HashMap<String, TextNum>,
    snapshots: Vec<State>,
    citations: NumMap<EventNum, Vec<(EventNum, StateKeyId)>>,
}

impl Room {
    /// An empty room; its only snapshot is the empty state.
    pub fn new(version: &'static RoomVersion) -> Room {
        Room {
            version,
            is_indexed: true,
            events: Vec::new(),
            places: NumMap::default(),
            nums: HashMap::new(),
            texts: HashMap::new(),
            snapshots: vec![State::new()],
            citations: NumMap::default(),
        }
    }

    /// Adds an event under a number of its own; events that it names must be there, others are left out of its auth
    /// events.
    pub fn add_as(&mut self, num: EventNum, pdu: Pdu, rejected: bool) -> Arc<AuthFacts> {
        let auth: Vec<EventNum> = pdu.auth_events.iter().filter_map(|id| self.num(id)).collect();
        let depths = auth.iter().filter_map(|num| self.event(*num)).map(|facts| facts.auth_depth() + 1);
        let auth_depth = depths.max().unwrap_or(0);
        let key = pdu.state_key.clone().map(|state_key| self.intern(&pdu.kind, &state_key));
        self.nums.insert(pdu.event_id.clone(), num);
        self.places.insert(num, self.events.len());
        let facts = Arc::new(AuthFacts::new(Arc::new(pdu), num, &auth, auth_depth, rejected, key));
        if let Some(key) = key {
            for cited in facts.auth() {
                let cited_facts = self.places.get(cited).and_then(|place| self.events.get(*place));
                if cited_facts.is_some_and(|facts| facts.brief().role == Role::Create) {
                    continue;
                }
                self.citations.entry(*cited).or_default().push((num, key));
            }
        }
        self.events.push(facts.clone());
        facts
    }

    /// Adds an event under the next number.
    pub fn add(&mut self, pdu: Pdu, rejected: bool) -> Arc<AuthFacts> {
        self.add_as(EventNum(self.events.len() as u64 + 1), pdu, rejected)
    }

    /// All events, in the order of adding.
    pub fn events(&self) -> &[Arc<AuthFacts>] {
        &self.events
    }

    /// The number of an event id.
    pub fn num(&self, event_id: &str) -> Option<EventNum> {
        self.nums.get(event_id).copied()
    }

    /// An event.
    pub fn event(&self, num: EventNum) -> Option<&Arc<AuthFacts>> {
        self.events.get(*self.places.get(&num)?)
    }

    /// A snapshot's entries.
    pub fn state(&self, snapshot: NodeId) -> &State {
        &self.snapshots[snapshot.0 as usize]
    }

    /// How many snapshots there are; their ids are below.
    pub fn snapshot_count(&self) -> u64 {
        self.snapshots.len() as u64
    }

    /// Keeps a snapshot.
    pub fn keep(&mut self, state: State) -> NodeId {
        self.snapshots.push(state);
        NodeId(self.snapshots.len() as u64 - 1)
    }

    /// The snapshot with the events `nums` set.
    pub fn set(&mut self, snapshot: NodeId, nums: &[EventNum]) -> NodeId {
        let mut state = self.state(snapshot).clone();
        for num in nums {
            if let Some(key) = self.event(*num).and_then(|facts| facts.key()) {
                state.insert(key, *num);
            }
        }
        self.keep(state)
    }

    /// The state that `snapshots` resolve to.
    ///
    /// # Errors
    /// An event or snapshot is missing.
    pub fn resolved(&self, snapshots: &[NodeId]) -> Result<State, ResolveError<Unknown>> {
        let Some(first) = snapshots.first() else { return Ok(State::new()) };
        let mut state = self.state(*first).clone();
        for (key, event) in resolve(self.version, self, snapshots)? {
            match event {
                Some(event) => state.insert(key, event),
                None => state.remove(&key),
            };
        }
        Ok(state)
    }

    /// The state's event for (`kind`, `state_key`).
    pub fn find(&self, state: &State, kind: &str, state_key: &str) -> Option<&Arc<AuthFacts>> {
        let key = StateKeyId::new(*self.texts.get(kind)?, *self.texts.get(state_key)?);
        self.event(*state.get(&key)?)
    }

    fn intern(&mut self, kind: &str, state_key: &str) -> StateKeyId {
        let mut text = |text: &str| {
            let next = TextNum(self.texts.len() as u32 + 1);
            *self.texts.entry(text.to_owned()).or_insert(next)
        };
        StateKeyId::new(text(kind), text(state_key))
    }
}

impl StateGraph for Room {
    type Error = Unknown;

    fn facts(&self, event: EventNum) -> Result<Arc<AuthFacts>, Unknown> {
        self.event(event).cloned().ok_or(Unknown(event.0))
    }

    fn key(&self, kind: &str, state_key: &str) -> Result<Option<StateKeyId>, Unknown> {
        let nums = self.texts.get(kind).zip(self.texts.get(state_key));
        Ok(nums.map(|(kind, state_key)| StateKeyId::new(*kind, *state_key)))
    }

    fn get(&self, snapshot: NodeId, key: StateKeyId) -> Result<Option<EventNum>, Unknown> {
        Ok(self.state(snapshot).get(&key).copied())
    }

    fn difference(
        &self,
        before: NodeId,
        after: NodeId,
    ) -> Result<Vec<(StateKeyId, Option<EventNum>, Option<EventNum>)>, Unknown> {
        let (before, after) = (self.state(before), self.state(after));
        let added = after.keys().filter(|key| !before.contains_key(key));
        let rows = before.keys().chain(added);
        let rows = rows.map(|key| (*key, before.get(key).copied(), after.get(key).copied()));
        Ok(rows.filter(|(_, before, after)| before != after).collect())
    }

    fn citations(
        &self,
        event: EventNum,
        visit: &mut dyn FnMut(EventNum, StateKeyId) -> ControlFlow<()>,
    ) -> Result<bool, Unknown> {
        if self.is_indexed {
            let citing = self.citations.get(&event).map_or(&[][..], Vec::as_slice);
            let _ = citing.iter().rev().try_for_each(|(citing, key)| visit(*citing, *key));
        }
        Ok(self.is_indexed)
    }
}

/// An event from JSON that may have symbolic ids and lack hashes; a create event without room id gets the one that is
/// made of its own id.
pub fn pdu(json: &Value) -> Option<Pdu> {
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(Arc::<str>::from);
    let number = |name: &str| json.get(name).and_then(Value::as_u64).unwrap_or(0);
    let list = |name: &str| -> Vec<Arc<str>> {
        let ids = json.get(name).and_then(Value::as_array).into_iter().flatten();
        ids.filter_map(Value::as_str).map(Arc::from).collect()
    };
    let event_id = text("event_id")?;
    Some(Pdu {
        room_id: text("room_id").unwrap_or_else(|| event_id.replacen('$', "!", 1).into()),
        event_id,
        sender: text("sender")?,
        kind: text("type")?,
        state_key: text("state_key"),
        content: json.get("content").and_then(Value::as_object).cloned().unwrap_or_default(),
        prev_events: list("prev_events"),
        auth_events: list("auth_events"),
        depth: number("depth"),
        origin_server_ts: number("origin_server_ts"),
        redacts: text("redacts"),
        json: serde_json::to_vec(json).ok()?.into(),
    })
}
