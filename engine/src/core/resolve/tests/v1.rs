//! Version 1: cases worked out by hand from the text of room version 1.

use serde_json::{Value, json};

use super::super::testing::{Room, State, pdu};
use crate::core::num::NodeId;
use crate::core::version::RoomVersion;

const ALICE: &str = "@alice:a";
const BOB: &str = "@bob:b";

/// A room of version 1 with `$create:a`, where Alice (100) and Bob (50) are joined and everybody may join.
struct Case {
    room: Room,
    base: State,
}

impl Case {
    fn new() -> Case {
        let mut case = Case { room: Room::new(RoomVersion::get("1").unwrap()), base: State::new() };
        let mut base = State::new();
        let join = || json!({"membership": "join"});
        for (id, sender, kind, state_key, content) in [
            ("create", ALICE, "m.room.create", "", json!({"creator": ALICE})),
            ("alice", ALICE, "m.room.member", ALICE, join()),
            ("power", ALICE, "m.room.power_levels", "", levels(&[(ALICE, 100), (BOB, 50)])),
            ("rules", ALICE, "m.room.join_rules", "", json!({"join_rule": "public"})),
            ("bob", BOB, "m.room.member", BOB, join()),
        ] {
            let depth = base.len() as u64 + 1;
            case.send(&mut base, id, depth, sender, kind, state_key, content);
        }
        case.base = base;
        case
    }

    #[allow(clippy::too_many_arguments, reason = "an event has so many parts")]
    fn send(
        &mut self,
        state: &mut State,
        id: &str,
        depth: u64,
        sender: &str,
        kind: &str,
        state_key: &str,
        content: Value,
    ) {
        let event = json!({"event_id": format!("${id}:a"), "room_id": "!r:a", "sender": sender, "type": kind,
            "state_key": state_key, "content": content, "depth": depth, "prev_events": ["$x:a"]});
        let facts = self.room.add(pdu(&event).unwrap(), false);
        state.insert(facts.key().unwrap(), facts.num());
    }

    /// The id that the entry has once the states are resolved, in whatever order they are given.
    fn expect(&mut self, states: &[&State], kind: &str, state_key: &str, expected: Option<&str>) {
        let snapshots: Vec<NodeId> = states.iter().map(|state| self.room.keep((*state).clone())).collect();
        let reversed: Vec<NodeId> = snapshots.iter().rev().copied().collect();
        for snapshots in [snapshots, reversed] {
            let state = self.room.resolved(&snapshots).unwrap();
            let found = self.room.find(&state, kind, state_key).map(|facts| facts.pdu().event_id.to_string());
            assert_eq!(found, expected.map(|id| format!("${id}:a")), "{kind} {state_key}");
        }
    }
}

fn levels(users: &[(&str, i64)]) -> Value {
    let users: serde_json::Map<String, Value> =
        users.iter().map(|(user, level)| ((*user).to_owned(), (*level).into())).collect();
    json!({"users": users, "state_default": 50})
}

#[test]
fn the_highest_depth_wins_elsewhere() {
    let mut case = Case::new();
    let (mut one, mut other) = (case.base.clone(), case.base.clone());
    case.send(&mut one, "topic-deep", 9, ALICE, "m.room.topic", "", json!({}));
    case.send(&mut other, "topic", 8, ALICE, "m.room.topic", "", json!({}));
    case.expect(&[&one, &other], "m.room.topic", "", Some("topic-deep"));
}

#[test]
fn the_lowest_hash_wins_at_one_depth() {
    // sha1("$by-hash-1:a") = 1661c39f…, sha1("$by-hash-2:a") = 95675bc3….
    let mut case = Case::new();
    let (mut one, mut other) = (case.base.clone(), case.base.clone());
    case.send(&mut one, "by-hash-1", 9, ALICE, "m.room.topic", "", json!({}));
    case.send(&mut other, "by-hash-2", 9, ALICE, "m.room.topic", "", json!({}));
    case.expect(&[&one, &other], "m.room.topic", "", Some("by-hash-1"));
}

#[test]
fn what_does_not_pass_is_passed_over() {
    let mut case = Case::new();
    let (mut one, mut other) = (case.base.clone(), case.base.clone());
    case.send(&mut one, "by-carol", 9, "@carol:c", "m.room.topic", "", json!({}));
    case.send(&mut other, "by-alice", 8, ALICE, "m.room.topic", "", json!({}));
    case.expect(&[&one, &other], "m.room.topic", "", Some("by-alice"));
    case.send(&mut other, "by-dave", 8, "@dave:d", "m.room.topic", "", json!({}));
    case.expect(&[&one, &other], "m.room.topic", "", None);
}

#[test]
fn power_levels_follow_each_other_until_one_is_not_allowed() {
    let mut case = Case::new();
    let mut states = [case.base.clone(), case.base.clone(), case.base.clone()];
    // Bob is demoted first; his own change, which comes next, is not allowed, and so Alice's is not reached.
    case.send(&mut states[0], "p1", 6, ALICE, "m.room.power_levels", "", levels(&[(ALICE, 100)]));
    case.send(&mut states[1], "p2", 7, BOB, "m.room.power_levels", "", levels(&[(ALICE, 100), (BOB, 40)]));
    case.send(&mut states[2], "p3", 8, ALICE, "m.room.power_levels", "", levels(&[(ALICE, 90)]));
    let [one, two, three] = states;
    case.expect(&[&one, &two, &three], "m.room.power_levels", "", Some("p1"));
    case.expect(&[&one, &three], "m.room.power_levels", "", Some("p3"));
    // The base's own is the first of all, and Bob may change what it lets him.
    case.expect(&[&case.base.clone(), &two], "m.room.power_levels", "", Some("p2"));
}

#[test]
fn members_are_judged_by_the_power_levels_that_won() {
    let mut case = Case::new();
    let (mut one, mut other) = (case.base.clone(), case.base.clone());
    let ban = || json!({"membership": "ban"});
    let carol = "@carol:c";
    case.send(&mut one, "demoted", 6, ALICE, "m.room.power_levels", "", levels(&[(ALICE, 100)]));
    case.send(&mut one, "joined", 7, carol, "m.room.member", carol, json!({"membership": "join"}));
    case.send(&mut other, "banned", 8, BOB, "m.room.member", carol, ban());
    case.expect(&[&one, &other], "m.room.member", carol, Some("joined"));
    case.send(&mut other, "banned-by-alice", 8, ALICE, "m.room.member", carol, ban());
    case.expect(&[&one, &other], "m.room.member", carol, Some("banned-by-alice"));
}

#[test]
fn what_one_state_lacks_is_no_conflict() {
    let mut case = Case::new();
    let (base, mut one) = (case.base.clone(), case.base.clone());
    // By nobody who might: an entry without conflict is not judged.
    case.send(&mut one, "name", 6, "@nobody:n", "m.room.name", "", json!({}));
    case.expect(&[&base, &one], "m.room.name", "", Some("name"));
}
