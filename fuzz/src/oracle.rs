//! State resolution by `ruma-state-res`, for comparison: the same room in the form that crate takes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma_common::room_version_rules::RoomVersionRules;
use ruma_common::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    UserId,
};
use ruma_events::TimelineEventType;
use ruma_state_res::utils::{event_id_map::EventIdMap, event_id_set::EventIdSet};
use ruma_state_res::{Event, StateMap};
use serde_json::value::{RawValue, to_raw_value};
use warren_engine::core::event::Pdu;
use warren_engine::core::num::{EventNum, NodeId};
use warren_engine::core::resolve::testing::{Room, subgraph};
use warren_engine::core::version::RoomVersion;

/// An event as `ruma-state-res` reads it.
#[derive(Clone, Debug)]
pub struct RumaPdu {
    event_id: OwnedEventId,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    kind: TimelineEventType,
    content: Box<RawValue>,
    state_key: Option<String>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    rejected: bool,
}

impl RumaPdu {
    /// Translates an event; `None` if its ids are none to that crate.
    pub fn new(version: &RoomVersion, pdu: &Pdu, rejected: bool) -> Option<RumaPdu> {
        let ids = |ids: &[std::sync::Arc<str>]| -> Option<Vec<OwnedEventId>> {
            ids.iter().map(|id| EventId::parse(&**id).ok()).collect()
        };
        let is_create = version.room_id_is_create_hash && &*pdu.kind == "m.room.create";
        let room_id = if is_create { None } else { Some(RoomId::parse(&*pdu.room_id).ok()?) };
        Some(RumaPdu {
            event_id: EventId::parse(&*pdu.event_id).ok()?,
            room_id,
            sender: UserId::parse(&*pdu.sender).ok()?,
            origin_server_ts: MilliSecondsSinceUnixEpoch(u32::try_from(pdu.origin_server_ts).ok()?.into()),
            kind: (&*pdu.kind).into(),
            content: to_raw_value(&pdu.content).ok()?,
            state_key: pdu.state_key.as_deref().map(str::to_owned),
            prev_events: ids(&pdu.prev_events)?,
            auth_events: ids(&pdu.auth_events)?,
            rejected,
        })
    }
}

impl Event for RumaPdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.as_deref()
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        None
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

/// The rules of a room version, as that crate has them.
pub fn rules(version: &RoomVersion) -> Option<RoomVersionRules> {
    RoomVersionId::try_from(version.id).ok()?.rules()
}

/// A room in the form of `ruma-state-res`, with every event translated.
pub struct Oracle {
    rules: RoomVersionRules,
    events: EventIdMap<OwnedEventId, RumaPdu>,
    ids: HashMap<EventNum, OwnedEventId>,
}

/// What one resolution is given: the states, and the full auth chain of each, in which its own events are.
#[derive(Clone)]
pub struct Input {
    states: Vec<StateMap<OwnedEventId>>,
    chains: Vec<EventIdSet<OwnedEventId>>,
}

/// A state by type and state key, with event ids.
pub type Resolved = BTreeMap<(String, String), String>;

impl Oracle {
    /// Translates a room; `None` for a version that the crate does not resolve, or ids that it does not take.
    pub fn new(room: &Room) -> Option<Oracle> {
        let rules = rules(room.version)?;
        rules.state_res.v2_rules()?;
        let mut oracle = Oracle { rules, events: EventIdMap::new(), ids: HashMap::new() };
        for facts in room.events() {
            let pdu = RumaPdu::new(room.version, facts.pdu(), facts.rejected())?;
            oracle.ids.insert(facts.num(), pdu.event_id.clone());
            oracle.events.insert(pdu.event_id.clone(), pdu);
        }
        Some(oracle)
    }

    /// The input for resolving `snapshots`.
    pub fn input(&self, room: &Room, snapshots: &[NodeId]) -> Input {
        let mut input = Input { states: Vec::new(), chains: Vec::new() };
        for snapshot in snapshots {
            let mut state = StateMap::new();
            let mut chain = BTreeSet::new();
            let mut pending = Vec::new();
            for event in room.state(*snapshot).values() {
                let Some(facts) = room.event(*event) else { continue };
                let (kind, state_key) = (&*facts.pdu().kind, facts.pdu().state_key.as_deref().unwrap_or(""));
                let id = self.ids.get(event).cloned();
                state.extend(id.map(|id| ((kind.into(), state_key.to_owned()), id)));
                chain.insert(*event);
                pending.push(*event);
            }
            while let Some(event) = pending.pop() {
                for auth in room.event(event).into_iter().flat_map(|facts| facts.auth()) {
                    if chain.insert(*auth) {
                        pending.push(*auth);
                    }
                }
            }
            input.states.push(state);
            input.chains.push(chain.iter().filter_map(|event| self.ids.get(event).cloned()).collect());
        }
        input
    }

    /// What `ruma-state-res` makes of the states. It consumes the auth chains.
    pub fn resolve(&self, room: &Room, input: &mut Input) -> Option<StateMap<OwnedEventId>> {
        let rules = self.rules.state_res.v2_rules()?;
        let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| {
            let conflicted = conflicted.values().flatten().filter_map(|id| room.num(id.as_str())).collect();
            let between = subgraph(room, &conflicted);
            Some(between.iter().filter_map(|event| self.ids.get(event).cloned()).collect())
        };
        let fetch = |id: &EventId| self.events.get(id);
        let (states, chains) = (&input.states, std::mem::take(&mut input.chains));
        ruma_state_res::resolve(&self.rules.authorization, rules, states, chains, fetch, subgraph).ok()
    }

    /// The resolved state, in a form to compare.
    pub fn resolved(&self, room: &Room, snapshots: &[NodeId]) -> Option<Resolved> {
        let state = self.resolve(room, &mut self.input(room, snapshots))?;
        let entry = |((kind, state_key), id): ((_, String), OwnedEventId)| {
            let kind: &ruma_events::StateEventType = &kind;
            ((kind.to_string(), state_key), id.to_string())
        };
        Some(state.into_iter().map(entry).collect())
    }
}
