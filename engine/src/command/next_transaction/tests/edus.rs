//! What servers are told outside of rooms.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::{
    PresenceState,
    account::NewSession,
    check::Check,
    command::{
        DeviceMessage, EndPresence, LogIn, ReceiveEdus, RemoveDevices, RenameDevice, SendToDevice,
        SetPresence, SetReceipts, SetTyping, ShowPresence, WhichDevices,
    },
    core::num::UserNum,
    device::tests::{Signer, query, register, upload_device},
    outbox::MESSAGES_WAITING_MAX,
    store::schema::UserNews,
    view::federation::UserDevices,
};

pub(super) fn message(user_id: &str, device_id: &str, content: &Value) -> DeviceMessage {
    let content = content.to_string().into();
    DeviceMessage { user_id: user_id.into(), device_id: device_id.into(), content }
}

pub(super) fn send(world: &World, messages: Vec<DeviceMessage>, transaction: &str) {
    let transaction = Some(("A".to_owned(), transaction.to_owned()));
    let send = SendToDevice { sender: ALICE.into(), kind: "m.test".into(), messages, transaction };
    world.engine.write(send).wait().unwrap();
}

/// What the server there is told: kinds and contents.
pub(super) fn told(world: &World) -> Vec<(String, Value)> {
    if due(world).is_empty() {
        return Vec::new();
    }
    let sent = deliver(world, THERE);
    let edus = sent.iter().flat_map(|transaction| &transaction.edus);
    edus.map(|edu| {
        let edu: Value = serde_json::from_slice(edu).unwrap();
        (edu["edu_type"].as_str().unwrap().to_owned(), edu["content"].clone())
    })
    .collect()
}

pub(super) fn federated() -> World {
    with_bob(World::new())
}

fn with_bob(world: World) -> World {
    register(&world, "alice", &["A"]);
    world.room(ROOM, ALICE, None);
    world.join(ROOM, BOB);
    // Somebody listens from now on.
    assert_eq!(deliver_all(&world), [sent(THERE, &[])]);
    world
}

#[test]
fn messages_to_devices_wait_until_they_are_taken_and_come_once() {
    let world = federated();
    let content = json!({"body": "secret"});
    send(&world, vec![message(BOB, "B", &content), message(BOB, "*", &content)], "1");
    send(&world, vec![message(BOB, "B", &content)], "1");
    // A server that none of the sender's rooms knows is told nothing, and what is no user id names none.
    let nobody = ["@eve:fourth.example", "@no server"].map(|user_id| message(user_id, "*", &content));
    send(&world, nobody.into(), "2");
    assert_eq!(due(&world), [THERE.into()]);
    let first = ask(&world, THERE, None).transaction.unwrap();
    let told: Vec<Value> = first.edus.iter().map(|edu| serde_json::from_slice(edu).unwrap()).collect();
    assert_eq!((told.len(), &told[0]["edu_type"]), (1, &json!("m.direct_to_device")));
    let id = told[0]["content"]["message_id"].as_str().unwrap();
    assert!((1..=32).contains(&id.len()));
    let expected = json!({
        "message_id": id, "sender": ALICE, "type": "m.test",
        "messages": {BOB: {"*": content, "B": content}},
    });
    assert_eq!(told[0]["content"], expected);
    assert_eq!(ask(&world, THERE, None).transaction, Some(first.clone()));
    assert_eq!(ask(&world, THERE, Some(&first.id)).transaction, None);
    let row = world.ask(|reader| Ok(outbox::destination(reader, reader.text_num(THERE)?.unwrap())?));
    assert_eq!(row.messages_waiting, 0);
}

#[test]
fn a_user_who_fills_a_servers_queue_pays_for_it_alone() {
    let world = federated();
    let dora = register(&world, "dora", &["D"]);
    world.join(ROOM, &dora);
    let _ = deliver_all(&world);
    // As it was before senders were counted.
    let flood = json!({"message_id": "1", "messages": {}, "sender": dora, "type": "m.test"}).to_string();
    for _ in 0..10 {
        world
            .act(|tx| {
                let server = tx.intern_text(THERE)?;
                let mut row = outbox::destination(tx, server)?;
                row.messages_waiting += MESSAGES_WAITING_MAX / 10;
                tx.put(&schema::DESTINATIONS, &server, &row);
                for _ in 0..MESSAGES_WAITING_MAX / 10 {
                    let value = OutgoingEdu::Direct(flood.clone().into_bytes());
                    let pos = tx.next_position();
                    let row = Positioned { pos: StreamPos::ZERO, value };
                    tx.put(&schema::OUTGOING_EDUS, &(server, pos), &row);
                }
                Ok(())
            })
            .unwrap();
    }
    due(&world);
    let by_alice = || {
        world.ask(|reader| {
            let (mut all, mut hers) = (0, 0);
            let server = reader.text_num(THERE)?.unwrap();
            reader.scan(&schema::OUTGOING_EDUS, &server, Direction::Forward, |_, row| {
                if let OutgoingEdu::Direct(content) = row.value {
                    all += 1;
                    hers += u32::from(serde_json::from_slice::<Value>(&content).unwrap()["sender"] == ALICE);
                }
                true
            })?;
            assert_eq!(outbox::destination(reader, server)?.messages_waiting, all);
            Ok((all, hers))
        })
    };
    // What is on its way is not changed by it.
    let first = ask(&world, THERE, None).transaction.unwrap();
    // Nobody waits until so long a queue is counted, which is when the server fails next.
    send(&world, vec![message(BOB, "B", &json!({}))], "early");
    assert_eq!(by_alice(), (MESSAGES_WAITING_MAX, 0));
    fail(&world);
    for number in 0..3 {
        send(&world, vec![message(BOB, "B", &json!({}))], &number.to_string());
    }
    let content = json!({}).to_string().into();
    let messages = vec![DeviceMessage { user_id: BOB.into(), device_id: "B".into(), content }];
    let more = SendToDevice { sender: dora.clone(), kind: "m.test".into(), messages, transaction: None };
    world.engine.write(more).wait().unwrap();
    assert_eq!(by_alice(), (MESSAGES_WAITING_MAX, 3));
    assert_eq!(ask(&world, THERE, None).transaction, Some(first.clone()));
    ask(&world, THERE, Some(&first.id));
    assert_eq!(by_alice(), (MESSAGES_WAITING_MAX - first.edus.len() as u32, 3));
    let report = world.engine.read(&Check { progress: &|_, _| {} }).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn many_messages_go_in_pieces_of_a_size_that_others_take() {
    let world = federated();
    let content = json!({"body": "x".repeat(20_000)});
    let devices: Vec<String> = (0..10).map(|number| format!("D{number}")).collect();
    send(&world, devices.iter().map(|device| message(BOB, device, &content)).collect(), "1");
    let told = told(&world);
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|(_, content)| content.to_string().len() < 70_000));
    let reached = told.iter().map(|(_, content)| content["messages"][BOB].as_object().unwrap().len());
    assert_eq!(reached.sum::<usize>(), 10);
}

#[test]
fn however_small_messages_are_a_piece_has_no_more_than_others_take() {
    let world = federated();
    let devices: Vec<String> = (0..2_300).map(|number| format!("D{number}")).collect();
    send(&world, devices.iter().map(|device| message(BOB, device, &json!({}))).collect(), "1");
    let sizes =
        told(&world).into_iter().map(|(_, content)| content["messages"][BOB].as_object().unwrap().len());
    assert_eq!(sizes.collect::<Vec<_>>(), [1_000, 1_000, 300]);
}

#[test]
fn changes_of_devices_are_told_as_one_chain() {
    let world = federated();
    let signer = Signer::new(1);
    upload_device(&world, ALICE, "A", signer.device(ALICE, "A")).unwrap();
    let first = told(&world);
    assert_eq!((first.len(), first[0].0.as_str()), (1, "m.device_list_update"));
    let update = &first[0].1;
    assert_eq!((update["user_id"].as_str(), update["device_id"].as_str()), (Some(ALICE), Some("A")));
    assert_eq!(update["keys"]["keys"]["ed25519:A"], signer.public());
    assert!(update["keys"]["signatures"][ALICE]["ed25519:A"].is_string());
    assert_eq!(update["prev_id"], json!([]));
    let which = WhichDevices::These(vec!["A".to_owned()]);
    world.engine.write(RemoveDevices { user_id: ALICE.into(), devices: which }).wait().unwrap();
    let second = told(&world);
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].1["deleted"], true);
    assert_eq!(second[0].1["prev_id"], json!([update["stream_id"]]));
    assert!(second[0].1["keys"].is_null());
}

#[test]
fn devices_without_keys_are_told_to_servers_and_to_nobody_else() {
    let world = with_bob(World::telling_device_names());
    let log_in = |user_id: &str| {
        let session = NewSession {
            device_id: Some("B".into()),
            display_name: Some("phone".into()),
            ..NewSession::default()
        };
        let log_in = LogIn { user_id: user_id.into(), proven_hash: None, session };
        world.engine.write(log_in).wait().unwrap();
        told(&world)
    };
    let only = |told: Vec<(String, Value)>| {
        let [(kind, update)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((kind.as_str(), &update["user_id"]), ("m.device_list_update", &json!(ALICE)));
        assert_eq!((&update["device_id"], update.get("keys")), (&json!("B"), None));
        update.clone()
    };
    let new = only(log_in(ALICE));
    assert_eq!((&new["device_display_name"], new.get("deleted")), (&json!("phone"), None));
    assert_eq!(new["prev_id"], json!([]));
    assert_eq!(log_in(ALICE), [], "the device is there already");
    let (user_id, device_id) = (ALICE.to_owned(), "B".to_owned());
    let rename = RenameDevice { user_id, device_id, display_name: Some("den".into()) };
    world.engine.write(rename).wait().unwrap();
    let renamed = only(told(&world));
    assert_eq!(renamed["device_display_name"], "den");
    assert_eq!(renamed["prev_id"], json!([new["stream_id"]]));
    let devices = WhichDevices::These(vec!["B".to_owned()]);
    world.engine.write(RemoveDevices { user_id: ALICE.into(), devices }).wait().unwrap();
    let gone = only(told(&world));
    assert_eq!((&gone["deleted"], gone.get("device_display_name")), (&json!(true), None));
    assert_eq!(gone["prev_id"], json!([renamed["stream_id"]]));
    let news = world.ask(|reader| {
        let mut news = Vec::new();
        reader.scan(&schema::USER_STREAM, &(), Direction::Forward, |_: (UserNum, StreamPos), row| {
            news.push(row);
            true
        })?;
        Ok(news)
    });
    assert!(!news.iter().any(|news| matches!(news, UserNews::DeviceList(_))), "{news:?}");
    // Of who shares no room with another server, no server is told, and nothing is written for one.
    let carol = register(&world, "carol", &[]);
    assert_eq!(log_in(&carol), []);
    let last = world
        .ask(|reader| Ok(reader.get(&schema::DEVICE_LIST_POSITIONS, &reader.user_num(&carol)?.unwrap())?));
    assert_eq!(last, None);
}

/// Whatever a server asks or is told. Users of this one see them in any case.
#[test]
fn other_servers_learn_what_devices_are_called_only_if_that_is_wanted() {
    for (world, is_wanted) in [(World::new(), false), (World::telling_device_names(), true)] {
        let world = with_bob(world);
        let carol = register(&world, "carol", &[]);
        upload_device(&world, ALICE, "A", Signer::new(1).device(ALICE, "A")).unwrap();
        let name = json!("A's name");
        let expected = is_wanted.then_some(&name);
        let told = told(&world);
        let [(_, update)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(update.get("device_display_name"), expected);
        let view = UserDevices { user_id: ALICE.to_owned() };
        let devices: Value = serde_json::from_slice(&world.engine.read(&view).unwrap()).unwrap();
        assert_eq!(devices["devices"][0]["device_id"], "A");
        assert_eq!(devices["devices"][0].get("device_display_name"), expected);
        let queried = |asker: &str| query(&world, asker, &[ALICE])["device_keys"][ALICE]["A"].clone();
        let another_server = "";
        assert_eq!(queried(another_server)["device_id"], "A");
        assert_eq!(queried(another_server)["unsigned"].get("device_display_name"), expected);
        assert_eq!(queried(&carol)["unsigned"]["device_display_name"], name);
    }
}

#[test]
fn servers_of_a_room_learn_of_who_comes_in_and_of_their_devices_once() {
    let world = World::new();
    register(&world, "alice", &["A"]);
    register(&world, "carol", &["A"]);
    let carol = "@carol:here.example";
    for room in [ROOM, OTHER_ROOM] {
        world.room(room, carol, None);
        world.join(room, BOB);
    }
    let _ = deliver_all(&world);
    // A device is one whether it has keys or not.
    world.join(ROOM, ALICE);
    let without_keys = told(&world);
    let [(_, update)] = &without_keys[..] else { panic!("{without_keys:?}") };
    assert_eq!((&update["user_id"], &update["device_id"]), (&json!(ALICE), &json!("A")));
    assert_eq!((&update["keys"], &update["deleted"]), (&Value::Null, &Value::Null));
    world.leave(ROOM, ALICE);
    let signer = Signer::new(1);
    upload_device(&world, ALICE, "A", signer.device(ALICE, "A")).unwrap();
    let _ = told(&world);

    world.join(ROOM, ALICE);
    let first = told(&world);
    let [(kind, update)] = &first[..] else { panic!("{first:?}") };
    assert_eq!((kind.as_str(), &update["user_id"]), ("m.device_list_update", &json!(ALICE)));
    assert_eq!(update["keys"]["keys"]["ed25519:A"], signer.public());
    // The chain of those who were told all along goes on from where it was.
    let last = world.ask(|reader| {
        Ok(reader.get(&schema::DEVICE_LIST_POSITIONS, &reader.user_num(ALICE)?.unwrap())?.unwrap())
    });
    assert_eq!(update["prev_id"], json!([last.0]));
    assert!(update["stream_id"].as_i64() > Some(last.0));
    // The server shares a room with her by now.
    world.join(OTHER_ROOM, ALICE);
    assert_eq!(told(&world), []);
    world.leave(OTHER_ROOM, ALICE);
    world.leave(ROOM, ALICE);
    let _ = told(&world);
    world.join(OTHER_ROOM, ALICE);
    assert_eq!(told(&world).len(), 1);
}

#[test]
fn cross_signing_keys_are_told() {
    let world = federated();
    let master = Signer::new(2).cross_signing(ALICE, "master");
    let upload = crate::command::UploadCrossSigningKeys {
        user_id: ALICE.into(),
        master: Some(master.clone()),
        self_signing: None,
        user_signing: None,
        authenticated: true,
    };
    world.engine.write(upload).wait().unwrap();
    let expected = json!({"user_id": ALICE, "master_key": master});
    assert_eq!(told(&world), [("m.signing_key_update".into(), expected)]);
}

#[test]
fn what_is_soon_stale_is_told_once_and_only_the_last_of_it() {
    let world = federated();
    let event_id = world.message(ROOM, BOB, "hello");
    let typing = |user: &str, typing| {
        let set = SetTyping { room_id: ROOM.into(), user: user.into(), typing, timeout_ms: None };
        world.engine.write(set).wait().unwrap();
    };
    typing(ALICE, true);
    typing(ALICE, false);
    let thread_id = Some("main".into());
    let read = SetReceipts { room_id: ROOM.into(), user: ALICE.into(), ..SetReceipts::default() };
    let first = SetReceipts { read: Some(event_id.clone()), thread_id, ..read.clone() };
    world.engine.write(first).wait().unwrap();
    let present = SetPresence {
        user: ALICE.into(),
        device: Some("A".into()),
        state: PresenceState::Online,
        status_msg: "here".into(),
    };
    world.engine.write(present).wait().unwrap();
    let typed = json!({"room_id": ROOM, "user_id": ALICE, "typing": false});
    let data = json!({"ts": world.engine.now_ms(), "thread_id": "main"});
    let receipt = json!({"event_ids": [event_id], "data": data});
    let presence = json!({
        "user_id": ALICE, "presence": "online", "currently_active": true, "last_active_ago": 0,
        "status_msg": "here",
    });
    let expected = [
        ("m.typing".into(), typed),
        ("m.receipt".into(), json!({ROOM: {"m.read": {ALICE: receipt}}})),
        ("m.presence".into(), json!({"push": [presence]})),
    ];
    assert_eq!(told(&world), expected);
    assert!(told(&world).is_empty());
    // Not what others do, and not that who wrote something has read it.
    let own = world.message(ROOM, ALICE, "mine");
    world.engine.write(SetReceipts { read: Some(own), ..read }).wait().unwrap();
    typing(BOB, true);
    assert!(told(&world).is_empty());
}

/// What was to be told while it was there says how things are when it is told.
#[test]
fn a_server_that_has_left_is_told_nothing_of_what_comes_after() {
    for shares_another_room in [false, true] {
        let world = federated();
        upload_device(&world, ALICE, "A", Signer::new(1).device(ALICE, "A")).unwrap();
        assert_eq!(told(&world).len(), 1);
        if shares_another_room {
            world.room(OTHER_ROOM, ALICE, None);
            world.join(OTHER_ROOM, BOB);
        }
        let read = |event_id: String| {
            let user = ALICE.to_owned();
            let read =
                SetReceipts { room_id: ROOM.into(), user, read: Some(event_id), ..SetReceipts::default() };
            world.engine.write(read).wait().unwrap();
        };
        let say = |status_msg: &str, display_name: &str| {
            let present = SetPresence {
                user: ALICE.into(),
                device: Some("A".into()),
                state: PresenceState::Online,
                status_msg: status_msg.into(),
            };
            world.engine.write(present).wait().unwrap();
            let (user_id, device_id) = (ALICE.to_owned(), "A".to_owned());
            let rename = RenameDevice { user_id, device_id, display_name: Some(display_name.into()) };
            world.engine.write(rename).wait().unwrap();
        };
        world.message(ROOM, ALICE, "before");
        assert_eq!(due(&world), [THERE.into()]);
        assert!(ask(&world, THERE, None).transaction.is_some(), "it is on its way for long");
        let typing = SetTyping { room_id: ROOM.into(), user: ALICE.into(), typing: true, timeout_ms: None };
        world.engine.write(typing).wait().unwrap();
        read(world.message(ROOM, BOB, "read before"));
        say("here", "den");
        assert!(due(&world).is_empty(), "somebody is at it");
        world.member(ROOM, ALICE, BOB, "leave").unwrap();
        read(world.message(ROOM, ALICE, "after"));
        say("away", "loft");
        due(&world);
        let sent = deliver(&world, THERE);
        let pdus: Vec<String> = sent.iter().flat_map(|transaction| &transaction.pdus).map(said).collect();
        assert_eq!(pdus, ["before", "leave"]);
        let edus = sent.iter().flat_map(|transaction| &transaction.edus);
        let kinds: BTreeSet<String> = edus
            .map(|edu| {
                let edu: Value = serde_json::from_slice(edu).unwrap();
                edu["edu_type"].as_str().unwrap().to_owned()
            })
            .collect();
        let expected: &[&str] =
            if shares_another_room { &["m.device_list_update", "m.presence"] } else { &[] };
        assert!(kinds.iter().eq(expected), "{shares_another_room} {kinds:?}");
    }
}

/// How many receipts are told in what a server is sent.
fn receipts(sent: &[Transaction]) -> usize {
    let edus = sent.iter().flat_map(|transaction| &transaction.edus);
    edus.filter(|edu| serde_json::from_slice::<Value>(edu).unwrap()["edu_type"] == "m.receipt").count()
}

#[test]
fn in_a_room_of_many_servers_a_receipt_waits_a_while_for_something_else() {
    const SERVERS: usize = 100;
    let world = federated();
    for number in 1..SERVERS {
        world.join(ROOM, &format!("@bob:{number}.example"));
    }
    let event_id = world.message(ROOM, BOB, "hello");
    while !deliver_all(&world).is_empty() {}
    let user = ALICE.to_owned();
    let read = SetReceipts { room_id: ROOM.into(), user, read: Some(event_id), ..SetReceipts::default() };
    world.engine.write(read).wait().unwrap();
    let (now_ms, first) = (world.engine.now_ms(), look(&world));
    let (destinations, first_ms) = (first.destinations, first.next_ms.unwrap());
    assert!(destinations.is_empty() && first_ms >= now_ms + 1_000, "ten milliseconds for each server");
    world.pass_ms(first_ms - now_ms);
    let some = due(&world);
    assert!((1..SERVERS).contains(&some.len()), "not all at once: {}", some.len());
    assert!(some.iter().all(|server| receipts(&deliver(&world, server)) == 1));
    // The others are told as soon as there is anything else for them.
    world.message(ROOM, ALICE, "more");
    let all = due(&world);
    assert_eq!(all.len(), SERVERS);
    assert_eq!(
        all.iter().map(|server| receipts(&deliver(&world, server))).sum::<usize>(),
        SERVERS - some.len()
    );
    world.pass_ms(HOUR_MS);
    assert!(due(&world).is_empty());
}

/// Whose presence is told in what a server is sent, and how present they are. Nothing else is told.
fn presences(sent: &[Transaction]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut told = Vec::new();
    for edu in sent.iter().flat_map(|transaction| &transaction.edus) {
        let edu: Value = serde_json::from_slice(edu).unwrap();
        assert_eq!(edu["edu_type"], "m.presence");
        let push = edu["content"]["push"].as_array().unwrap();
        told.extend(push.iter().map(|update| (text(&update["user_id"]), text(&update["presence"]))));
    }
    told
}

/// The same of the server there.
fn told_present(world: &World) -> Vec<(String, String)> {
    if due(world).is_empty() { Vec::new() } else { presences(&deliver(world, THERE)) }
}

/// A user's device shows for an hour that the user is there.
fn show(world: &World, user_id: &str) {
    let (device, state) = (Some("A".to_owned()), PresenceState::Online);
    world
        .engine
        .write(ShowPresence { user_id: user_id.to_owned(), device, state, hold_ms: HOUR_MS })
        .wait()
        .unwrap();
}

fn is(user_id: &str, presence: &str) -> (String, String) {
    (user_id.to_owned(), presence.to_owned())
}

#[test]
fn a_server_that_comes_into_a_room_is_told_who_is_there() {
    let world = World::new();
    register(&world, "alice", &["A"]);
    let [carol, dora] = ["carol", "dora"].map(|name| register(&world, name, &["A"]));
    for room in [ROOM, OTHER_ROOM] {
        world.room(room, ALICE, None);
    }
    world.join(ROOM, &carol);
    world.join(OTHER_ROOM, &dora);
    assert!(deliver_all(&world).is_empty(), "somebody listens from now on");
    // Carol is not there, and Dora in another room.
    show(&world, ALICE);
    show(&world, &dora);
    world.join(ROOM, BOB);
    assert_eq!(told_present(&world), [is(ALICE, "online")]);
    world.join(ROOM, "@ben:there.example");
    assert_eq!(told_present(&world), [], "the server is in the room");
    world.join(OTHER_ROOM, BOB);
    assert_eq!(told_present(&world), [is(ALICE, "online"), is(&dora, "online")]);
    for user_id in [BOB, "@ben:there.example"] {
        world.leave(ROOM, user_id);
    }
    let _ = deliver_all(&world);
    world.join(ROOM, BOB);
    assert_eq!(told_present(&world), [is(ALICE, "online")], "it has come back");
    // Of users of other servers these tell.
    let update = json!({"user_id": BOB, "presence": "online", "last_active_ago": 1});
    let edu = json!({"edu_type": "m.presence", "content": {"push": [update]}});
    world.engine.write(ReceiveEdus::new(THERE, [&edu])).wait().unwrap();
    world.join(ROOM, DAVE);
    assert!(due(&world).contains(&THIRD.into()));
    assert_eq!(presences(&deliver(&world, THIRD)), [is(ALICE, "online")]);
}

#[test]
fn in_a_crowd_some_of_those_who_are_there_are_told() {
    let world = World::new();
    register(&world, "alice", &["A"]);
    world.room(ROOM, ALICE, None);
    for number in 0..300 {
        let user_id = register(&world, &format!("user{number}"), &["A"]);
        world.join(ROOM, &user_id);
        show(&world, &user_id);
    }
    let _ = deliver_all(&world);
    world.join(ROOM, BOB);
    let told = std::iter::repeat_with(|| told_present(&world)).take_while(|told| !told.is_empty());
    assert_eq!(told.flatten().count(), 200);
}

#[test]
fn who_stays_is_told_of_again_before_they_are_forgotten() {
    const MINUTE_MS: u64 = 60 * 1000;
    let world = federated();
    let pass = |ms: u64| {
        world.pass_ms(ms);
        world.engine.write(EndPresence).wait().unwrap();
        told_present(&world)
    };
    show(&world, ALICE);
    assert_eq!(told_present(&world), [is(ALICE, "online")]);
    assert_eq!(pass(5 * MINUTE_MS), [is(ALICE, "unavailable")], "she is idle");
    let alice = world.ask(|reader| Ok(reader.user_num(ALICE)?.unwrap()));
    // What is told holds for half an hour on other servers.
    for _ in 0..2 {
        assert_eq!(pass(20 * MINUTE_MS - 1), []);
        let before = world.engine.position();
        assert_eq!(pass(1), [is(ALICE, "unavailable")]);
        let has_news = world.ask(|reader| Ok(reader.shared.watch.has_news(alice, before)));
        assert_eq!(has_news, Some(false), "no client is told");
        assert_eq!(pass(0), []);
    }
    assert_eq!(pass(HOUR_MS), [is(ALICE, "offline")], "her device is gone");
    assert_eq!(pass(HOUR_MS), []);
}
