//! States that others tell while members are missing: who is in them, and not in the one that lacks members, is in the room.

use super::*;

/// Carl came into the room while it was open, which is told of nowhere but in his own join. Dora, by whose join it is entered, was invited.
fn closed_since() -> Entry {
    let resident = Scene::new();
    let carl = resident.member(CARL, CARL, "join", &strs(&resident.ends()), 20);
    assert!(accepted(&resident.receive(&[&carl])));
    let before = state_of(&resident);
    resident.world.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    resident.world.member(ROOM, ALICE, DORA, "invite").unwrap();
    let join = resident.member(DORA, DORA, "join", &strs(&resident.ends()), DORAS_DEPTH);
    let (state, newcomer) = (state_of(&resident), Scene { world: World::new(), peer: Peer::new() });
    newcomer.world.engine.write(newcomer.peer.keys()).wait().unwrap();
    let entry = Entry { resident, newcomer, join, state };
    // What is named by the join, and by Carl's.
    assert!(entry.store(&before.iter().collect::<Vec<_>>()).missing.is_nothing());
    entry.store_members();
    entry.enter(&entry.join, &entry.state);
    entry
}

/// Takes in an event with the whole state before it, live or as history.
fn take_in(entry: &Entry, pdu: &Pdu, backfill: bool) {
    let Entry { resident, newcomer, join, state } = entry;
    let state = state.iter().chain([join]).map(|pdu| pdu.event_id.clone()).collect();
    let states = vec![GivenState { event_id: pdu.event_id.clone(), state }];
    let pdus = resident.check(&[pdu]);
    let received = newcomer.write(ReceivePdus { pdus, states, backfill, ..ReceivePdus::default() });
    assert!(accepted(&received), "{received:?}");
    newcomer.is_sound();
}

fn all_are_joined(entry: &Entry) {
    for user in [ALICE, BOB, CARL, DORA] {
        assert!(entry.newcomer.is_joined(user), "{user}");
    }
}

#[test]
fn who_came_in_by_rules_of_before_stays_where_an_event_follows_the_join_and_what_is_missing() {
    let entry = closed_since();
    let Entry { resident, newcomer, join, .. } = &entry;
    let unheard = resident.message(BOB, &[&join.event_id], 30);
    let merging = resident.message(BOB, &[&join.event_id, &unheard.event_id], 31);
    take_in(&entry, &merging, false);
    all_are_joined(&entry);
    entry.complete();
    newcomer.is_sound();
    all_are_joined(&entry);
    assert!(accepted(&newcomer.receive(&[&resident.message(CARL, &[&merging.event_id], 32)])));
}

#[test]
fn who_came_in_by_rules_of_before_stays_where_the_room_ends_at_the_join_and_behind_a_gap() {
    let entry = closed_since();
    let Entry { resident, newcomer, join, .. } = &entry;
    let unheard = resident.message(BOB, &[&join.event_id], 30);
    let behind = resident.message(BOB, &[&unheard.event_id], 31);
    take_in(&entry, &behind, false);
    all_are_joined(&entry);
    assert!(accepted(&newcomer.receive(&[&resident.message(CARL, &[&behind.event_id], 32)])));
    newcomer.is_sound();
    entry.complete();
    newcomer.is_sound();
    all_are_joined(&entry);
}

#[test]
fn history_of_who_came_in_by_rules_of_before_stays_where_it_follows_the_join_and_what_is_missing() {
    let entry = closed_since();
    let Entry { resident, newcomer, join, .. } = &entry;
    let unheard = resident.message(BOB, &[&join.event_id], 30);
    let merging = resident.message(CARL, &[&join.event_id, &unheard.event_id], 31);
    let behind = resident.message(BOB, &[&merging.event_id], 32);
    take_in(&entry, &behind, false);
    take_in(&entry, &merging, true);
    entry.complete();
    newcomer.is_sound();
    assert_eq!(newcomer.status(&merging.event_id), Some(EventStatus::Accepted));
    all_are_joined(&entry);
    assert!(accepted(&newcomer.receive(&[&resident.message(CARL, &[&merging.event_id], 33)])));
}
