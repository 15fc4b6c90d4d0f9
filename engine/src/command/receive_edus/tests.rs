//! What other servers tell is taken in as far as it is theirs to tell.

mod bounds;
mod full_queues;
mod partial;
mod who_is_there;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    command::{Prune, PruneProgress, RemoteDevice, SettleReceipts, StoreRemoteDevices},
    core::num::StreamPos,
    device::tests::{Signer, query, register},
    fixture::World,
    room::{receipts, typing},
    store::{Direction, Memory},
    view::federation::{
        AnsweredTransaction, DueReceipts, RoomsWithEarlyReceipts, StaleDeviceList, StaleDeviceLists,
    },
};

const ROOM: &str = "!room:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";
const THERE: &str = "there.example";

fn world() -> World {
    furnished(World::new())
}

fn furnished(world: World) -> World {
    register(&world, "alice", &["A", "B"]);
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    world
}

fn receive(world: &World, origin: &str, edus: &[(&str, Value)]) -> Vec<String> {
    let edus: Vec<Value> =
        edus.iter().map(|(kind, content)| json!({"edu_type": kind, "content": content})).collect();
    take(world, origin, &edus).stale
}

fn take(world: &World, origin: &str, edus: &[Value]) -> TakenEdus {
    world.engine.write(ReceiveEdus::new(origin, edus)).wait().unwrap()
}

#[test]
fn what_is_passed_over_is_told_with_its_reason() {
    let world = world();
    world.room("!third:here.example", ALICE, None);
    let elsewhere = world.message("!third:here.example", ALICE, "hello");
    let edus: Vec<Value> = [
        ("m.typing", json!({"room_id": ROOM, "user_id": "@carl:there.example", "typing": true})),
        ("m.typing", json!({"room_id": "!other:here.example", "user_id": BOB, "typing": true})),
        ("m.typing", json!({"room_id": ROOM, "user_id": ALICE, "typing": true})),
        ("m.receipt", json!({ROOM: {"m.read": {BOB: {"event_ids": [elsewhere], "data": {"ts": 1}}}}})),
        ("m.presence", json!({"push": [{"user_id": "@carl:there.example", "presence": "offline"}]})),
        (
            "m.direct_to_device",
            json!({"sender": BOB, "type": "m.t", "message_id": "1", "messages": {ALICE: {"A": {}, "Z": {}}}}),
        ),
        (
            "m.direct_to_device",
            json!({"sender": BOB, "type": "m.t", "message_id": "1", "messages": {ALICE: {"A": {}}}}),
        ),
        ("m.signing_key_update", json!({"user_id": "@carl:there.example"})),
        ("m.unheard", json!({})),
    ]
    .iter()
    .map(|(kind, content)| json!({"edu_type": kind, "content": content}))
    .collect();
    assert_eq!(ReceiveEdus::new(THERE, &edus).not_understood(), 2);
    let expected = [
        ("no_shared_room", 2),
        ("not_in_room", 2),
        ("repeated", 1),
        ("unknown_device", 1),
        ("unknown_event", 1),
    ];
    assert_eq!(take(&world, THERE, &edus).dropped, BTreeMap::from(expected));
}

fn typists(world: &World) -> Value {
    world.ask(|reader| {
        let content = typing::since(reader, reader.room_num(ROOM)?.unwrap(), StreamPos::ZERO)?;
        Ok(content.map_or(Value::Null, |content| serde_json::from_slice(&content).unwrap()))
    })
}

#[test]
fn typing_is_shown_of_those_who_are_in_the_room() {
    let world = world();
    let typing =
        |user: &str, typing: bool| ("m.typing", json!({"room_id": ROOM, "user_id": user, "typing": typing}));
    receive(&world, THERE, &[typing("@carl:there.example", true), typing(ALICE, true)]);
    receive(&world, "third.example", &[typing(BOB, true)]);
    assert_eq!(typists(&world), Value::Null);
    receive(&world, THERE, &[("m.typing", json!(7)), typing(BOB, true)]);
    assert_eq!(typists(&world), json!({"user_ids": [BOB]}));
    receive(&world, THERE, &[typing(BOB, false)]);
    assert_eq!(typists(&world), Value::Null);
    let denied = json!({"deny": [THERE], "allow": ["*"]});
    world.state(ROOM, ALICE, "m.room.server_acl", "", denied);
    receive(&world, THERE, &[typing(BOB, true)]);
    assert_eq!(typists(&world), Value::Null);
}

fn receipt_of(user: &str, event_id: &str, thread: Option<&str>) -> (&'static str, Value) {
    let mut data = json!({"ts": 5});
    if let Some(thread) = thread {
        data["thread_id"] = thread.into();
    }
    ("m.receipt", json!({ROOM: {"m.read": {user: {"event_ids": [event_id], "data": data}}}}))
}

fn receipt(event_id: &str, thread: Option<&str>) -> (&'static str, Value) {
    receipt_of(BOB, event_id, thread)
}

/// The receipts that Alice is told of since a position.
fn receipts_told(world: &World, since: StreamPos) -> Value {
    world.ask(|reader| {
        let (room, user) = (reader.room_num(ROOM)?.unwrap(), reader.user_num(ALICE)?.unwrap());
        let contents = receipts::since(reader, room, user, since)?;
        assert!(contents.len() <= 1, "nobody has read up to one event in several threads");
        Ok(contents.first().map_or(Value::Null, |content| serde_json::from_slice(content).unwrap()))
    })
}

/// What the server does when it starts; and in one room when events have come there, and when a receipt was let wait.
fn settle(world: &World) {
    for room_id in world.engine.read(&RoomsWithEarlyReceipts).unwrap() {
        let users = world.engine.read(&DueReceipts { room_id: &room_id }).unwrap();
        world.engine.write(SettleReceipts { room_id, users }).wait().unwrap();
    }
}

/// The receipts that wait, by user, thread and event.
fn waiting_receipts(world: &World) -> Vec<(String, String, String)> {
    world.ask(|reader| {
        let mut rows = Vec::new();
        reader.scan(
            &schema::EARLY_RECEIPTS,
            &(),
            Direction::Forward,
            |key: (RoomNum, UserNum, String), row| {
                rows.push((key, row.event_id));
                true
            },
        )?;
        let named = rows.into_iter();
        named
            .map(|((_, user, thread), event_id)| Ok((reader.user_id(user)?.to_string(), thread, event_id)))
            .collect()
    })
}

#[test]
fn receipts_are_of_events_and_threads_that_are_here() {
    let world = world();
    let event_id = world.message(ROOM, ALICE, "hello");
    receive(&world, THERE, &[receipt("$none", None), receipt(&event_id, Some("$none"))]);
    receive(&world, "third.example", &[receipt(&event_id, None)]);
    assert_eq!(receipts_told(&world, StreamPos::ZERO), Value::Null);
    receive(&world, THERE, &[receipt(&event_id, Some("main"))]);
    let told = receipts_told(&world, StreamPos::ZERO);
    assert_eq!(told, json!({&event_id: {"m.read": {BOB: {"ts": 5, "thread_id": "main"}}}}));
}

#[test]
fn so_are_receipts_of_threads_whose_root_is_not_here() {
    let world = world();
    let inside = world.relate(ROOM, ALICE, "m.thread", "$before", json!({}));
    receive(&world, THERE, &[receipt(&inside, Some("$made-up"))]);
    assert_eq!(receipts_told(&world, StreamPos::ZERO), Value::Null);
    receive(&world, THERE, &[receipt(&inside, Some("$before"))]);
    let told = receipts_told(&world, StreamPos::ZERO);
    assert_eq!(told, json!({&inside: {"m.read": {BOB: {"ts": 5, "thread_id": "$before"}}}}));
    assert_eq!(waiting_receipts(&world), [(BOB.into(), "$made-up".into(), inside)]);
}

/// The ids of what Alice says in a world where all happens that happens in the test's, but for receipts: that gives events
/// the same ids.
fn said_later(bodies: &[&str]) -> Vec<String> {
    let world = world();
    bodies.iter().map(|body| world.message(ROOM, ALICE, body)).collect()
}

#[test]
fn a_receipt_that_comes_before_its_event_takes_effect_when_that_comes() {
    let (backend, ids) = (Arc::new(Memory::default()), said_later(&["first", "second"]));
    let world = furnished(World::on(backend.clone()));
    receive(
        &world,
        THERE,
        &[receipt(&ids[1], None), receipt(&ids[0], Some("main")), receipt("$never", Some("$root"))],
    );
    assert_eq!(waiting_receipts(&world).len(), 3);
    settle(&world);
    assert_eq!((receipts_told(&world, StreamPos::ZERO), waiting_receipts(&world).len()), (Value::Null, 3));
    assert_eq!(world.message(ROOM, ALICE, "first"), ids[0]);
    settle(&world);
    let first = json!({&ids[0]: {"m.read": {BOB: {"ts": 5, "thread_id": "main"}}}});
    assert_eq!(receipts_told(&world, StreamPos::ZERO), first);
    // It waits on after a restart.
    drop(world);
    let world = World::on(backend);
    let before = world.engine.position();
    assert_eq!(waiting_receipts(&world).len(), 2);
    let second = world.message(ROOM, ALICE, "second");
    receive(&world, THERE, &[receipt(&second, None)]);
    assert_eq!(receipts_told(&world, before), json!({&second: {"m.read": {BOB: {"ts": 5}}}}));
    // What was told meanwhile has taken its place.
    assert_eq!(waiting_receipts(&world), [(BOB.into(), "$root".into(), "$never".into())]);
}

#[test]
fn only_the_newest_receipts_wait_and_of_each_server_few() {
    let world = world();
    receive(&world, THERE, &[receipt("$old", None), receipt("$new", None)]);
    assert_eq!(waiting_receipts(&world), [(BOB.into(), String::new(), "$new".into())]);
    // Nobody can make up threads without end; the oldest go.
    for thread in 0..30 {
        world.pass_ms(1);
        receive(&world, THERE, &[receipt("$in_thread", Some(&format!("$root{thread}")))]);
    }
    let kept: BTreeSet<String> = waiting_receipts(&world).into_iter().map(|(_, thread, _)| thread).collect();
    assert_eq!(kept, (20..30).map(|thread| format!("$root{thread}")).collect());
    // Nor do the users of one server crowd the others out.
    let crowd: Vec<String> = (0..300).map(|number| format!("@user{number}:third.example")).collect();
    for user in &crowd {
        world.join(ROOM, user);
        world.pass_ms(1);
        receive(&world, "third.example", &[receipt_of(user, "$none", None)]);
    }
    let users: Vec<String> = waiting_receipts(&world).into_iter().map(|(user, _, _)| user).collect();
    assert_eq!(users.iter().filter(|user| *user == BOB).count(), 10);
    let of_crowd: Vec<&String> = users.iter().filter(|user| *user != BOB).collect();
    assert_eq!(of_crowd, crowd[50..].iter().collect::<Vec<_>>());
}

#[test]
fn what_comes_late_takes_nothing_from_a_receipt_that_waits() {
    let world = world();
    let ids = said_later(&["first", "second", "third"]);
    assert_eq!(["first", "second"].map(|body| world.message(ROOM, ALICE, body))[..], ids[..2]);
    // Bob has read the second event, then the third, which is not here; that he has read the first one comes last.
    receive(&world, THERE, &[receipt(&ids[1], None), receipt(&ids[2], None), receipt(&ids[0], None)]);
    let waiting = (BOB.to_owned(), String::new(), ids[2].clone());
    assert_eq!(waiting_receipts(&world), [waiting]);
    let before = world.engine.position();
    assert_eq!(world.message(ROOM, ALICE, "third"), ids[2]);
    settle(&world);
    assert_eq!(receipts_told(&world, before), json!({&ids[2]: {"m.read": {BOB: {"ts": 5}}}}));
    // One that has been overtaken goes when it is looked at.
    let overtaken = EarlyReceipt { event_id: ids[0].clone(), ts: 5, since_ms: 0 };
    let wait = |tx: &mut Tx| {
        let key = (tx.room_num(ROOM)?.unwrap(), tx.user_num(BOB)?.unwrap(), String::new());
        tx.put(&schema::EARLY_RECEIPTS, &key, &overtaken);
        Ok(())
    };
    world.act(wait).unwrap();
    let before = world.engine.position();
    settle(&world);
    assert_eq!((receipts_told(&world, before), waiting_receipts(&world)), (Value::Null, Vec::new()));
}

#[test]
fn a_receipt_of_a_server_that_was_shut_out_is_dropped_when_its_event_comes() {
    let shut_out = |world: &World| {
        let acl = json!({"deny": [THERE], "allow": ["*"]});
        world.state(ROOM, ALICE, "m.room.server_acl", "", acl);
    };
    let elsewhere = world();
    shut_out(&elsewhere);
    let awaited = elsewhere.message(ROOM, ALICE, "awaited");
    let world = world();
    receive(&world, THERE, &[receipt(&awaited, None)]);
    shut_out(&world);
    // Until then the list is not read for it: many may wait, and they are looked at with each event.
    assert!(world.engine.read(&DueReceipts { room_id: ROOM }).unwrap().is_empty());
    assert_eq!(world.message(ROOM, ALICE, "awaited"), awaited);
    settle(&world);
    assert_eq!((receipts_told(&world, StreamPos::ZERO), waiting_receipts(&world)), (Value::Null, Vec::new()));
}

#[test]
fn what_receipts_wait_for_in_vain_is_not_kept() {
    let world = world();
    let carl = "@carl:there.example";
    world.join(ROOM, carl);
    receive(&world, THERE, &[receipt("$none", None), receipt_of(carl, "$none", None)]);
    world.leave(ROOM, BOB);
    assert_eq!(waiting_receipts(&world), [(carl.into(), String::new(), "$none".into())]);
    let prune = || {
        let progress = Arc::new(PruneProgress::default());
        for _ in 0..20 {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
    };
    world.pass_ms(23 * 60 * 60 * 1000);
    prune();
    assert_eq!(waiting_receipts(&world).len(), 1);
    world.pass_ms(2 * 60 * 60 * 1000);
    prune();
    assert_eq!(waiting_receipts(&world).len(), 0);
}

#[test]
fn messages_to_devices_come_once() {
    let world = world();
    let direct = |id: &str| {
        let messages = json!({
            ALICE: {"*": {"n": 1}, "A": {"n": 2}, "X": {}}, "@nobody:here.example": {"*": {}},
            "@eve:third.example": {"*": {}},
        });
        let content = json!({"sender": BOB, "type": "m.test", "message_id": id, "messages": messages});
        ("m.direct_to_device", content)
    };
    receive(&world, THERE, &[direct("1"), direct("1")]);
    receive(&world, THERE, &[direct("1")]);
    // Another server does not speak for the user; its ids are its own.
    receive(&world, "third.example", &[direct("1")]);
    let waiting = |device: &str| {
        world.ask(|reader| {
            let (user, device) = (reader.user_num(ALICE)?.unwrap(), reader.text_num(device)?.unwrap());
            to_device::since(reader, user, device, StreamPos::ZERO, reader.pos, 10)
        })
    };
    for device in ["A", "B"] {
        let (messages, _) = waiting(device);
        assert_eq!(messages.len(), 1, "{device}");
        let message: Value = serde_json::from_slice(&messages[0]).unwrap();
        assert_eq!(message, json!({"content": {"n": 1}, "sender": BOB, "type": "m.test"}));
    }
    receive(&world, THERE, &[direct("2")]);
    assert_eq!(waiting("A").0.len(), 2);
    let is_remembered = |id: &str| {
        world.ask(|reader| {
            let key = (reader.text_num(THERE)?.unwrap(), id.to_owned());
            Ok(reader.has(&schema::RECEIVED_MESSAGES, &key)?)
        })
    };
    // What reaches no device leaves nothing behind, however often it comes.
    let messages = json!({"@nobody:here.example": {"*": {}}, ALICE: {"X": {}}});
    let content = json!({"sender": BOB, "type": "m.test", "message_id": "nobody's", "messages": messages});
    receive(&world, THERE, &[("m.direct_to_device", content)]);
    assert_eq!(["1", "2", "nobody's"].map(is_remembered), [true, true, false]);
}

fn list(world: &World, stream_id: u64, devices: &[(&str, u8)]) -> bool {
    let devices = devices.iter().map(|(device_id, seed)| RemoteDevice {
        device_id: (*device_id).to_owned(),
        name: Some("phone".to_owned()),
        keys: Some(Signer::new(*seed).device(BOB, device_id)),
    });
    let store = StoreRemoteDevices {
        user_id: BOB.into(),
        stream_id,
        mark: world.engine.read(&StaleDeviceList(BOB)).unwrap(),
        devices: devices.collect(),
        ..StoreRemoteDevices::default()
    };
    world.engine.write(store).wait().unwrap()
}

fn update(device_id: &str, seed: Option<u8>, stream_id: u64, prev_id: &[u64]) -> (&'static str, Value) {
    let keys = seed.map(|seed| Signer::new(seed).device(BOB, device_id));
    let content = json!({
        "user_id": BOB, "device_id": device_id, "stream_id": stream_id, "prev_id": prev_id,
        "deleted": keys.is_none(), "keys": keys,
    });
    ("m.device_list_update", content)
}

fn keys(world: &World) -> Vec<(String, String)> {
    let answer = query(world, ALICE, &[BOB]);
    let devices = answer["device_keys"][BOB].as_object().cloned().unwrap_or_default();
    let keys = devices.iter().map(|(device_id, keys)| {
        let key = keys["keys"][format!("ed25519:{device_id}")].as_str().unwrap();
        (device_id.clone(), key.to_owned())
    });
    keys.collect()
}

fn key(device_id: &str, seed: u8) -> (String, String) {
    (device_id.to_owned(), Signer::new(seed).public())
}

/// Whose devices Alice is told to have changed since a position.
fn changed(world: &World, since: StreamPos) -> Vec<String> {
    let changes = crate::view::KeyChanges { user_id: ALICE.into(), from: since, to: world.engine.position() };
    world.engine.read(&changes).unwrap().changed
}

#[test]
fn device_lists_are_followed_and_gaps_found() {
    let world = world();
    let before = world.engine.position();
    // Of whom nothing is known, nothing is kept, but the change is told.
    assert!(receive(&world, THERE, &[update("P", Some(1), 5, &[])]).is_empty());
    assert_eq!(changed(&world, before), [BOB]);
    assert!(keys(&world).is_empty());
    assert!(list(&world, 5, &[("P", 1)]));
    assert_eq!(keys(&world), [key("P", 1)]);
    let before = world.engine.position();
    assert!(receive(&world, THERE, &[update("Q", Some(2), 7, &[5]), update("P", None, 8, &[7])]).is_empty());
    assert_eq!(keys(&world), [key("Q", 2)]);
    assert_eq!(changed(&world, before), [BOB]);
    // Again is no news.
    let before = world.engine.position();
    for _ in 0..3 {
        assert!(receive(&world, THERE, &[update("Q", Some(2), 7, &[5])]).is_empty());
    }
    assert_eq!((keys(&world), changed(&world, before).len()), (vec![key("Q", 2)], 0));
    // One is missing: nothing is answered until the whole list is here.
    assert_eq!(receive(&world, THERE, &[update("R", Some(4), 12, &[10])]), [BOB]);
    assert!(keys(&world).is_empty());
    assert_eq!(world.engine.read(&StaleDeviceLists { limit: 10, without: &|_| false }).unwrap(), [BOB]);
    assert!(list(&world, 12, &[("Q", 2), ("R", 4)]));
    assert_eq!(keys(&world), [key("Q", 2), key("R", 4)]);
    assert!(world.engine.read(&StaleDeviceLists { limit: 10, without: &|_| false }).unwrap().is_empty());
    // Another server cannot say anything of the user.
    receive(&world, "third.example", &[update("R", None, 13, &[12])]);
    assert_eq!(keys(&world).len(), 2);
}

#[test]
fn an_update_that_follows_none_makes_a_list_stale_whatever_its_position() {
    for stream_id in [1, 5, 9] {
        let world = world();
        assert!(list(&world, 5, &[("P", 1)]));
        let before = world.engine.position();
        // Of servers that only say that something has changed, each time.
        for count in 1..4 {
            assert_eq!(
                receive(&world, THERE, &[update("dummy", None, stream_id, &[])]),
                [BOB],
                "{stream_id}"
            );
            assert!(keys(&world).is_empty());
            assert!(list(&world, count, &[("P", 1), ("Q", 2)]));
            assert_eq!(keys(&world), [key("P", 1), key("Q", 2)]);
        }
        assert_eq!(changed(&world, before), [BOB]);
    }
}

#[test]
fn a_server_that_counts_anew_is_followed() {
    // Restored from a copy of a time when it was at 1.
    for (device, seed, pos) in [("Q", Some(2), 2), ("P", Some(2), 5), ("P", None, 3), ("Q", None, 5)] {
        let (world, news) = (world(), update(device, seed, pos, &[1]));
        assert!(list(&world, 5, &[("P", 1)]));
        assert_eq!(receive(&world, THERE, std::slice::from_ref(&news)), [BOB], "{news:?}");
        assert!(list(&world, 2, &[("P", 1), ("Q", 2)]));
        assert!(receive(&world, THERE, &[update("R", Some(3), 3, &[2])]).is_empty());
        assert_eq!(keys(&world), [key("P", 1), key("Q", 2), key("R", 3)]);
    }
}

#[test]
fn a_late_update_is_no_repetition_if_only_a_signature_or_a_name_is_new() {
    let world = world();
    let signer = Signer::new(1);
    let told = |keys: &crate::core::event::JsonObject, name: &str| {
        let content = json!({
            "user_id": BOB, "device_id": "P", "device_display_name": name, "stream_id": 4, "prev_id": [3], "keys": keys,
        });
        receive(&world, THERE, &[("m.device_list_update", content)])
    };
    let mut keys = signer.device(BOB, "P");
    assert!(list(&world, 5, &[("P", 1)]));
    assert!(told(&keys, "phone").is_empty());
    assert_eq!(told(&keys, "other"), [BOB]);
    assert!(list(&world, 5, &[("P", 1)]));
    Signer::new(7).sign(&mut keys, BOB, "another");
    assert_eq!(told(&keys, "phone"), [BOB]);
}

#[test]
fn devices_without_keys_leave_no_names() {
    let world = world();
    assert!(list(&world, 5, &[]));
    receive(&world, THERE, &[update("GONE", None, 6, &[5])]);
    assert!(world.ask(|reader| Ok(reader.text_num("GONE")?.is_none())));
}

#[test]
fn who_shares_no_room_any_more_is_not_followed() {
    let world = world();
    assert!(list(&world, 5, &[("P", 1)]));
    world.leave(ROOM, BOB);
    assert!(keys(&world).is_empty());
    assert!(!list(&world, 6, &[("P", 1)]));
    world.join(ROOM, BOB);
    // What was missed meanwhile is not known.
    assert!(keys(&world).is_empty());
    assert_eq!(world.engine.read(&StaleDeviceLists { limit: 10, without: &|_| false }).unwrap(), [BOB]);
}

#[test]
fn devices_of_who_shares_no_room_any_more_are_dropped_and_cross_signing_keys_kept() {
    let world = world();
    let master = Signer::new(8).cross_signing(BOB, "master");
    assert!(list(&world, 5, &[("P", 1)]));
    let content = json!({"user_id": BOB, "master_key": master});
    receive(&world, THERE, &[("m.signing_key_update", content)]);
    let prune = || {
        let progress = std::sync::Arc::new(PruneProgress::default());
        // As many steps as it takes to come to what is looked at here, and more.
        for _ in 0..20 {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
    };
    let kept = || {
        world.ask(|reader| {
            let user = reader.user_num(BOB)?.unwrap();
            let devices = crate::device::device_keys::all(reader, user)?.len();
            Ok((reader.has(&schema::REMOTE_DEVICE_LISTS, &user)?, devices))
        })
    };
    prune();
    assert_eq!(kept(), (true, 1));
    world.leave(ROOM, BOB);
    prune();
    assert_eq!(kept(), (false, 0));
    world.join(ROOM, BOB);
    assert!(list(&world, 9, &[("P", 1)]));
    world.leave(ROOM, BOB);
    // As an answer leaves it that was being taken in meanwhile.
    world
        .act(|tx| {
            let user = tx.intern_user(BOB)?;
            let list = schema::RemoteDeviceList { stream_id: 9, ..Default::default() };
            tx.put(&schema::REMOTE_DEVICE_LISTS, &user, &list);
            Ok(())
        })
        .unwrap();
    prune();
    assert_eq!(kept(), (false, 0));
    world.join(ROOM, BOB);
    assert!(list(&world, 9, &[("P", 1)]));
    assert_eq!(query(&world, ALICE, &[BOB])["master_keys"][BOB]["keys"], json!(master)["keys"]);
}

#[test]
fn cross_signing_keys_are_taken_in_when_they_are_in_order() {
    let world = world();
    assert!(list(&world, 5, &[("P", 1)]));
    let (master, other) = (Signer::new(8), Signer::new(9));
    let master_key = master.cross_signing(BOB, "master");
    let mut self_signing = other.cross_signing(BOB, "self_signing");
    other.sign(&mut self_signing, BOB, &other.public());
    let told = |self_signing: &Value| {
        let content = json!({"user_id": BOB, "master_key": master_key, "self_signing_key": self_signing});
        receive(&world, THERE, &[("m.signing_key_update", content)]);
        query(&world, ALICE, &[BOB])["self_signing_keys"][BOB].clone()
    };
    assert_eq!(told(&json!(self_signing)), Value::Null, "the master key has not signed it");
    master.sign(&mut self_signing, BOB, &master.public());
    assert_eq!(told(&json!(self_signing))["keys"], json!(self_signing)["keys"]);
}

#[test]
fn a_transaction_is_remembered_for_a_day() {
    let world = world();
    let answered = || {
        let asked = AnsweredTransaction { origin: THERE, transaction_id: "1" };
        world.engine.read(&asked).unwrap()
    };
    assert_eq!(answered(), None);
    let note = NoteTransaction {
        origin: THERE.into(),
        transaction_id: "1".into(),
        answer: b"{\"pdus\":{}}".to_vec(),
        over: None,
    };
    let over = NoteTransaction { transaction_id: "2".into(), over: Some("1".into()), ..note.clone() };
    world.engine.write(note.clone()).wait().unwrap();
    assert_eq!(answered().unwrap(), "{\"pdus\":{}}");
    // Or until the server has gone on.
    world.engine.write(over).wait().unwrap();
    assert_eq!(answered(), None);
    world.engine.write(note).wait().unwrap();
    let progress = std::sync::Arc::new(PruneProgress::default());
    for hour in 0..26 {
        assert_eq!(answered().is_some(), hour <= 24, "{hour}");
        world.pass_ms(60 * 60 * 1000);
        for _ in 0..20 {
            world.engine.write(Prune { progress: progress.clone() }).wait().unwrap();
        }
    }
}
