//! What a server is brought, and what waits for it, whatever comes between.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::{
    PresenceState,
    command::{DeliveryShelved, SetPresence, SetReceipts, SetTyping},
    core::num::{RoomNum, TextNum, UserNum},
    device::tests::register,
    fixture::World,
    outbox,
    store::{Direction, Memory, RestOfKey, Tx, schema},
    view::federation::{DueDestinations, LeaveDestination},
};

const ROOM: &str = "!room:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const THERE: &str = "there.example";
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const FAILED: Sent = Sent::Failed { retry_after_ms: 0, is_rate_limit: false };

fn world() -> World {
    furnished(World::new())
}

fn furnished(world: World) -> World {
    register(&world, "alice", &["A"]);
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    // The first look after the start only begins to listen.
    world.engine.read(&DueDestinations { limit: 0, laggards_max: 0 }).unwrap();
    let mut delivery = due(&world);
    assert_eq!(next(&world, &mut delivery), None, "nothing was said since the other server came");
    world
}

fn look(world: &World) -> Vec<Arc<str>> {
    world.engine.read(&DueDestinations { limit: 1, laggards_max: 1 }).unwrap().destinations
}

fn due(world: &World) -> Delivery {
    Delivery::new(look(world).into_iter().next().unwrap())
}

/// Goes on until something is to be sent, or nothing more to be done.
fn next(world: &World, delivery: &mut Delivery) -> Option<Transaction> {
    let destination = delivery.destination().clone();
    loop {
        match delivery.next_step() {
            Next::Begin(next) => {
                let next = world.engine.write(next).wait().unwrap();
                delivery.begun(&world.engine, next).unwrap();
            }
            Next::Send(transaction) => return Some(transaction),
            Next::Fail(failed) => {
                let retry_ms = world.engine.write(failed).wait().unwrap();
                delivery.failed(retry_ms);
            }
            Next::Leave(due_ms) => {
                // Else it has failed or was slow.
                let was_prompt = Some(due_ms == 0);
                world
                    .engine
                    .read(&LeaveDestination { destination: &destination, due_ms, was_prompt })
                    .unwrap();
                return None;
            }
        }
    }
}

fn type_something(world: &World) {
    let typing = SetTyping { room_id: ROOM.into(), user: ALICE.into(), typing: true, timeout_ms: None };
    world.engine.write(typing).wait().unwrap();
}

fn set(world: &World, receipts: SetReceipts) {
    let receipts = SetReceipts { room_id: ROOM.into(), user: ALICE.into(), ..receipts };
    world.engine.write(receipts).wait().unwrap();
}

/// Alice reads what Bob says. Answers what that is.
fn read(world: &World, body: &str) -> String {
    let event_id = world.message(ROOM, BOB, body);
    set(world, SetReceipts { read: Some(event_id.clone()), ..SetReceipts::default() });
    event_id
}

/// The same in a thread of its own.
fn read_in_a_thread(world: &World, body: &str) -> String {
    let event_id = world.message(ROOM, BOB, body);
    let (read, thread_id) = (Some(event_id.clone()), Some(event_id.clone()));
    set(world, SetReceipts { read, thread_id, ..SetReceipts::default() });
    event_id
}

/// Brings the other server all that there is for it now.
fn bring(world: &World) -> Vec<Transaction> {
    let mut brought = Vec::new();
    while let Some(destination) = look(world).into_iter().next() {
        let mut delivery = Delivery::new(destination);
        while let Some(transaction) = next(world, &mut delivery) {
            brought.push(transaction);
            delivery.sent(Sent::Done);
        }
    }
    brought
}

/// The other server cannot be reached for so long, and is tried whenever it may be; `delivery` was under way.
fn fail_for(world: &World, mut delivery: Delivery, ms: u64) {
    let until_ms = world.engine.now_ms() + ms;
    loop {
        delivery.sent(FAILED);
        assert_eq!(next(world, &mut delivery), None);
        if world.engine.now_ms() >= until_ms {
            return;
        }
        let left = world.engine.read(&DueDestinations { limit: 0, laggards_max: 0 }).unwrap();
        world.pass_ms(left.next_ms.unwrap() - world.engine.now_ms());
        delivery = due(world);
        assert!(next(world, &mut delivery).is_some());
    }
}

/// The same server after its end.
fn restarted(memory: &Arc<Memory>) -> World {
    let world = World::on(memory.clone());
    world.engine.read(&DueDestinations { limit: 0, laggards_max: 0 }).unwrap();
    world
}

fn set_presence(world: &World, state: PresenceState) {
    let (user, device, status_msg) = (ALICE.to_owned(), Some("A".to_owned()), String::new());
    world.engine.write(SetPresence { user, device, state, status_msg }).wait().unwrap();
}

/// What a transaction has beside events.
fn kinds(transaction: &Transaction) -> Vec<String> {
    let kind = |edu: &Bytes| {
        let edu: Value = serde_json::from_slice(edu).unwrap();
        edu["edu_type"].as_str().unwrap().to_owned()
    };
    transaction.edus.iter().map(kind).collect()
}

/// Up to where Alice has read, as is told in what was brought.
fn receipts(brought: &[Transaction]) -> Vec<String> {
    let edus = brought.iter().flat_map(|transaction| &transaction.edus);
    let edus = edus.map(|edu| serde_json::from_slice::<Value>(edu).unwrap());
    let receipts = edus.filter(|edu| edu["edu_type"] == "m.receipt");
    let event_ids = receipts.map(|edu| edu["content"][ROOM]["m.read"][ALICE]["event_ids"][0].clone());
    event_ids.map(|event_id| event_id.as_str().unwrap().to_owned()).collect()
}

/// What its messages say.
fn bodies(transaction: &Transaction) -> Vec<String> {
    let body = |pdu: &Bytes| {
        let pdu: Value = serde_json::from_slice(pdu).unwrap();
        pdu["content"]["body"].as_str().unwrap().to_owned()
    };
    transaction.pdus.iter().map(body).collect()
}

#[test]
fn receipts_and_presence_wait_for_a_server_that_fails_and_receipts_alone_if_that_is_for_long() {
    let world = world();
    read(&world, "1");
    type_something(&world);
    set_presence(&world, PresenceState::Online);
    let mut delivery = due(&world);
    let first = next(&world, &mut delivery).unwrap();
    assert_eq!(kinds(&first), ["m.typing", "m.receipt", "m.presence"]);
    delivery.sent(FAILED);
    assert_eq!(next(&world, &mut delivery), None);
    set_presence(&world, PresenceState::Offline);
    assert!(look(&world).is_empty(), "it is left alone");
    world.pass_ms(60_000);
    let mut delivery = due(&world);
    let late = next(&world, &mut delivery).unwrap();
    assert_eq!(kinds(&late), ["m.receipt", "m.presence"], "nobody types any more");
    assert!(String::from_utf8_lossy(late.edus.last().unwrap()).contains("\"offline\""));
    fail_for(&world, delivery, 2 * HOUR_MS);
    let last = read(&world, "2");
    assert!(look(&world).is_empty(), "it is left alone");
    world.pass_ms(DAY_MS);
    let brought = bring(&world);
    assert_eq!(receipts(&brought), [last]);
    assert!(brought.iter().flat_map(kinds).all(|kind| kind == "m.receipt"), "who was there is stale");
}

#[test]
fn receipts_that_were_not_taken_are_told_after_an_end_and_those_that_were_are_not() {
    let memory = Arc::new(Memory::default());
    let world = furnished(World::on(memory.clone()));
    let taken = read(&world, "1");
    assert_eq!(receipts(&bring(&world)), [taken]);
    // Of this it is known that it did not come there.
    let failed = read(&world, "2");
    let secret = Some(world.message(ROOM, BOB, "secret"));
    set(&world, SetReceipts { read_private: secret, ..SetReceipts::default() });
    let mut delivery = due(&world);
    assert_eq!(receipts(&[next(&world, &mut delivery).unwrap()]), std::slice::from_ref(&failed));
    delivery.sent(FAILED);
    assert_eq!(next(&world, &mut delivery), None);
    drop(world);
    let world = restarted(&memory);
    world.pass_ms(60_000);
    assert_eq!(receipts(&bring(&world)), [failed]);
    // And this was not even begun.
    let last = read(&world, "3");
    drop(world);
    let world = restarted(&memory);
    // It was noted last how far the other server was told things.
    world.pass_ms(HOUR_MS);
    assert_eq!(receipts(&bring(&world)), [last]);
    drop(world);
    assert_eq!(bring(&restarted(&memory)), [], "it has everything, which is noted with the last");
}

#[test]
fn who_fails_for_long_is_not_told_everything_again_for_what_is_read_right_after_a_start() {
    let memory = Arc::new(Memory::default());
    let world = furnished(World::on(memory.clone()));
    world.pass_ms(HOUR_MS);
    read_in_a_thread(&world, "taken");
    assert_eq!(bring(&world).len(), 1);
    let failed = read_in_a_thread(&world, "failed");
    let mut delivery = due(&world);
    assert!(next(&world, &mut delivery).is_some());
    fail_for(&world, delivery, 2 * HOUR_MS);
    let ended_ms = world.engine.now_ms();
    drop(world);
    let world = restarted(&memory);
    world.pass_ms(ended_ms - world.engine.now_ms());
    let last = read_in_a_thread(&world, "last");
    assert!(look(&world).is_empty(), "it is left alone");
    world.pass_ms(DAY_MS);
    let told: BTreeSet<String> = receipts(&bring(&world)).into_iter().collect();
    assert_eq!(told, BTreeSet::from([failed, last]));
}

#[test]
fn an_end_amid_a_search_for_what_a_server_missed_costs_it_no_receipt() {
    const COUNT: usize = 250;
    let memory = Arc::new(Memory::default());
    let world = furnished(World::on(memory.clone()));
    let mut all = BTreeSet::from([read_in_a_thread(&world, "failed")]);
    let mut delivery = due(&world);
    assert!(next(&world, &mut delivery).is_some());
    fail_for(&world, delivery, 2 * HOUR_MS);
    all.extend((0..COUNT).map(|number| read_in_a_thread(&world, &number.to_string())));
    world.pass_ms(DAY_MS);
    let mut delivery = due(&world);
    let first = next(&world, &mut delivery).unwrap();
    delivery.sent(Sent::Done);
    let mut told: BTreeSet<String> = receipts(&[first]).into_iter().collect();
    assert!(told.len() + 100 < all.len(), "more are left than the last of the room");
    // Now it is noted that the server is well; and this it does not take.
    assert!(next(&world, &mut delivery).is_some());
    let ended_ms = world.engine.now_ms();
    drop(world);
    let world = restarted(&memory);
    world.pass_ms(ended_ms - world.engine.now_ms());
    told.extend(receipts(&bring(&world)));
    assert_eq!(told, all);
    drop(world);
    assert_eq!(bring(&restarted(&memory)), [], "it has everything, which is noted with the last");
}

#[test]
fn for_who_was_away_and_missed_no_receipt_none_is_looked_for_at_every_start() {
    let memory = Arc::new(Memory::default());
    let world = furnished(World::on(memory.clone()));
    world.message(ROOM, ALICE, "hello");
    let mut delivery = due(&world);
    assert!(next(&world, &mut delivery).is_some());
    fail_for(&world, delivery, 2 * HOUR_MS);
    let ended_ms = world.engine.now_ms();
    drop(world);
    let world = restarted(&memory);
    world.pass_ms(ended_ms + DAY_MS - world.engine.now_ms());
    let lacks = || {
        world.ask(|reader| Ok(outbox::destination(reader, reader.text_num(THERE)?.unwrap())?.lacks_receipts))
    };
    let mut delivery = due(&world);
    assert_eq!(bodies(&next(&world, &mut delivery).unwrap()), ["hello"]);
    delivery.sent(Sent::DoneForNow);
    assert_eq!(next(&world, &mut delivery), None);
    assert!(lacks(), "they are still to be looked for");
    assert_eq!(bring(&world), []);
    assert!(!lacks());
}

#[test]
fn who_came_after_something_was_read_is_not_told_of_it_after_an_end() {
    let memory = Arc::new(Memory::default());
    let world = furnished(World::on(memory.clone()));
    read(&world, "1");
    world.join(ROOM, "@carl:third.example");
    drop(world);
    let world = restarted(&memory);
    let mut told = Vec::new();
    for _ in 0..2 {
        let Some(destination) = look(&world).into_iter().next() else { break };
        let mut delivery = Delivery::new(destination.clone());
        while let Some(transaction) = next(&world, &mut delivery) {
            told.extend(receipts(&[transaction]).into_iter().map(|_| destination.to_string()));
            delivery.sent(Sent::Done);
        }
    }
    assert_eq!(told, [THERE]);
}

#[test]
fn more_receipts_than_there_is_room_for_are_told_all_the_same() {
    const COUNT: usize = 1_120;
    let world = world();
    let all: BTreeSet<String> =
        (0..COUNT).map(|number| read_in_a_thread(&world, &number.to_string())).collect();
    let brought = bring(&world);
    assert_eq!(receipts(&brought).into_iter().collect::<BTreeSet<_>>(), all);
    assert!(brought.iter().all(|transaction| transaction.edus.len() <= Transaction::EDUS_MAX));
    assert!(look(&world).is_empty());
}

#[test]
fn a_receipt_that_cannot_be_read_keeps_nothing_else_waiting() {
    let world = world();
    let (spoiled, kept) = (read_in_a_thread(&world, "spoiled"), read_in_a_thread(&world, "kept"));
    world.message(ROOM, ALICE, "hello");
    let spoil = |tx: &mut Tx| {
        let (rows, thread) = (schema::RECEIPTS.raw(), tx.text_num(&spoiled)?);
        let (room, alice) = (tx.room_num(ROOM)?.unwrap(), tx.user_num(ALICE)?.unwrap());
        let mut key = None;
        tx.scan(&rows, &(room, alice), Direction::Forward, |row: RestOfKey, _| {
            let (.., of): (RoomNum, UserNum, u8, TextNum) = row.decode().unwrap();
            key = (Some(of) == thread).then_some(row);
            key.is_none()
        })?;
        tx.put(&rows, &key.unwrap(), &Bytes::new());
        Ok(())
    };
    world.act(spoil).unwrap();
    let brought = bring(&world);
    assert_eq!(brought.iter().flat_map(bodies).collect::<Vec<_>>(), ["hello"]);
    assert_eq!(receipts(&brought), [kept]);
    assert!(look(&world).is_empty());
}

/// Nothing waits for it after a failure with nothing but typing, so that it is not tried again before there is something.
#[test]
fn a_failure_of_long_ago_does_not_make_a_short_one_a_long_one() {
    for fails_again in [false, true] {
        let world = world();
        type_something(&world);
        let mut delivery = due(&world);
        assert!(next(&world, &mut delivery).is_some());
        delivery.sent(FAILED);
        assert_eq!(next(&world, &mut delivery), None);
        world.pass_ms(2 * HOUR_MS);
        assert!(look(&world).is_empty(), "nothing waits for it");
        let said: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        said.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
        let read = read(&world, "hers");
        if fails_again {
            let mut delivery = due(&world);
            assert!(next(&world, &mut delivery).is_some());
            delivery.sent(FAILED);
            assert_eq!(next(&world, &mut delivery), None);
            world.pass_ms(60_000);
        }
        let brought = bring(&world);
        assert_eq!(brought.iter().flat_map(bodies).collect::<Vec<_>>(), said, "{fails_again}");
        assert_eq!(receipts(&brought), [read]);
    }
}

#[test]
fn that_its_like_had_the_places_for_long_does_not_shorten_the_pauses_of_a_server_that_fails() {
    let world = world();
    read(&world, "1");
    let mut delivery = due(&world);
    let failures =
        || world.ask(|reader| Ok(outbox::destination(reader, reader.text_num(THERE)?.unwrap())?.failures));
    for failed in 1..4 {
        assert!(next(&world, &mut delivery).is_some());
        delivery.sent(FAILED);
        assert_eq!(next(&world, &mut delivery), None);
        assert_eq!(failures(), failed);
        world.pass_ms(60_000);
        let left_out = world.engine.read(&DueDestinations { limit: 1, laggards_max: 0 }).unwrap();
        assert!(left_out.destinations.is_empty(), "others have the places");
        world.pass_ms(15 * 60_000);
        delivery = due(&world);
    }
}

#[test]
fn that_who_wrote_an_event_has_read_it_is_not_told_though_before_they_read_another() {
    let world = world();
    read(&world, "1");
    let own = world.message(ROOM, ALICE, "2");
    set(&world, SetReceipts { read: Some(own), ..SetReceipts::default() });
    let brought = bring(&world);
    assert_eq!(brought.iter().flat_map(bodies).collect::<Vec<_>>(), ["2"]);
    assert!(receipts(&brought).is_empty());
}

#[test]
fn a_server_that_has_left_is_not_looked_at_again_for_a_receipt_that_it_is_not_told() {
    let world = world();
    read(&world, "1");
    // The receipt waits for it.
    let due_now = world.engine.read(&DueDestinations { limit: 0, laggards_max: 0 }).unwrap();
    assert_eq!(due_now.next_ms, Some(world.engine.now_ms()));
    // It leaves by an event of its own, so that there is nothing else for it.
    world.leave(ROOM, BOB);
    let mut delivery = due(&world);
    assert_eq!(next(&world, &mut delivery), None, "it is not in the room any more");
    assert!(look(&world).is_empty(), "nothing is left for it");
}

#[test]
fn for_a_server_that_is_not_dealt_with_nothing_is_kept_that_is_soon_stale() {
    let world = world();
    read(&world, "1");
    assert_eq!(look(&world), [THERE.into()]);
    let shelved = DeliveryShelved { destination: THERE.into() };
    let due_ms = world.engine.write(shelved).wait().unwrap();
    world.engine.read(&LeaveDestination { destination: THERE, due_ms, was_prompt: None }).unwrap();
    read(&world, "2");
    set_presence(&world, PresenceState::Online);
    assert!(look(&world).is_empty(), "it is left alone");
    world.pass_ms(DAY_MS);
    assert!(look(&world).is_empty(), "nothing is kept for it");
}

#[test]
fn receipts_that_went_with_events_that_were_not_taken_come_behind_these() {
    let world = world();
    read(&world, "1");
    world.message(ROOM, ALICE, "hello");
    let mut delivery = due(&world);
    let first = next(&world, &mut delivery).unwrap();
    assert_eq!((bodies(&first), kinds(&first)), (vec!["hello".into()], vec!["m.receipt".into()]));
    delivery.sent(FAILED);
    assert_eq!(next(&world, &mut delivery), None);
    world.pass_ms(60_000);
    let mut delivery = due(&world);
    let again = next(&world, &mut delivery).unwrap();
    assert_eq!((&again.id, &again.pdus, again.edus.len()), (&first.id, &first.pdus, 0));
    delivery.sent(Sent::Done);
    let behind = next(&world, &mut delivery).unwrap();
    assert_eq!((behind.pdus.len(), kinds(&behind)), (0, vec!["m.receipt".into()]));
    delivery.sent(Sent::Done);
    assert_eq!(next(&world, &mut delivery), None);
    assert!(look(&world).is_empty(), "it has everything");
}

#[test]
fn a_slow_server_is_told_who_has_read_what_though_there_is_always_more_for_it() {
    let world = world();
    world.message(ROOM, ALICE, "0");
    let (mut told, mut ids) = (Vec::new(), Vec::new());
    for round in 1..4 {
        let mut delivery = due(&world);
        let transaction = next(&world, &mut delivery).unwrap();
        let expected: &[&str] = if round == 1 { &[] } else { &["m.receipt"] };
        assert_eq!(kinds(&transaction), expected, "{round}");
        told.extend(bodies(&transaction));
        ids.push(transaction.id);
        // While that is on its way.
        world.message(ROOM, ALICE, &round.to_string());
        read(&world, "hers");
        delivery.sent(Sent::DoneForNow);
        assert_eq!(next(&world, &mut delivery), None, "it waits for its turn");
    }
    let mut delivery = due(&world);
    let last = next(&world, &mut delivery).unwrap();
    told.extend(bodies(&last));
    ids.push(last.id);
    delivery.sent(Sent::DoneForNow);
    assert_eq!(next(&world, &mut delivery), None);
    assert_eq!(told, ["0", "1", "2", "3"], "everything once");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    // Whether there is more is looked at when it has its turn.
    let mut delivery = due(&world);
    assert_eq!(next(&world, &mut delivery), None);
    assert!(look(&world).is_empty());
}

#[test]
fn what_goes_out_again_under_its_id_has_nothing_new_in_it() {
    let world = world();
    world.message(ROOM, ALICE, "hello");
    let mut delivery = due(&world);
    let first = next(&world, &mut delivery).unwrap();
    // The other server may have taken it all the same, and would answer from memory what it gets again.
    delivery.sent(FAILED);
    assert_eq!(next(&world, &mut delivery), None);
    world.pass_ms(60_000);
    type_something(&world);
    let mut delivery = due(&world);
    assert_eq!(next(&world, &mut delivery).unwrap(), first);
    delivery.sent(Sent::Done);
    let behind = next(&world, &mut delivery).unwrap();
    assert_ne!(behind.id, first.id);
    assert_eq!((behind.pdus.len(), behind.edus.len()), (0, 1), "typing was kept for the next transaction");
    delivery.sent(Sent::Done);
    assert_eq!(next(&world, &mut delivery), None);
}

#[test]
fn a_server_that_asks_to_be_left_alone_is_for_a_day_at_most() {
    const OUTAGE_MS: u64 = 600_000;
    for (asked_ms, is_rate_limit, waited_ms) in [
        (3_600_000, true, 3_600_000),
        (u64::MAX, true, DAY_MS),
        (300_000, false, 300_000),
        (DAY_MS, false, OUTAGE_MS),
    ] {
        let world = world();
        world.message(ROOM, ALICE, "hello");
        let mut delivery = due(&world);
        next(&world, &mut delivery).unwrap();
        delivery.sent(Sent::Failed { retry_after_ms: asked_ms, is_rate_limit });
        assert_eq!(next(&world, &mut delivery), None);
        let due = world.engine.read(&DueDestinations { limit: 1, laggards_max: 1 }).unwrap();
        assert_eq!(due.next_ms, Some(world.engine.now_ms() + waited_ms));
    }
}
