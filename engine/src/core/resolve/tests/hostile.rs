//! Graphs made to be expensive: work stays in proportion to their events and edges.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::json;

use super::super::testing::{self, Room, State, Unknown, pdu};
use super::super::{AuthFacts, StateGraph, resolve};
use crate::core::num::{EventNum, NodeId, StateKeyId};
use crate::core::version::RoomVersion;

/// Counts what is read of a room.
struct Counted<'a> {
    room: &'a Room,
    reads: Cell<usize>,
}

impl StateGraph for Counted<'_> {
    type Error = Unknown;

    fn facts(&self, event: EventNum) -> Result<Arc<AuthFacts>, Unknown> {
        self.reads.set(self.reads.get() + 1);
        self.room.facts(event)
    }

    fn key(&self, kind: &str, state_key: &str) -> Result<Option<StateKeyId>, Unknown> {
        self.room.key(kind, state_key)
    }

    fn get(&self, snapshot: NodeId, key: StateKeyId) -> Result<Option<EventNum>, Unknown> {
        self.reads.set(self.reads.get() + 1);
        self.room.get(snapshot, key)
    }

    fn difference(
        &self,
        before: NodeId,
        after: NodeId,
    ) -> Result<Vec<(StateKeyId, Option<EventNum>, Option<EventNum>)>, Unknown> {
        self.room.difference(before, after)
    }

    fn citations(
        &self,
        event: EventNum,
        visit: &mut dyn FnMut(EventNum, StateKeyId) -> ControlFlow<()>,
    ) -> Result<bool, Unknown> {
        self.room.citations(event, &mut |citing, key| {
            self.reads.set(self.reads.get() + 1);
            visit(citing, key)
        })
    }
}

/// The reads of resolving `sides`, in either order and with or without an index of citations: the most.
fn reads(room: &mut Room, sides: [NodeId; 2]) -> usize {
    let mut most = 0;
    for is_indexed in [true, false] {
        room.is_indexed = is_indexed;
        for sides in [sides, [sides[1], sides[0]]] {
            let counted = Counted { room, reads: Cell::new(0) };
            resolve(room.version, &counted, &sides).unwrap();
            most = most.max(counted.reads.get());
        }
    }
    most
}

/// A room with a create event, a member and power levels, whose state is the second value.
fn room(id: &str) -> (Room, State) {
    let mut room = Room::new(RoomVersion::get(id).unwrap());
    let mut state = State::new();
    let alice = "@alice:a.example";
    let create = json!({"room_version": id, "creator": alice});
    send(&mut room, &mut state, "m.room.create", "", create, &[]);
    send(&mut room, &mut state, "m.room.member", alice, json!({"membership": "join"}), &["$0"]);
    send(&mut room, &mut state, "m.room.power_levels", "", json!({"users": {alice: 100}}), &["$0", "$1"]);
    (room, state)
}

/// Sends an event with the auth events named; its id is `$` and its index.
fn send(
    room: &mut Room,
    state: &mut State,
    kind: &str,
    state_key: &str,
    content: serde_json::Value,
    auth: &[&str],
) -> String {
    let id = format!("${}", room.events().len());
    let event = json!({"event_id": id, "room_id": "!r:a.example", "sender": "@alice:a.example", "type": kind,
        "state_key": state_key, "content": content, "auth_events": auth, "prev_events": ["$x"]});
    let facts = room.add(pdu(&event).unwrap(), false);
    state.insert(facts.key().unwrap(), facts.num());
    id
}

#[test]
fn a_chain_of_50_000_auth_events() {
    for id in ["11", "12"] {
        let version = RoomVersion::get(id).unwrap();
        let mut long = testing::Workload::chain(version, 50_000);
        let all = long.room.events().len();
        let most = reads(&mut long.room, long.sides);
        assert!(most < 200, "{most} reads for ten new events on a chain of {all}, version {id}");
        // The chain itself in conflict: one side has not seen it.
        let first = long.room.state(long.sides[0]).clone();
        let (mut room, sides) = (long.room, long.sides);
        let early: State = first.into_iter().filter(|(_, event)| event.0 < 12).collect();
        let early = room.keep(early);
        let most = reads(&mut room, [early, sides[1]]);
        assert!(most < 20 * all, "{most} reads for a conflicted chain of {all}, version {id}");
    }
}

#[test]
fn what_was_replaced_is_not_gone_through_for_ever() {
    let (mut room, early) = room("11");
    // Every topic names the power levels, and only the last is an entry of a state: that of the one side.
    let mut state = early.clone();
    for index in 0..40_000 {
        send(&mut room, &mut state, "m.room.topic", "", json!({"topic": index}), &["$0", "$1", "$2"]);
    }
    let sides = [room.keep(early), room.keep(state)];
    let most = reads(&mut room, sides);
    assert!(most < 12_000, "{most} reads for one topic");
    let expected = testing::auth_difference(&room, &sides.map(|side| room.state(side)));
    room.is_indexed = true;
    let found = testing::found_auth_difference(&room, &sides).unwrap();
    assert_eq!(found.into_iter().collect::<std::collections::BTreeSet<_>>(), expected);
}

#[test]
fn fans_diamonds_and_doubled_edges() {
    for id in ["11", "12"] {
        let (mut room, base) = room(id);
        let mut state = base.clone();
        // Layers of diamonds: 2^400 ways, four edges a layer, and each edge twice.
        let mut layer = vec!["$2".to_owned(), "$1".to_owned()];
        let mut edges = 0;
        for _ in 0..400 {
            let auth: Vec<&str> = layer.iter().chain(&layer).map(String::as_str).collect();
            edges += 2 * auth.len();
            let content = json!({"users": {"@alice:a.example": 100}});
            let one = send(&mut room, &mut state, "m.room.power_levels", "", content, &auth);
            let join = json!({"membership": "join"});
            let other = send(&mut room, &mut state, "m.room.member", "@alice:a.example", join, &auth);
            layer = vec![one, other];
        }
        // A fan of 1,000 members on the last layer, and an event that names them all.
        let auth: Vec<&str> = layer.iter().map(String::as_str).collect();
        let mut fan = Vec::new();
        for index in 0..1_000 {
            let key = format!("@user{index}:a.example");
            edges += auth.len();
            fan.push(send(&mut room, &mut state, "m.room.member", &key, json!({"membership": "ban"}), &auth));
        }
        let auth: Vec<&str> = fan.iter().map(String::as_str).collect();
        edges += auth.len();
        send(&mut room, &mut state, "m.room.join_rules", "", json!({"join_rule": "public"}), &auth);
        let sides = [room.keep(base), room.keep(state)];
        let size = room.events().len() + edges;
        let most = reads(&mut room, sides);
        assert!(most < 10 * size, "{most} reads in a graph of {size} events and edges, version {id}");
    }
}
