//! A read of the store that fails costs no server anything.

use super::*;
use crate::{
    command::SetTyping,
    device::tests::register,
    fixture::observed::{FailingRead, Observed},
    store::RestOfKey,
};

/// For how long a server is left alone for which the store failed, in milliseconds.
const WAIT_MS: u64 = 10_000;

/// Two other servers, each in a room, that have everything.
fn world_on(store: &Arc<Observed<FailingRead>>) -> World {
    let world = World::on(store.clone());
    register(&world, "alice", &["A"]);
    for (room_id, user_id) in [(ROOM, BOB), (OTHER_ROOM, DAVE)] {
        world.room(room_id, ALICE, None);
        world.join(room_id, user_id);
    }
    deliver_all(&world);
    world
}

/// Something is said to both servers, and the read behind so many fails in the look for whom that is. Answers whether there was one.
fn misses_nothing_by_a_failure_after(reads: usize, restarts: bool) -> bool {
    let store = Observed::failing_once();
    let mut world = world_on(&store);
    world.message(ROOM, ALICE, "one");
    let typing = SetTyping { room_id: ROOM.into(), user: ALICE.into(), typing: true, timeout_ms: None };
    world.engine.write(typing).wait().unwrap();
    world.message(OTHER_ROOM, ALICE, "other");
    if restarts {
        drop(world);
        world = World::on(store.clone());
        // The first look after the start only begins to listen.
        world.engine.read(&DueDestinations { limit: 0, laggards_max: 0 }).unwrap();
    }
    store.observer.fail_after(reads);
    let looked = world.engine.read(&DueDestinations { limit: 1_000, laggards_max: 1_000 });
    let has_failed = !store.observer.spare();
    if let (true, Ok(due)) = (has_failed, &looked) {
        assert_eq!(due.next_ms, Some(world.engine.now_ms() + WAIT_MS), "for the one that is left out");
    }
    let mut told: BTreeMap<String, Vec<Transaction>> = BTreeMap::new();
    for server in looked.map(|due| due.destinations).unwrap_or_default() {
        told.entry(server.to_string()).or_default().extend(deliver(&world, &server));
    }
    world.pass_ms(WAIT_MS);
    for server in due(&world) {
        told.entry(server.to_string()).or_default().extend(deliver(&world, &server));
    }
    for (server, expected) in [(THERE, "one"), (THIRD, "other")] {
        let sent = told.get(server).map(Vec::as_slice).unwrap_or_default();
        let bodies: Vec<String> = sent.iter().flat_map(|sent| &sent.pdus).map(said).collect();
        assert_eq!(bodies, [expected], "{server}, after {reads} reads, {restarts}");
        let types = |edu: &Bytes| String::from_utf8_lossy(edu).contains("m.typing");
        let is_told_who_types = sent.iter().flat_map(|sent| &sent.edus).any(types);
        assert_eq!(is_told_who_types, server == THERE && !restarts, "{server}, after {reads} reads");
    }
    assert!(due(&world).is_empty(), "both have everything");
    has_failed
}

#[test]
fn a_look_that_fails_loses_nothing() {
    for restarts in [false, true] {
        let reads = (0..).take_while(|reads| misses_nothing_by_a_failure_after(*reads, restarts)).count();
        assert!(reads > 4, "there are the rooms' servers and their names to be read, not {reads}");
    }
}

#[test]
fn a_server_is_tried_again_though_the_store_fails_until_it_is_left() {
    let store = Observed::failing_once();
    let world = world_on(&store);
    world.message(ROOM, ALICE, "one");
    drop(world);
    let world = World::on(store.clone());
    assert!(due(&world).contains(&THERE.into()));
    store.observer.fail_after(0);
    let next =
        NextTransaction { destination: THERE.into(), acknowledged: None, took_brief: false, begins: true };
    assert!(world.engine.write(next).wait().is_err());
    store.observer.fail_after(0);
    let due_ms = world.engine.now_ms() + WAIT_MS;
    world.engine.read(&LeaveDestination { destination: THERE, due_ms, was_prompt: None }).unwrap();
    store.observer.spare();
    world.pass_ms(WAIT_MS);
    assert_eq!(deliver_all(&world), [sent(THERE, &["one"])]);
}

#[test]
fn what_can_never_be_read_keeps_no_other_server_waiting() {
    let world = world_on(&Observed::failing_once());
    world.message(ROOM, ALICE, "one");
    world.message(OTHER_ROOM, ALICE, "other");
    world
        .act(|tx| {
            let (rows, room) = (schema::ROOM_SERVERS.raw(), tx.room_num(ROOM)?.unwrap());
            let mut keys = Vec::new();
            tx.scan(&rows, &room, Direction::Forward, |key: RestOfKey, _| {
                keys.push(key);
                true
            })?;
            assert!(!keys.is_empty());
            for key in &keys {
                tx.put(&rows, key, &Bytes::new());
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(deliver_all(&world), [sent(THIRD, &["other"])]);
    world.message(OTHER_ROOM, ALICE, "more");
    assert_eq!(deliver_all(&world), [sent(THIRD, &["more"])]);
}
