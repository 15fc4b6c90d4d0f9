//! Who is sent what, once and in order, whatever comes between.

mod catching_up;
mod edus;
mod ends;
mod failed_reads;
mod heard;
mod trimming;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::{
    command::{DeliveryFailed, DeliveryShelved, HeardFromServer},
    fixture::{SERVER, World},
    room::{RoomCtx, servers},
    store::{Faults, Memory, RestOfKey, schema::PartialJoin},
    view::federation::{
        Due, DueDestinations, EphemeralEdus, IsBackingOff, LeaveDestination, MakeDue, MayBeBack,
    },
};

const ROOM: &str = "!room:here.example";
const OTHER_ROOM: &str = "!other:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const DAVE: &str = "@dave:third.example";
const THERE: &str = "there.example";
const THIRD: &str = "third.example";
const HOUR_MS: u64 = 60 * 60 * 1000;

fn world() -> World {
    let world = World::new();
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    world
}

fn look(world: &World) -> Due {
    // The first look after the start only begins to listen.
    world.engine.read(&DueDestinations { limit: 0, laggards_max: 0 }).unwrap();
    world.engine.read(&DueDestinations { limit: 1_000, laggards_max: 1_000 }).unwrap()
}

fn due(world: &World) -> Vec<Arc<str>> {
    look(world).destinations
}

fn ask(world: &World, server: &str, acknowledged: Option<&str>) -> NextUp {
    let acknowledged = acknowledged.map(str::to_owned);
    world
        .engine
        .write(NextTransaction { destination: server.into(), acknowledged, took_brief: false, begins: true })
        .wait()
        .unwrap()
}

/// What is sent to the other server does not reach it. Answers when it is tried again.
fn fail(world: &World) -> u64 {
    let failed = DeliveryFailed { destination: THERE.into(), retry_after_ms: 0, is_rate_limit: false };
    world.engine.write(failed).wait().unwrap()
}

/// This server does not deal with the other one. Answers when that is looked at again.
fn shelve(world: &World) -> u64 {
    let due_ms = world.engine.write(DeliveryShelved { destination: THERE.into() }).wait().unwrap();
    world.engine.read(&LeaveDestination { destination: THERE, due_ms, was_prompt: None }).unwrap();
    due_ms
}

/// The other server is heard from. Answers when it is tried, if that is sooner than before.
fn hear(world: &World) -> Option<u64> {
    world.engine.write(HeardFromServer { destination: THERE.into() }).wait().unwrap()
}

/// What the server itself does whenever it hears from the other one.
fn hear_as_served(world: &World) {
    if world.engine.read(&MayBeBack(THERE)).unwrap()
        && let Some(due_ms) = hear(world)
    {
        world.engine.read(&MakeDue { destination: THERE, due_ms }).unwrap();
    }
}

/// An attempt is over, and the other server left alone until then.
fn leave_until(world: &World, due_ms: u64) {
    world.engine.read(&LeaveDestination { destination: THERE, due_ms, was_prompt: Some(false) }).unwrap();
}

/// Does for a server what the driver does, until nothing is left; answers what the server was sent.
fn deliver(world: &World, server: &str) -> Vec<Transaction> {
    let (mut sent, mut acknowledged) = (Vec::new(), None);
    loop {
        let next = ask(world, server, acknowledged.as_deref());
        let is_all = next.transaction.is_none();
        let (delivered_to, limit) = (next.delivered_to, EDUS_MAX);
        let edus =
            world.engine.read(&EphemeralEdus { destination: server, delivered_to, is_all, limit }).unwrap();
        let Some(mut transaction) = next.transaction else {
            if !edus.is_empty() {
                sent.push(Transaction { id: String::new(), origin_server_ts: 0, pdus: Vec::new(), edus });
                continue;
            }
            world
                .engine
                .read(&LeaveDestination { destination: server, due_ms: 0, was_prompt: None })
                .unwrap();
            return sent;
        };
        transaction.edus.extend(edus);
        acknowledged = Some(transaction.id.clone());
        sent.push(transaction);
    }
}

/// Everything that is due is delivered; answers the bodies of messages and the memberships that each server was sent.
fn deliver_all(world: &World) -> Vec<(String, Vec<String>)> {
    due(world)
        .into_iter()
        .map(|server| {
            let sent = deliver(world, &server);
            let said = sent.iter().flat_map(|transaction| &transaction.pdus).map(said).collect();
            (server.to_string(), said)
        })
        .collect()
}

fn said(pdu: &Bytes) -> String {
    let pdu: Value = serde_json::from_slice(pdu).unwrap();
    let content = &pdu["content"];
    content["body"].as_str().or(content["membership"].as_str()).unwrap_or_default().to_owned()
}

fn sent(server: &str, said: &[&str]) -> (String, Vec<String>) {
    (server.to_owned(), said.iter().map(|text| (*text).to_owned()).collect())
}

fn rows(world: &World) -> usize {
    world.ask(|reader| {
        let mut found = 0;
        reader.scan(&schema::OUTGOING_EVENTS, &(), Direction::Forward, |_: (RoomNum, StreamPos), _| {
            found += 1;
            true
        })?;
        Ok(found)
    })
}

/// Rows of all that is kept for other servers.
fn all_rows(world: &World) -> usize {
    world.ask(|reader| {
        let mut found = 0;
        for keyspace in
            [schema::OUTGOING_EVENTS.raw(), schema::OUTGOING_EDUS.raw(), schema::DESTINATIONS.raw()]
        {
            reader.scan(&keyspace, &(), Direction::Forward, |_: RestOfKey, _| {
                found += 1;
                true
            })?;
        }
        Ok(found)
    })
}

#[test]
fn what_is_said_takes_no_more_for_many_servers_that_are_gone_than_for_one() {
    const SAID: usize = 200;
    for gone in [1, 50] {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        for number in 0..gone {
            world.join(ROOM, &format!("@bob:gone{number}.example"));
        }
        world.message(ROOM, ALICE, "first");
        let servers = due(&world);
        assert_eq!(servers.len(), gone);
        for server in servers {
            assert!(ask(&world, &server, None).transaction.is_some());
            let failed =
                DeliveryFailed { destination: server.to_string(), retry_after_ms: 0, is_rate_limit: false };
            let due_ms = world.engine.write(failed).wait().unwrap();
            let left = LeaveDestination { destination: &server, due_ms, was_prompt: Some(false) };
            world.engine.read(&left).unwrap();
        }
        let before = all_rows(&world);
        for number in 0..SAID {
            world.message(ROOM, ALICE, &number.to_string());
            assert!(due(&world).is_empty());
        }
        assert_eq!(all_rows(&world) - before, SAID, "{gone} are gone");
    }
}

#[test]
fn events_go_to_the_servers_in_the_room_once_and_in_order() {
    let world = world();
    world.join(ROOM, DAVE);
    for body in ["1", "2", "3"] {
        world.message(ROOM, ALICE, body);
    }
    let expected = [sent(THERE, &["1", "2", "3"]), sent(THIRD, &["1", "2", "3"])];
    assert_eq!(deliver_all(&world), expected);
    assert!(due(&world).is_empty());
    // What users of other servers do is not for this one to tell.
    world.message(ROOM, BOB, "4");
    assert!(due(&world).is_empty());
}

#[test]
fn rooms_without_other_servers_write_nothing() {
    let world = World::new();
    world.room(ROOM, ALICE, None);
    world.message(ROOM, ALICE, "1");
    assert_eq!(rows(&world), 0);
    assert!(due(&world).is_empty());
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "2");
    assert_eq!(rows(&world), 1);
    assert_eq!(deliver_all(&world), [sent(THERE, &["2"])]);
}

#[test]
fn an_event_is_one_row_however_many_servers_there_are() {
    let world = World::new();
    world.room(ROOM, ALICE, None);
    let servers: Vec<String> = (0..200).map(|number| format!("s{number:03}.example")).collect();
    for server in &servers {
        world.join(ROOM, &format!("@bob:{server}"));
    }
    world.message(ROOM, ALICE, "1");
    assert_eq!(rows(&world), 1);
    let mut told: Vec<String> = due(&world).iter().map(ToString::to_string).collect();
    told.sort();
    assert_eq!(told, servers);
    // Each only once, while somebody is at it; and not at all once it has everything.
    assert!(due(&world).is_empty());
    for server in &servers {
        assert_eq!(deliver(&world, server).len(), 1);
    }
    assert!(due(&world).is_empty());
    assert_eq!(world.ask(|reader| Ok(reader.shared.outbox.figures(reader.shared.clock.now_ms()))), (0, 0));
}

#[test]
fn nobody_is_sent_what_was_said_before_or_after() {
    let world = world();
    world.message(ROOM, ALICE, "both");
    world.message(ROOM, ALICE, "both again");
    world.leave(ROOM, BOB);
    world.message(ROOM, ALICE, "nobody");
    world.join(ROOM, DAVE);
    world.message(ROOM, ALICE, "dave");
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "all");
    let there = sent(THERE, &["both", "both again", "all"]);
    assert_eq!(deliver_all(&world), [there, sent(THIRD, &["dave", "all"])]);
}

#[test]
fn while_members_are_not_known_their_servers_are_told() {
    let world = World::new();
    world.room(ROOM, ALICE, None);
    let supposed = vec![THERE.to_owned(), SERVER.to_owned(), "no server".to_owned()];
    let set_partial = |partial: bool| {
        world
            .act(|tx| {
                let mut room = RoomCtx::load(tx, ROOM)?;
                room.head.partial_state = partial;
                room.save(tx);
                if partial {
                    let row = PartialJoin { event_id: "$join".into(), servers: supposed.clone() };
                    tx.put(&schema::PARTIAL_JOINS, &room.num, &row);
                    servers::suppose(tx, room.num, &supposed)?;
                } else {
                    tx.delete(&schema::PARTIAL_JOINS, &room.num);
                    let pos = tx.next_position();
                    servers::settle_supposed(tx, room.num, &supposed, pos)?;
                }
                Ok(())
            })
            .unwrap();
    };
    set_partial(true);
    world.message(ROOM, ALICE, "1");
    assert_eq!(deliver_all(&world), [sent(THERE, &["1"])]);
    // One of its users comes and goes, but there may be others.
    world.join(ROOM, BOB);
    world.leave(ROOM, BOB);
    world.message(ROOM, ALICE, "2");
    assert_eq!(deliver_all(&world), [sent(THERE, &["2"])]);
    // Who is invited and turned away meanwhile is told of it by that alone.
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    assert_eq!(deliver_all(&world), [sent(THERE, &["invite", "leave"])]);
    set_partial(false);
    world.message(ROOM, ALICE, "3");
    assert_eq!(deliver_all(&world), [sent(THERE, &[])]);
}

#[test]
fn whoever_is_turned_away_is_told() {
    let world = world();
    world.member(ROOM, ALICE, BOB, "leave").unwrap();
    assert_eq!(deliver_all(&world), [sent(THERE, &["leave"])]);
    world.message(ROOM, ALICE, "after");
    assert!(due(&world).is_empty());
    // An invite goes by another way; that it is taken back goes by this one.
    world.member(ROOM, ALICE, DAVE, "invite").unwrap();
    assert!(due(&world).is_empty());
    world.member(ROOM, ALICE, DAVE, "leave").unwrap();
    assert_eq!(deliver_all(&world), [sent(THIRD, &["leave"])]);
    // Who never had to do with the room is not told that they may not come.
    world.member(ROOM, ALICE, "@eve:fourth.example", "ban").unwrap();
    assert!(due(&world).is_empty());
}

#[test]
fn a_transaction_is_repeated_until_it_is_acknowledged() {
    let memory = Arc::new(Memory::default());
    let world = World::on(memory.clone());
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "1");
    assert_eq!(due(&world).len(), 1);
    let first = ask(&world, THERE, None).transaction.unwrap();
    world.message(ROOM, ALICE, "2");
    due(&world);
    assert_eq!(ask(&world, THERE, None).transaction, Some(first.clone()));
    assert_eq!(ask(&world, THERE, Some("another")).transaction, Some(first.clone()));
    // The same after a restart, in which nothing is known that was only in memory.
    drop(world);
    let world = World::on(memory.clone());
    assert_eq!(due(&world), [THERE.into()]);
    assert_eq!(ask(&world, THERE, None).transaction, Some(first.clone()));
    let second = ask(&world, THERE, Some(&first.id)).transaction.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.pdus.iter().map(said).collect::<Vec<_>>(), ["2"]);
    drop(world);
    let world = World::on(memory);
    assert_eq!(due(&world), [THERE.into()]);
    assert_eq!(ask(&world, THERE, Some(&second.id)).transaction, None);
    assert!(deliver(&world, THERE).is_empty());
}

#[test]
fn many_events_take_many_transactions_in_the_order_of_all_rooms() {
    let world = world();
    world.room(OTHER_ROOM, ALICE, None);
    world.join(OTHER_ROOM, BOB);
    let bodies: Vec<String> = (0..120).map(|number| number.to_string()).collect();
    for (number, body) in bodies.iter().enumerate() {
        world.message(if number % 3 == 0 { OTHER_ROOM } else { ROOM }, ALICE, body);
    }
    assert_eq!(due(&world).len(), 1);
    let sent = deliver(&world, THERE);
    let sizes: Vec<usize> = sent.iter().map(|transaction| transaction.pdus.len()).collect();
    assert_eq!(sizes, [50, 50, 20]);
    let told: Vec<String> = sent.iter().flat_map(|transaction| &transaction.pdus).map(said).collect();
    assert_eq!(told, bodies);
}

#[test]
fn events_for_one_server_alone_come_first_and_leave_room_for_what_is_for_all() {
    let world = world();
    world.room(OTHER_ROOM, ALICE, None);
    let bodies = |name: &str, count: usize| -> Vec<String> {
        (0..count).map(|number| format!("{name} {number}")).collect()
    };
    let (own, common) = (bodies("own", 12), bodies("common", 70));
    let alone: Vec<String> = own.iter().map(|body| world.message(OTHER_ROOM, ALICE, body)).collect();
    common.iter().for_each(|body| drop(world.message(ROOM, ALICE, body)));
    world
        .act(|tx| {
            let server = tx.intern_text(THERE)?;
            for event_id in &alone {
                let num = tx.event_num(event_id)?.unwrap();
                outbox::send_event(tx, server, num);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(due(&world), [THERE.into()]);
    let sent = deliver(&world, THERE);
    let sizes: Vec<usize> = sent.iter().map(|transaction| transaction.pdus.len()).collect();
    assert_eq!(sizes, [50, 32]);
    let told: Vec<String> = sent.iter().flat_map(|transaction| &transaction.pdus).map(said).collect();
    assert_eq!(told, [&own[..10], &common[..40], &own[10..], &common[40..]].concat());
    assert!(due(&world).is_empty());
}

#[test]
fn pauses_are_kept_and_a_sign_of_life_ends_them() {
    let memory = Arc::new(Memory::default());
    let world = World::on(memory.clone());
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "1");
    assert_eq!(due(&world).len(), 1);
    ask(&world, THERE, None);
    let retry_ms = fail(&world);
    world.engine.read(&LeaveDestination { destination: THERE, due_ms: retry_ms, was_prompt: None }).unwrap();
    let wait_ms = retry_ms - world.engine.now_ms();
    assert!((8_000..=12_000).contains(&wait_ms));
    world.message(ROOM, ALICE, "2");
    let idle = look(&world);
    assert_eq!((idle.destinations.len(), idle.next_ms), (0, Some(retry_ms)));
    for _ in 0..3 {
        fail(&world);
    }
    world.pass_ms(10_000);
    let now_ms = world.engine.now_ms();
    assert_eq!(hear(&world), Some(now_ms));
    world.engine.read(&MakeDue { destination: THERE, due_ms: now_ms }).unwrap();
    assert_eq!(due(&world), [THERE.into()]);
    assert_eq!(hear(&world), None, "there is no pause any more");
    // After a restart, pauses go on.
    let retry_ms = fail(&world);
    let left_ms = retry_ms - world.engine.now_ms();
    drop(world);
    let world = World::on(memory);
    world.pass_ms(10_010);
    let idle = look(&world);
    assert_eq!((idle.destinations.len(), idle.next_ms), (0, Some(retry_ms)));
    world.pass_ms(left_ms);
    assert_eq!(due(&world), [THERE.into()]);
}

#[test]
fn a_pause_that_the_server_asked_for_is_kept_and_no_sign_of_life_ends_it() {
    let memory = Arc::new(Memory::default());
    let world = World::on(memory.clone());
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "1");
    assert_eq!(due(&world).len(), 1);
    ask(&world, THERE, None);
    let failed = DeliveryFailed { destination: THERE.into(), retry_after_ms: HOUR_MS, is_rate_limit: true };
    let retry_ms = world.engine.write(failed).wait().unwrap();
    assert_eq!(retry_ms, world.engine.now_ms() + HOUR_MS);
    drop(world);
    let world = World::on(memory);
    world.pass_ms(60_000);
    let idle = look(&world);
    assert_eq!((idle.destinations.len(), idle.next_ms), (0, Some(retry_ms)));
    assert_eq!(hear(&world), None);
    world.pass_ms(HOUR_MS);
    assert_eq!(due(&world), [THERE.into()]);
}

/// However often it failed before, and so however long it would have been left alone anyway.
#[test]
fn only_a_limit_on_requests_holds_against_signs_of_life_and_for_as_long_as_was_asked() {
    for (failures, asked_ms, is_rate_limit) in
        [(9, HOUR_MS, true), (20, 24 * HOUR_MS, true), (9, 24 * HOUR_MS, false), (20, HOUR_MS, false)]
    {
        let world = world();
        world.message(ROOM, ALICE, "1");
        assert_eq!(due(&world).len(), 1);
        ask(&world, THERE, None);
        let fail = |retry_after_ms: u64, is_rate_limit: bool| {
            let failed = DeliveryFailed { destination: THERE.into(), retry_after_ms, is_rate_limit };
            world.engine.write(failed).wait().unwrap()
        };
        for _ in 0..failures {
            fail(0, false);
        }
        let due_ms = fail(asked_ms, is_rate_limit);
        world.engine.read(&LeaveDestination { destination: THERE, due_ms, was_prompt: None }).unwrap();
        let may_be_back = || world.engine.read(&MayBeBack(THERE)).unwrap();
        let heard = || hear(&world).is_some();
        world.pass_ms(60_000);
        assert!(world.engine.read(&IsBackingOff(THERE)).unwrap());
        assert_eq!(may_be_back(), !is_rate_limit, "{failures}, {asked_ms}");
        if is_rate_limit {
            assert!(!heard(), "{failures}, {asked_ms}");
            // Nothing is left of what it asked for, but maybe of its own pause.
            world.pass_ms(asked_ms - 60_000);
            assert_eq!(may_be_back(), world.engine.now_ms() < due_ms);
        }
        assert_eq!(heard(), world.engine.now_ms() < due_ms, "{failures}, {asked_ms}");
    }
}

#[test]
fn a_pause_that_begins_after_now_is_over() {
    let memory = Arc::new(Memory::default());
    let world = World::on(memory.clone());
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    world.message(ROOM, ALICE, "1");
    assert_eq!(due(&world).len(), 1);
    ask(&world, THERE, None);
    // An hour ahead of what the clock is set back to.
    world.pass_ms(3_600_000);
    for _ in 0..10 {
        fail(&world);
    }
    drop(world);
    let world = World::on(memory);
    assert_eq!(due(&world), [THERE.into()]);
    assert_eq!(hear(&world), Some(world.engine.now_ms()));
    assert_eq!(hear(&world), None, "there is no pause any more");
}

#[test]
fn a_limit_on_requests_holds_against_signs_of_life_during_the_attempt() {
    let world = world();
    world.message(ROOM, ALICE, "1");
    assert_eq!(due(&world).len(), 1);
    ask(&world, THERE, None);
    hear_as_served(&world);
    let failed = DeliveryFailed { destination: THERE.into(), retry_after_ms: HOUR_MS, is_rate_limit: true };
    let due_ms = world.engine.write(failed).wait().unwrap();
    assert_eq!(due_ms, world.engine.now_ms() + HOUR_MS);
    leave_until(&world, due_ms);
    assert_eq!(look(&world).next_ms, Some(due_ms));
}

/// Commits fail as a disk may make them fail, and now and then everything begins anew: what is acknowledged goes out all the
/// same, in order, and nothing else does.
#[test]
fn nothing_is_lost_or_disordered_by_faults_and_crashes() {
    for seed in 0..40 {
        let memory = Arc::new(Memory::default());
        let mut world = World::on(memory.clone());
        world.room(ROOM, ALICE, None);
        world.join(ROOM, BOB);
        memory.set_faults(Faults { seed, refused_one_in: 5, unknown_one_in: 7, late_one_in: 9 });
        let (mut acknowledged, mut received): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut sent_id: Option<String> = None;
        for step in 0..60 {
            let body = step.to_string();
            let content = serde_json::json!({"body": body});
            if world.try_send(ROOM, ALICE, "m.room.message", None, &content, None).is_ok() {
                acknowledged.push(body);
            }
            if step % 13 == 12 {
                drop(world);
                memory.crash();
                world = World::on(memory.clone());
                sent_id = None;
            }
            due(&world);
            let ask = NextTransaction {
                destination: THERE.into(),
                acknowledged: sent_id.clone(),
                took_brief: false,
                begins: true,
            };
            if let Ok(next) = world.engine.write(ask).wait() {
                sent_id = next.transaction.as_ref().map(|transaction| transaction.id.clone());
                for pdu in next.transaction.iter().flat_map(|transaction| &transaction.pdus) {
                    let said = said(pdu);
                    if !received.contains(&said) {
                        received.push(said);
                    }
                }
            }
        }
        memory.set_faults(Faults::default());
        due(&world);
        for transaction in deliver(&world, THERE) {
            for said in transaction.pdus.iter().map(said) {
                if !received.contains(&said) {
                    received.push(said);
                }
            }
        }
        let order: Vec<u64> = received.iter().map(|body| body.parse().unwrap()).collect();
        assert!(order.is_sorted(), "seed {seed}: {order:?}");
        let missing: Vec<_> = acknowledged.iter().filter(|body| !received.contains(body)).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?}");
    }
}
