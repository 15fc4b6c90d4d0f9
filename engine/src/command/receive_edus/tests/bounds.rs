//! What one server tells costs no more than it may, however it tells it.

use super::*;
use crate::{
    check::Check,
    command::{DeleteToDevice, RemoveDevices, WhichDevices},
    device::signatures,
    fixture::observed::Observed,
    store::schema::UserNews,
};

const STRANGER_THERE: &str = "stranger.example";

/// Content of so many bytes.
fn content(bytes: usize) -> Value {
    json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())})
}

fn direct(server: &str, id: &str, messages: &Value) -> Value {
    let sender = format!("@bob:{server}");
    let content = json!({"sender": sender, "type": "m.t", "message_id": id, "messages": messages});
    json!({"edu_type": "m.direct_to_device", "content": content})
}

/// Gives Alice so many devices, and answers their ids.
fn have_devices(world: &World, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|number| format!("D{number:03}")).collect();
    register(world, "alice", &ids.iter().map(String::as_str).collect::<Vec<_>>());
    ids
}

/// What waits for one of Alice's devices.
fn waiting(world: &World, device_id: &str) -> Vec<Value> {
    let found = world.ask(|reader| {
        let Some(device) = reader.text_num(device_id)? else { return Ok(Vec::new()) };
        let user = reader.user_num(ALICE)?.unwrap();
        Ok(to_device::since(reader, user, device, StreamPos::ZERO, reader.pos, usize::MAX)?.0)
    });
    found.iter().map(|message| serde_json::from_slice(message).unwrap()).collect()
}

/// Takes in a whole transaction, as the server does: in as many writes as it takes. Answers what was dropped, and how many they
/// were.
fn take_all(world: &World, origin: &str, edus: &[Value]) -> (BTreeMap<&'static str, u64>, usize) {
    let (mut dropped, mut writes) = (BTreeMap::new(), 0);
    let mut next = Some(ReceiveEdus::new(origin, edus));
    while let Some(edus) = next {
        let taken = world.engine.write(edus.clone()).wait().unwrap();
        next = edus.rest(&taken);
        writes += 1;
        for (reason, count) in taken.dropped {
            *dropped.entry(reason).or_default() += count;
        }
    }
    (dropped, writes)
}

fn assert_sound(world: &World) {
    let report = world.engine.read(&Check { progress: &|_, _| {} }).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn large_messages_to_many_devices_come_in_several_batches_and_once() {
    let store = Observed::counting();
    let world = furnished(World::on(store.clone()));
    let devices = have_devices(&world, 60);
    let edus: Vec<Value> = (0..5)
        .map(|number| direct(THERE, &number.to_string(), &json!({ALICE: {"*": content(60_000 + number)}})))
        .collect();
    let (dropped, writes) = take_all(&world, THERE, &edus);
    assert_eq!((dropped, writes), (BTreeMap::new(), edus.len()));
    let largest = store.observer.take_largest_commit();
    assert!(largest < to_device::REQUEST_BYTES_MAX + (2 << 20), "{largest}");
    let expected: Vec<Value> = (0..5).map(|number| content(60_000 + number)).collect();
    let came = |device: &str| -> Vec<Value> {
        waiting(&world, device).iter().map(|message| message["content"].clone()).collect()
    };
    for device in [&*devices[0], &*devices[59], "A"] {
        assert!(came(device) == expected, "{device}");
    }
    // The connection broke before the answer came.
    assert_eq!(take_all(&world, THERE, &edus).0, BTreeMap::from([("repeated", 5)]));
    assert!(came("A") == expected);
    // Small ones come together.
    let small: Vec<Value> = (0..100)
        .map(|number| direct(THERE, &format!("s{number}"), &json!({ALICE: {"A": {"n": number}}})))
        .collect();
    assert_eq!(take_all(&world, THERE, &small), (BTreeMap::new(), 1));
}

#[test]
fn what_comes_as_one_request_reaches_as_many_devices_as_one_of_a_local_user_may() {
    let world = world();
    let devices = have_devices(&world, 98);
    let edu = direct(THERE, "1", &json!({ALICE: {"*": content(60_000)}}));
    let dropped = take(&world, THERE, &[edu]).dropped;
    let reached = devices.iter().map(String::as_str).chain(["A", "B"]);
    let reached = reached.filter(|device| !waiting(&world, device).is_empty()).count();
    // Around the content there is who sent it, and the type.
    assert_eq!(reached, to_device::REQUEST_BYTES_MAX / 60_100);
    assert_eq!(dropped, BTreeMap::from([("too_much", 100 - reached as u64)]));
}

#[test]
fn of_a_message_the_content_alone_is_measured() {
    let world = world();
    let largest = content(to_device::MESSAGE_BYTES_MAX);
    let edus = [
        direct(THERE, "1", &json!({ALICE: {"A": &largest}})),
        direct(THERE, "2", &json!({ALICE: {"A": content(to_device::MESSAGE_BYTES_MAX + 1)}})),
    ];
    assert_eq!(take(&world, THERE, &edus).dropped, BTreeMap::from([("too_large", 1)]));
    let came = waiting(&world, "A");
    assert!(came.len() == 1 && came[0]["content"] == largest);
}

#[test]
fn all_of_a_request_may_come_in_one_part() {
    let world = world();
    let mut messages: JsonObject = (0..3_000).map(|number| (format!("0{number}"), json!({}))).collect();
    messages.insert("A".to_owned(), json!({"n": 1}));
    let dropped = take(&world, THERE, &[direct(THERE, "1", &json!({ALICE: messages}))]).dropped;
    assert_eq!(dropped, BTreeMap::from([("unknown_device", 3_000)]));
    assert_eq!(waiting(&world, "A").len(), 1);
}

#[test]
fn who_shares_no_room_with_a_user_may_have_little_waiting() {
    let world = world();
    let many = |server: &str, first: usize, content: &Value| {
        let edus = (first..first + 100)
            .map(|number| direct(server, &number.to_string(), &json!({ALICE: {"A": content}})));
        take_all(&world, server, &edus.collect::<Vec<_>>()).0
    };
    let of = |server: &str| {
        let sender = format!("@bob:{server}");
        let came = waiting(&world, "A").into_iter().filter(|message| message["sender"] == *sender);
        came.map(|message| message.to_string().len() as u64).collect::<Vec<_>>()
    };
    // Large ones by their bytes.
    let dropped = many(STRANGER_THERE, 0, &content(60_000));
    let kept = of(STRANGER_THERE);
    assert!(kept.iter().sum::<u64>() <= strangers::SERVER_BYTES_MAX && kept.len() == 4, "{kept:?}");
    assert_eq!(dropped, BTreeMap::from([("stranger", 96)]));
    // Small ones by their number; and so many servers by what they have together.
    let mut refused = 0;
    for server in (0..20).map(|number| format!("{number}.example")) {
        for first in [0, 100, 200] {
            refused += many(&server, first, &json!({})).get("stranger").copied().unwrap_or_default();
        }
        assert!(of(&server).len() <= 256, "{server}");
    }
    let small = waiting(&world, "A").len() - kept.len();
    assert_eq!((small as u64 + refused, small <= 2_048, small > 1_500), (20 * 300, true, true));
    // That costs nobody else anything: not who shares a room, nor another device.
    assert_eq!(many(THERE, 0, &content(5_000)), BTreeMap::new());
    let edu = direct(STRANGER_THERE, "to B", &json!({ALICE: {"B": {}}}));
    assert_eq!(take(&world, STRANGER_THERE, &[edu]).dropped, BTreeMap::new());
    assert_sound(&world);
    // A device that takes what waits for it is sent more.
    let up_to = world.engine.position();
    let take_up = DeleteToDevice { user_id: ALICE.into(), device_id: "A".into(), up_to };
    world.engine.write(take_up).wait().unwrap();
    assert_eq!(many(STRANGER_THERE, 100, &json!({})), BTreeMap::new());
    assert_sound(&world);
    // Whoever comes to share a room is no stranger.
    world.join(ROOM, "@bob:stranger.example");
    assert_eq!(many(STRANGER_THERE, 200, &content(5_000)), BTreeMap::new());
    let devices = WhichDevices::These(vec!["A".into(), "B".into()]);
    world.engine.write(RemoveDevices { user_id: ALICE.into(), devices }).wait().unwrap();
    let left = world.ask(|reader| {
        let mut left = 0;
        reader.scan(
            &schema::STRANGER_SHARES,
            &(),
            Direction::Forward,
            |_: (UserNum, TextNum, TextNum), _| {
                left += 1;
                true
            },
        )?;
        Ok(left)
    });
    assert_eq!(left, 0);
}

#[test]
fn however_often_a_users_devices_change_their_followers_are_told_once_a_batch() {
    let world = world();
    let followers: Vec<String> = (0..20).map(|number| format!("@u{number}:here.example")).collect();
    for follower in &followers {
        world.join(ROOM, follower);
    }
    assert!(list(&world, 5, &[("P", 1)]));
    let rows = || {
        world.ask(|reader| {
            let (bob, mut rows) = (reader.user_num(BOB)?.unwrap(), 0);
            reader.scan(&schema::USER_STREAM, &(), Direction::Forward, |_: (UserNum, StreamPos), news| {
                rows += usize::from(matches!(news, UserNews::DeviceList(user) if user == bob));
                true
            })?;
            Ok(rows)
        })
    };
    let master = Signer::new(8).cross_signing(BOB, "master");
    let keys_changed = ("m.signing_key_update", json!({"user_id": BOB, "master_key": master}));
    for first in [6, 56] {
        let (before, told) = (world.engine.position(), rows());
        let updates = (first..first + 50).map(|at| update("P", Some((at % 2) as u8 + 1), at, &[at - 1]));
        let edus: Vec<(&str, Value)> = updates.chain([keys_changed.clone()]).collect();
        assert!(receive(&world, THERE, &edus).is_empty());
        // All of them, and Alice; each of them sees it, and finds the last of the keys.
        assert_eq!(rows() - told, followers.len() + 1);
        assert_eq!(changed(&world, before), [BOB]);
        assert_eq!(keys(&world), [key("P", 2)]);
    }
}

#[test]
fn a_device_that_is_called_like_a_key_with_many_signatures_keeps_nothing_else_from_coming() {
    let world = world();
    assert!(list(&world, 5, &[("P", 1)]));
    let id = Signer::new(9).public();
    let put = world.act(|tx| {
        let (bob, key) = (tx.user_num(BOB)?.unwrap(), tx.intern_text(&id)?);
        let signature = "x".repeat(signatures::SIGNATURE_BYTES_MAX);
        let names: Vec<String> = (0..4).map(|number| format!("ed25519:{number}")).collect();
        let all: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &*signature)).collect();
        signatures::put(tx, bob, bob, key, &all, signatures::ON_KEY_BYTES_MAX)
    });
    assert!(put.unwrap());
    let direct = json!({"sender": BOB, "type": "m.t", "message_id": "1", "messages": {ALICE: {"A": {}}}});
    let edus = [update(&id, Some(2), 6, &[5]), ("m.direct_to_device", direct)];
    assert!(receive(&world, THERE, &edus).is_empty());
    let known = keys(&world);
    assert_eq!((known.len(), known.contains(&key(&id, 2))), (2, true));
    assert_eq!(waiting(&world, "A").len(), 1);
}

#[test]
fn what_is_told_of_many_users_comes_in_several_writes() {
    let world = world();
    let users: Vec<String> = (0..450).map(|number| format!("@u{number}:there.example")).collect();
    for user in &users {
        world.join(ROOM, user);
    }
    let event_id = world.message(ROOM, ALICE, "hello");
    let read = json!({"event_ids": [event_id], "data": {"ts": 5}});
    let read: JsonObject = users.iter().map(|user| (user.clone(), read.clone())).collect();
    let online: Vec<Value> =
        users.iter().map(|user| json!({"user_id": user, "presence": "online"})).collect();
    let edus = [
        json!({"edu_type": "m.receipt", "content": {ROOM: {"m.read": read}}}),
        json!({"edu_type": "m.presence", "content": {"push": online}}),
    ];
    let mut next = Some(ReceiveEdus::new(THERE, &edus));
    let mut told = Vec::new();
    while let Some(edus) = next {
        let before = world.engine.position();
        let taken = world.engine.write(edus.clone()).wait().unwrap();
        next = edus.rest(&taken);
        assert_eq!(taken.dropped, BTreeMap::new());
        let receipts =
            receipts_told(&world, before)[&event_id]["m.read"].as_object().map_or(0, JsonObject::len);
        assert!(receipts < 2 * BATCH_ENTRIES, "{receipts}");
        told.push(receipts);
    }
    assert_eq!(told.iter().sum::<usize>(), users.len(), "{told:?}");
    assert!(told.len() >= 2 * users.len() / (2 * BATCH_ENTRIES), "{told:?}");
    let is_online = |user: &str| {
        world.ask(|reader| {
            let content = presence::content(reader, reader.user_num(user)?.unwrap())?;
            Ok(content["presence"] == "online")
        })
    };
    assert!(users.iter().all(|user| is_online(user)));
}

#[test]
fn what_an_access_list_says_of_a_server_is_remembered_no_longer_than_it_holds() {
    let world = world();
    let types = |typing: bool| {
        receive(&world, THERE, &[("m.typing", json!({"room_id": ROOM, "user_id": BOB, "typing": typing}))]);
        typists(&world) != Value::Null
    };
    let list = |content: Value| world.state(ROOM, ALICE, "m.room.server_acl", "", content);
    for _ in 0..2 {
        list(json!({"deny": [THERE], "allow": ["*"]}));
        assert!(!types(true) && !types(true));
        list(json!({"deny": ["other.example"], "allow": ["*"]}));
        assert!(types(true) && types(true) && !types(false));
    }
    // What is left of a list that is redacted lets nobody in.
    let last = list(json!({"deny": [], "allow": [THERE]}));
    assert!(types(true) && !types(false));
    world.redact(ROOM, ALICE, &last);
    assert!(!types(true));
}

/// One message to everybody here would hold up all of them else.
#[test]
fn behind_many_who_share_no_room_with_a_server_the_rooms_of_others_are_not_looked_through() {
    const ROOMS: usize = 5;
    const OTHERS: usize = 100;
    let store = Observed::counting();
    let world = furnished(World::on(store.clone()));
    let have = |prefix: &str, count: usize| -> Vec<String> {
        (0..count).map(|number| register(&world, &format!("{prefix}{number:03}"), &["D"])).collect()
    };
    let (first, in_rooms, in_none) = (have("a", BATCH_ENTRIES), have("b", OTHERS), have("c", OTHERS));
    for number in 0..ROOMS {
        let room = format!("!{number}:here.example");
        world.room(&room, ALICE, None);
        in_rooms.iter().for_each(|user| drop(world.join(&room, user)));
    }
    let cost = |id: &str, others: &[String]| {
        let messages: JsonObject =
            first.iter().chain(others).map(|user| (user.clone(), json!({"D": {}}))).collect();
        let before = store.observer.rows_read();
        let taken = take(&world, STRANGER_THERE, &[direct(STRANGER_THERE, id, &Value::Object(messages))]);
        assert_eq!(taken.dropped, BTreeMap::new(), "it comes all the same");
        store.observer.rows_read() - before
    };
    // So that whatever is remembered of names is.
    let everybody = [&in_rooms[..], &in_none[..]].concat();
    cost("0", &everybody);
    let (of_none, of_many) = (cost("1", &in_none), cost("2", &in_rooms));
    assert!(of_many < of_none + ROOMS * OTHERS / 2, "{of_none} {of_many}");
    // Whoever shares a room with the server is told all that it sends by itself.
    world.join("!0:here.example", "@bob:stranger.example");
    let messages = json!({in_rooms[0].clone(): {"D": content(5_000)}});
    let edus: Vec<Value> =
        (0..100).map(|number| direct(STRANGER_THERE, &format!("s{number}"), &messages)).collect();
    assert_eq!(take_all(&world, STRANGER_THERE, &edus).0, BTreeMap::new());
}

fn ids_of_devices(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

/// Bob's server tells all of his devices when it is asked.
fn list_all(world: &World, stream_id: u64, ids: &[String]) {
    let devices: Vec<(&str, u8)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    assert!(list(world, stream_id, &devices));
}

#[test]
fn a_list_of_devices_costs_what_it_has_and_is_left_alone_where_it_is_as_it_was() {
    let store = Observed::counting();
    let world = furnished(World::on(store.clone()));
    let cost = |stream_id: u64, ids: &[String]| {
        let seen = || (store.observer.rows_read(), store.observer.rows_changed());
        let before = seen();
        list_all(&world, stream_id, ids);
        let after = seen();
        (after.0 - before.0, after.1 - before.1)
    };
    let [few, other_few] = ["A", "B"].map(|prefix| ids_of_devices(prefix, 50));
    let [many, other_many] = ["C", "D"].map(|prefix| ids_of_devices(prefix, 400));
    cost(1, &few);
    let (read_of_few, _) = cost(2, &other_few);
    cost(3, &many);
    let (read_of_many, _) = cost(4, &other_many);
    // Eight times as many devices.
    assert!(read_of_many < 16 * read_of_few, "{read_of_few} {read_of_many}");
    let (_, changed) = cost(5, &other_many);
    assert!(changed < 10, "{changed}");
    assert_eq!(keys(&world).len(), other_many.len());
    // What is otherwise than it was is taken in.
    let mut devices: Vec<(&str, u8)> = other_many.iter().map(|id| (id.as_str(), 1)).collect();
    devices[0].1 = 2;
    devices.pop();
    assert!(list(&world, 6, &devices));
    let known = keys(&world);
    assert_eq!(known.len(), devices.len());
    assert!(known.contains(&key("D0", 2)) && known.contains(&key("D1", 1)));
    assert_sound(&world);
}

#[test]
fn a_user_who_has_other_devices_again_and_again_fills_nothing_with_their_names() {
    let world = world();
    let names = || {
        world.ask(|reader| {
            let mut names = 0;
            reader.scan(&schema::NAME_NUMS, &(), Direction::Forward, |_: (u8, String), _| {
                names += 1;
                true
            })?;
            Ok(names)
        })
    };
    let [first, second] = ["A", "B"].map(|prefix| ids_of_devices(prefix, elsewhere::DEVICES_MAX));
    list_all(&world, 1, &first);
    assert_eq!(keys(&world).len(), first.len());
    let before = names();
    for (stream_id, prefix) in [(2, "B"), (3, "C"), (4, "D")] {
        list_all(&world, stream_id, &ids_of_devices(prefix, elsewhere::DEVICES_MAX));
        assert!(keys(&world).is_empty(), "{prefix}");
    }
    assert_eq!(receive(&world, THERE, &[update("E", Some(1), 5, &[4])]), [BOB]);
    assert_eq!(names(), before);
    // What had names before has them still; and the next day there may be new ones.
    list_all(&world, 6, &first);
    assert_eq!(keys(&world).len(), first.len());
    world.pass_ms(elsewhere::NEW_IDS_MS);
    list_all(&world, 7, &second);
    assert_eq!(keys(&world).len(), second.len());
    assert_sound(&world);
}
