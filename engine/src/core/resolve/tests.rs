//! Resolution against the vectors, and its parts against slow references.

mod definitions;
mod hostile;
mod v1;

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::testing::{Room, pdu};
use super::*;

/// The vectors of one folder as text, by path.
macro_rules! files {
    ($($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../../vectors/state-res/", $path)))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "expected/ban_vs_power_levels.json" "expected/concurrent_joins.json" "expected/join_rules_vs_join.json"
    "expected/minimal_private_chat.json" "expected/minimal_public_chat.json"
    "expected/msc4297_problem_a_state_res_v2_0.json" "expected/msc4297_problem_a_state_res_v2_1.json"
    "expected/msc4297_problem_b_state_res_v2_0.json" "expected/msc4297_problem_b_state_res_v2_1.json"
    "expected/origin_server_ts_tiebreak.json" "expected/power_levels_admin_vs_mod.json"
    "expected/topic_vs_ban.json" "expected/topic_vs_power_levels.json"
    "fixtures/MSC4297-problem-A/pdus-v11.json" "fixtures/MSC4297-problem-A/pdus-v12.json"
    "fixtures/MSC4297-problem-A/state-bob.json" "fixtures/MSC4297-problem-A/state-charlie.json"
    "fixtures/MSC4297-problem-B/pdus-v11.json" "fixtures/MSC4297-problem-B/pdus-v12.json"
    "fixtures/MSC4297-problem-B/state-eve.json" "fixtures/MSC4297-problem-B/state-zara.json"
    "fixtures/ban-vs-power-levels-alice.json" "fixtures/ban-vs-power-levels-bob.json"
    "fixtures/bootstrap-private-chat.json" "fixtures/bootstrap-public-chat.json"
    "fixtures/concurrent-joins-charlie.json" "fixtures/concurrent-joins-ella.json"
    "fixtures/join-rules-vs-join-alice.json" "fixtures/join-rules-vs-join-common.json"
    "fixtures/join-rules-vs-join-ella.json" "fixtures/origin-server-ts-tiebreak.json"
    "fixtures/power-levels-admin-vs-mod-alice.json" "fixtures/power-levels-admin-vs-mod-bob.json"
    "fixtures/topic-vs-ban-alice.json" "fixtures/topic-vs-ban-bob.json" "fixtures/topic-vs-ban-common.json"
    "fixtures/topic-vs-power-levels-alice.json" "fixtures/topic-vs-power-levels-bob.json"
];

fn file(path: &str) -> Value {
    let text = FILES.iter().find(|row| row.0 == path).expect(path).1;
    serde_json::from_str(text).expect(path)
}

#[derive(serde::Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    expected: String,
    #[serde(default)]
    batches: Vec<String>,
    #[serde(default)]
    state_maps: Vec<String>,
    #[serde(default)]
    events: Vec<String>,
}

/// The room with the events of `paths`, as far as each file's end in the returned list.
fn load(paths: &[String]) -> (Room, Vec<usize>) {
    let files: Vec<Value> = paths.iter().map(|path| file(path)).collect();
    let id = files[0][0]["content"]["room_version"].as_str().unwrap();
    let mut room = Room::new(RoomVersion::get(id).unwrap());
    let mut ends = Vec::new();
    for file in &files {
        for event in file.as_array().unwrap() {
            room.add(pdu(event).unwrap(), false);
        }
        ends.push(room.events().len());
    }
    (room, ends)
}

/// Goes through the events in their order, each on the resolved state of those it follows; returns the state after each.
fn play(room: &mut Room) -> HashMap<Arc<str>, NodeId> {
    let mut after: HashMap<Arc<str>, NodeId> = HashMap::new();
    for facts in room.events().to_vec() {
        let before: Vec<NodeId> = facts.pdu().prev_events.iter().map(|id| after[id]).collect();
        let state = room.resolved(&before).unwrap();
        let before = room.keep(state);
        let own = room.set(before, &[facts.num()]);
        after.insert(facts.pdu().event_id.clone(), own);
    }
    after
}

/// The resolved state of the room's forward extremities among its first `count` events.
fn resolved_tips(room: &Room, after: &HashMap<Arc<str>, NodeId>, count: usize) -> testing::State {
    let events = &room.events()[..count];
    let followed: BTreeSet<&Arc<str>> = events.iter().flat_map(|facts| &facts.pdu().prev_events).collect();
    let tips = events.iter().map(|facts| &facts.pdu().event_id).filter(|id| !followed.contains(id));
    let tips: Vec<NodeId> = tips.map(|id| after[id]).collect();
    let state = room.resolved(&tips).unwrap();
    let reversed: Vec<NodeId> = tips.into_iter().rev().collect();
    assert_eq!(room.resolved(&reversed).unwrap(), state, "the order of the states decides");
    state
}

fn expect(room: &Room, state: &testing::State, case: &Case) {
    let ids = |events: &Value| -> BTreeSet<String> {
        events
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["event_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let found = state.values().map(|num| room.event(*num).unwrap().pdu().event_id.to_string()).collect();
    assert_eq!(ids(&file(&case.expected)), found, "{}", case.name);
}

#[test]
fn every_case_of_the_vectors() {
    let text = include_str!("../../../vectors/state-res/cases.json");
    let Cases { cases } = serde_json::from_str(text).unwrap();
    for case in &cases {
        for is_indexed in [false, true] {
            if case.batches.is_empty() {
                let (mut room, _) = load(&case.events);
                room.is_indexed = is_indexed;
                let states: Vec<NodeId> = case
                    .state_maps
                    .iter()
                    .map(|path| {
                        let ids = file(path);
                        let ids = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap());
                        let nums: Vec<EventNum> = ids.map(|id| room.num(id).unwrap()).collect();
                        room.set(NodeId::default(), &nums)
                    })
                    .collect();
                expect(&room, &room.resolved(&states).unwrap(), case);
            } else {
                let (mut room, ends) = load(&case.batches);
                room.is_indexed = is_indexed;
                let after = play(&mut room);
                expect(&room, &resolved_tips(&room, &after, *ends.last().unwrap()), case);
            }
        }
    }
    assert_eq!(cases.len(), 13);
}
