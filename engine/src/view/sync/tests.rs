//! What is shared between those who wait is what each would have been told alone.

mod filters;
mod lazy_members;
mod state;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Sync, SyncAnswer};
use crate::{
    account::account_data,
    core::{filter::Filter, num::StreamPos},
    fixture::World,
    room::{NewEvent, RoomCtx, append, receipts, receipts::ReceiptKind},
    view::SyncToken,
};

const ROOM: &str = "!room:here.example";
const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:here.example";
const CAROL: &str = "@carol:here.example";
const USERS: [&str; 3] = [ALICE, BOB, CAROL];
/// Without effect, but enough for an answer to be written for its user alone.
const ALONE: &str = r#""timeline":{"not_types":["org.example.none"]}"#;

fn sync(user: &str, since: SyncToken, filter: &str) -> Sync {
    Sync {
        user_id: user.to_owned(),
        device_id: Some(format!("DEVICE-OF-{user}")),
        since: Some(since),
        filter: Arc::new(Filter::parse(filter.as_bytes()).unwrap()),
        full_state: false,
        state_after: None,
        waits: false,
    }
}

fn read(world: &World, view: &Sync) -> (Value, SyncAnswer) {
    let answer = world.engine.read(view).unwrap();
    (serde_json::from_slice(&answer.body).unwrap(), answer)
}

fn start(world: &World, user: &str) -> SyncToken {
    let nothing = SyncToken { pos: StreamPos::ZERO, to_device: StreamPos::ZERO };
    read(world, &Sync { since: None, ..sync(user, nothing, "{}") }).1.token
}

fn remove_ages(answer: &mut Value) {
    match answer {
        Value::Object(members) => {
            members.remove("age");
            members.values_mut().for_each(remove_ages);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_ages),
        _ => {}
    }
}

/// Asks with the shared timeline and without it, and with lazily loaded members and without; gives the plain answer.
fn compared(world: &World, user: &str, since: SyncToken) -> (Value, SyncToken) {
    for lazy in [r#""state":{"lazy_load_members":true,"include_redundant_members":true}"#, r#""state":{}"#] {
        let mut shared = read(world, &sync(user, since, &format!(r#"{{"room":{{{lazy}}}}}"#))).0;
        let mut alone = read(world, &sync(user, since, &format!(r#"{{"room":{{{lazy},{ALONE}}}}}"#))).0;
        // What was rendered a moment ago says so.
        remove_ages(&mut shared);
        remove_ages(&mut alone);
        assert_eq!(shared, alone, "{user}");
    }
    let (plain, answer) = read(world, &sync(user, since, "{}"));
    (plain, answer.token)
}

fn is_shared(world: &World) -> bool {
    world.ask(|reader| {
        let room = reader.room_num(ROOM)?.unwrap();
        Ok(reader.shared.memo.sections.get(&room).is_some())
    })
}

/// Sends a message from a device, under a transaction id.
fn send_from_device(world: &World, sender: &str, body: &str) -> String {
    let sent = world.act(|tx| {
        let device = tx.intern_text(&format!("DEVICE-OF-{sender}"))?;
        let mut room = RoomCtx::load(tx, ROOM)?;
        let content = json!({"msgtype": "m.text", "body": body});
        let new = NewEvent {
            sender,
            kind: "m.room.message",
            state_key: None,
            content: content.as_object().cloned().unwrap(),
            redacts: None,
            origin_server_ts: 1,
            transaction: Some((device, "txn".into())),
        };
        let event = append(tx, &mut room, new)?;
        room.save(tx);
        Ok(event.event_id.to_string())
    });
    sent.unwrap()
}

fn ignore(world: &World, user: &str, whom: &[&str]) {
    let ignored: serde_json::Map<String, Value> =
        whom.iter().map(|user| ((*user).to_owned(), json!({}))).collect();
    let content = json!({"ignored_users": ignored}).to_string().into();
    world
        .act(|tx| {
            let user = tx.intern_user(user)?;
            Ok(account_data::set(tx, user, None, "m.ignored_user_list", &content)?)
        })
        .unwrap();
}

fn receive(world: &World, user: &str, event_id: &str, kind: ReceiptKind) {
    world
        .act(|tx| {
            let (room, user) = (tx.intern_room(ROOM)?, tx.intern_user(user)?);
            let event = tx.event_num(event_id)?.unwrap();
            let event = tx.event(event)?;
            receipts::set(tx, room, user, kind, "", &event, 1)
        })
        .unwrap();
}

fn world() -> World {
    let world = World::new();
    world.room(ROOM, ALICE, Some("joined"));
    world.join(ROOM, BOB);
    world.join(ROOM, CAROL);
    world
}

fn bodies(answer: &Value) -> Vec<String> {
    let events = answer["rooms"]["join"][ROOM]["timeline"]["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_message_is_rendered_once_for_all_but_its_sender() {
    let world = world();
    let since = USERS.map(|user| start(&world, user));
    send_from_device(&world, ALICE, "hello");
    assert!(!is_shared(&world));
    let (bobs, _) = compared(&world, BOB, since[1]);
    assert!(is_shared(&world));
    let (carols, _) = compared(&world, CAROL, since[2]);
    assert_eq!(bobs["rooms"]["join"][ROOM]["timeline"], carols["rooms"]["join"][ROOM]["timeline"]);
    assert_eq!(bodies(&bobs), ["hello"]);
    let (own, _) = compared(&world, ALICE, since[0]);
    let own = &own["rooms"]["join"][ROOM]["timeline"]["events"][0]["unsigned"];
    assert_eq!(own["transaction_id"], "txn");
    assert_eq!(
        bobs["rooms"]["join"][ROOM]["timeline"]["events"][0]["unsigned"]["transaction_id"],
        Value::Null
    );
}

#[test]
fn who_ignores_the_sender_is_not_shown_what_others_share() {
    let world = world();
    ignore(&world, CAROL, &[ALICE]);
    let since = USERS.map(|user| start(&world, user));
    world.message(ROOM, ALICE, "hello");
    assert_eq!(bodies(&compared(&world, BOB, since[1]).0), ["hello"]);
    assert!(is_shared(&world));
    assert_eq!(bodies(&compared(&world, CAROL, since[2]).0), Vec::<String>::new());
    // From now on Carol sees what Alice says.
    let since = [since[0], compared(&world, BOB, since[1]).1, compared(&world, CAROL, since[2]).1];
    ignore(&world, CAROL, &[]);
    world.message(ROOM, ALICE, "again");
    assert_eq!(bodies(&compared(&world, BOB, since[1]).0), ["again"]);
    assert_eq!(bodies(&compared(&world, CAROL, since[2]).0), ["again"]);
}

#[test]
fn who_came_later_is_not_shown_what_was_before() {
    let world = world();
    let since = USERS.map(|user| start(&world, user));
    world.leave(ROOM, CAROL);
    world.message(ROOM, ALICE, "without Carol");
    assert_eq!(bodies(&compared(&world, BOB, since[1]).0), ["without Carol"]);
    let carols = compared(&world, CAROL, since[2]);
    assert_eq!(bodies(&carols.0), Vec::<String>::new());
    world.join(ROOM, CAROL);
    assert_eq!(bodies(&compared(&world, CAROL, carols.1).0), Vec::<String>::new());
    world.message(ROOM, ALICE, "with Carol");
    assert_eq!(bodies(&compared(&world, BOB, since[1]).0), ["without Carol", "with Carol"]);
    assert_eq!(bodies(&compared(&world, CAROL, carols.1).0), ["with Carol"]);
}

#[test]
fn an_answer_that_is_waited_on_is_not_written() {
    let world = world();
    let since = start(&world, BOB);
    let waiting = Sync { waits: true, ..sync(BOB, since, "{}") };
    let answer = world.engine.read(&waiting).unwrap();
    assert!(answer.is_empty && answer.body.is_empty());
    assert_eq!(answer.token, since);
    let (given, answer) = read(&world, &Sync { waits: false, ..waiting });
    assert!(answer.is_empty);
    assert_eq!(given["device_one_time_keys_count"], json!({"signed_curve25519": 0}));
}

#[derive(Clone, Debug)]
enum Step {
    Message(usize),
    Edit(usize),
    Redact(usize),
    Topic(usize),
    Leave(usize),
    Join(usize),
    Ignore(usize, usize),
    Receipt(usize, bool),
    Sync(usize),
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let user = 0..USERS.len();
    prop_oneof![
        6 => user.clone().prop_map(Step::Message),
        2 => user.clone().prop_map(Step::Edit),
        1 => user.clone().prop_map(Step::Redact),
        1 => user.clone().prop_map(Step::Topic),
        1 => user.clone().prop_map(Step::Leave),
        2 => user.clone().prop_map(Step::Join),
        1 => (user.clone(), user.clone()).prop_map(|(who, whom)| Step::Ignore(who, whom)),
        2 => (user.clone(), any::<bool>()).prop_map(|(who, private)| Step::Receipt(who, private)),
        4 => user.prop_map(Step::Sync),
        1 => Just(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sharing_changes_no_answer(steps in prop::collection::vec(step(), 1..30)) {
        let world = world();
        let mut since = USERS.map(|user| start(&world, user));
        let mut last = world.message(ROOM, ALICE, "first");
        for (number, step) in steps.into_iter().enumerate() {
            let content = json!({"msgtype": "m.text", "body": number.to_string()});
            // What the room's rules refuse does not happen.
            let sent = match step {
                Step::Message(user) => world.try_send(ROOM, USERS[user], "m.room.message", None, &content, None),
                Step::Edit(user) => {
                    let mut content = content;
                    content["m.new_content"] = json!({"msgtype": "m.text", "body": "edited"});
                    content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": last});
                    world.try_send(ROOM, USERS[user], "m.room.message", None, &content, None)
                }
                Step::Redact(user) => {
                    world.try_send(ROOM, USERS[user], "m.room.redaction", None, &json!({}), Some(&last))
                }
                Step::Topic(user) => {
                    world.try_send(ROOM, USERS[user], "m.room.topic", Some(""), &json!({"topic": number}), None)
                }
                Step::Leave(user) => world.member(ROOM, USERS[user], USERS[user], "leave"),
                Step::Join(user) => world.member(ROOM, USERS[user], USERS[user], "join"),
                Step::Ignore(who, whom) => {
                    ignore(&world, USERS[who], if who == whom { &[] } else { &USERS[whom..=whom] });
                    continue;
                }
                Step::Receipt(user, private) => {
                    let kind = if private { ReceiptKind::ReadPrivate } else { ReceiptKind::Read };
                    receive(&world, USERS[user], &last, kind);
                    continue;
                }
                Step::Sync(user) => {
                    since[user] = compared(&world, USERS[user], since[user]).1;
                    continue;
                }
                Step::Pass => {
                    world.pass_ms(1_000);
                    continue;
                }
            };
            if let (Ok(event_id), Step::Message(_)) = (sent, step) {
                last = event_id;
            }
        }
        for (user, since) in USERS.into_iter().zip(since) {
            compared(&world, user, since);
        }
    }
}

#[test]
fn a_room_that_is_left_while_its_user_is_being_listed_is_told_of_no_more() {
    let world = world();
    let since = start(&world, CAROL);
    let event_id = world.state(ROOM, CAROL, "m.room.member", CAROL, json!({"membership": "leave"}));
    // As if the list had been read before the leave, and become the user's after it was noted.
    let (carol, room) =
        world.ask(|reader| Ok((reader.user_num(CAROL)?.unwrap(), reader.room_num(ROOM)?.unwrap())));
    world.ask(|reader| {
        reader.shared.watch.list(carol, room);
        Ok(())
    });
    let (left, answer) = read(&world, &sync(CAROL, since, "{}"));
    let told = left["rooms"]["leave"][ROOM]["timeline"]["events"].as_array().unwrap();
    assert_eq!(told.last().unwrap()["event_id"], json!(event_id));
    send_from_device(&world, ALICE, "behind her back");
    let (after, _) = read(&world, &sync(CAROL, answer.token, "{}"));
    assert_eq!(after.get("rooms"), None);
    let listed = world.ask(|reader| Ok(reader.shared.watch.standing(carol).unwrap().rooms));
    assert!(listed.is_empty());
}
