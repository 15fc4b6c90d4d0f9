//! The fast ways to the sets of the definitions, against slow ones that follow the text.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::testing::{self, History, Room, State};
use super::super::{conflict::Conflicts, events::Events, subgraph::subgraph};
use crate::core::num::{EventNum, NodeId};
use crate::core::version::RoomVersion;

fn check(room: &Room, merge: &[NodeId]) {
    let states: Vec<&State> = merge.iter().map(|snapshot| room.state(*snapshot)).collect();
    let found = testing::found_auth_difference(room, merge).unwrap();
    let distinct: BTreeSet<EventNum> = found.iter().copied().collect();
    assert_eq!(found.len(), distinct.len(), "an event is found twice");
    assert_eq!(distinct, testing::auth_difference(room, &states));
    let Some(conflicts) = Conflicts::between(room, merge).unwrap() else { return };
    let conflicted: BTreeSet<EventNum> =
        conflicts.rows().flat_map(|(_, row)| row.iter().flatten().copied().collect::<Vec<_>>()).collect();
    let mut events = Events::new(room, 0);
    let places: Vec<_> = conflicted.iter().map(|event| events.place(*event).unwrap()).collect();
    let between = subgraph(&mut events, &places).unwrap();
    let between = between.into_iter().map(|place| events.facts(place).num());
    let expected = testing::subgraph(room, &conflicted);
    assert_eq!(between.chain(conflicted.iter().copied()).collect::<BTreeSet<_>>(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn auth_difference_and_subgraph_are_those_of_the_text(
        choices in prop::collection::vec(any::<u8>(), 20..500),
        is_twelve in any::<bool>(),
    ) {
        let version = RoomVersion::get(if is_twelve { "12" } else { "11" }).unwrap();
        let History { mut room, mut merges } = History::new(version, &choices);
        // More states at once than one walk tells apart.
        merges.push((1..room.snapshot_count()).map(NodeId).collect());
        for is_indexed in [true, false] {
            room.is_indexed = is_indexed;
            for merge in &merges {
                check(&room, merge);
            }
        }
    }
}

#[test]
fn workloads_are_in_conflict_as_a_whole() {
    let version = RoomVersion::get("11").unwrap();
    for workload in [
        testing::Workload::joins(version, 100),
        testing::Workload::mixed(version, 100),
        testing::Workload::members(version, 50),
        testing::Workload::chain(version, 50),
    ] {
        check(&workload.room, &workload.sides);
    }
    let mixed = testing::Workload::mixed(version, 1_000);
    let conflicts = Conflicts::between(&mixed.room, &mixed.sides).unwrap().unwrap();
    let conflicted: BTreeSet<EventNum> =
        conflicts.rows().flat_map(|(_, row)| row.iter().flatten().copied().collect::<Vec<_>>()).collect();
    let difference = testing::found_auth_difference(&mixed.room, &mixed.sides).unwrap();
    let first = mixed.room.events().len() - 1_000;
    let sent = mixed.room.events()[first..].iter().map(|facts| facts.num());
    let full: BTreeSet<EventNum> = difference.into_iter().chain(conflicted).collect();
    let left: Vec<EventNum> = sent.filter(|event| !full.contains(event)).collect();
    // Topics that a later one replaced have no effect any more.
    assert!(left.len() <= 100, "{} of 1,000 events are in no conflict", left.len());
}
