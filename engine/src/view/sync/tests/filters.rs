//! Each part of a filter is asked for what it is about.

use super::*;
use crate::command::SetTyping;

const ELSEWHERE: &str = "!elsewhere:here.example";

/// Both rooms as the filter, which has the id of the first for `ROOM`, shows them to Bob after `since`.
fn rooms(world: &World, since: SyncToken, filter: &str) -> Value {
    let filter = filter.replace("ROOM", ROOM);
    read(world, &sync(BOB, since, &format!(r#"{{"room":{filter}}}"#))).0["rooms"]["join"].take()
}

/// Bob is in two rooms, and in each of them there is something of every kind since his token.
fn eventful() -> (World, SyncToken) {
    let world = world();
    world.room(ELSEWHERE, ALICE, Some("joined"));
    world.join(ELSEWHERE, BOB);
    let since = start(&world, BOB);
    for room_id in [ROOM, ELSEWHERE] {
        let event_id = world.message(room_id, ALICE, "hello");
        for user in [ALICE, BOB] {
            world
                .act(|tx| {
                    let (room, user) = (tx.intern_room(room_id)?, tx.intern_user(user)?);
                    let event = tx.event_num(&event_id)?.unwrap();
                    let event = tx.event(event)?;
                    receipts::set(tx, room, user, ReceiptKind::Read, "", &event, 1)
                })
                .unwrap();
        }
        world
            .act(|tx| {
                let (user, room) = (tx.intern_user(BOB)?, tx.intern_room(room_id)?);
                let content = json!({"url": "mxc://here.example/a"}).to_string().into();
                account_data::set(tx, user, Some(room), "org.example.picture", &content)?;
                let content = json!({}).to_string().into();
                Ok(account_data::set(tx, user, Some(room), "org.example.plain", &content)?)
            })
            .unwrap();
    }
    (world, since)
}

fn kinds(room: &Value, part: &str) -> Vec<String> {
    let events = room[part]["events"].as_array().cloned().unwrap_or_default();
    let mut kinds: Vec<String> =
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[test]
fn a_room_is_left_out_of_one_part_alone() {
    let (world, since) = eventful();
    for (part, kind) in [("ephemeral", "m.receipt"), ("account_data", "org.example.plain")] {
        let all = rooms(&world, since, "{}");
        let told = |rooms: &Value, room_id: &str| kinds(&rooms[room_id], part).contains(&kind.to_owned());
        assert!(told(&all, ROOM) && told(&all, ELSEWHERE), "{part}");
        let without = rooms(&world, since, &format!(r#"{{"{part}":{{"not_rooms":["ROOM"]}}}}"#));
        assert!(!told(&without, ROOM) && told(&without, ELSEWHERE), "{part}");
        assert_eq!(without[ROOM]["timeline"], all[ROOM]["timeline"], "{part}");
        let only = rooms(&world, since, &format!(r#"{{"{part}":{{"rooms":["ROOM"]}}}}"#));
        assert!(told(&only, ROOM) && !told(&only, ELSEWHERE), "{part}");
        let none = rooms(&world, since, &format!(r#"{{"{part}":{{"senders":[]}}}}"#));
        assert!(!told(&none, ROOM) && !told(&none, ELSEWHERE), "{part}");
    }
}

#[test]
fn account_data_is_its_users_and_may_have_a_url() {
    let (world, since) = eventful();
    let with = |filter: &str| {
        let filter = format!(r#"{{"account_data":{filter}}}"#);
        kinds(&rooms(&world, since, &filter)[ROOM], "account_data")
    };
    assert_eq!(with("{}"), ["org.example.picture", "org.example.plain"]);
    assert_eq!(with(r#"{"contains_url":true}"#), ["org.example.picture"]);
    assert_eq!(with(r#"{"contains_url":false}"#), ["org.example.plain"]);
    assert_eq!(with(r#"{"senders":["@bob:here.example"]}"#).len(), 2);
    assert_eq!(with(r#"{"not_senders":["@bob:here.example"]}"#).len(), 0);
}

#[test]
fn receipts_are_sent_by_those_who_have_read() {
    let (world, since) = eventful();
    let readers = |filter: &str| {
        let rooms = rooms(&world, since, &format!(r#"{{"ephemeral":{filter}}}"#));
        let events = rooms[ROOM]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
        let receipts = events.into_iter().find(|event| event["type"] == "m.receipt")?;
        let kinds = receipts["content"].as_object()?.values().next()?;
        Some(kinds["m.read"].as_object()?.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(readers("{}"), Some(vec![ALICE.to_owned(), BOB.to_owned()]));
    assert_eq!(readers(r#"{"not_senders":["@alice:here.example"]}"#), Some(vec![BOB.to_owned()]));
    assert_eq!(readers(r#"{"senders":["@alice:here.example"]}"#), Some(vec![ALICE.to_owned()]));
    assert_eq!(readers(r#"{"senders":["@carol:here.example"]}"#), None);
    assert_eq!(readers(r#"{"contains_url":true}"#), None);
}

#[test]
fn state_is_left_out_by_room_and_url() {
    let (world, _) = eventful();
    world.state(ROOM, ALICE, "m.room.avatar", "", json!({"url": "mxc://here.example/a"}));
    world.message(ROOM, ALICE, "hello");
    let state = |filter: &str, room_id: &str| {
        let filter = format!(r#"{{"timeline":{{"limit":1}},"state":{filter}}}"#).replace("ROOM", ROOM);
        let nothing = SyncToken { pos: StreamPos::ZERO, to_device: StreamPos::ZERO };
        let asked = sync(BOB, nothing, &format!(r#"{{"room":{filter}}}"#));
        let answer = read(&world, &Sync { since: None, ..asked }).0;
        kinds(&answer["rooms"]["join"][room_id], "state")
    };
    assert!(state("{}", ROOM).len() > 1 && state("{}", ELSEWHERE).len() > 1);
    assert_eq!(state(r#"{"not_rooms":["ROOM"]}"#, ROOM).len(), 0);
    assert_eq!(state(r#"{"not_rooms":["ROOM"]}"#, ELSEWHERE), state("{}", ELSEWHERE));
    assert_eq!(state(r#"{"contains_url":true}"#, ROOM), ["m.room.avatar"]);
}

#[test]
fn the_format_of_federation_is_for_timeline_and_state() {
    let (world, _) = eventful();
    let redacted = world.message(ROOM, ALICE, "gone soon");
    world.redact(ROOM, ALICE, &redacted);
    let nothing = SyncToken { pos: StreamPos::ZERO, to_device: StreamPos::ZERO };
    let filter = r#"{"event_format":"federation","room":{"timeline":{"limit":2}}}"#;
    let answer = read(&world, &Sync { since: None, ..sync(BOB, nothing, filter) }).0;
    let room = &answer["rooms"]["join"][ROOM];
    let timeline = room["timeline"]["events"].as_array().unwrap();
    let state = room["state"]["events"].as_array().unwrap();
    assert_eq!(timeline.len(), 2);
    for event in timeline.iter().chain(state) {
        let (stored, event_id) = world.ask(|reader| {
            let num = reader.event_num(event["event_id"].as_str().unwrap())?.unwrap();
            let event = reader.event(num)?;
            Ok((event.json.clone(), event.event_id.to_string()))
        });
        let mut stored: Value = serde_json::from_slice(&stored).unwrap();
        stored["event_id"] = event_id.into();
        stored["unsigned"] = event["unsigned"].clone();
        assert_eq!(event, &stored);
        for member in ["auth_events", "prev_events", "hashes", "signatures", "depth", "room_id"] {
            assert!(event.get(member).is_some(), "{member}");
        }
    }
    let because = &timeline[0]["unsigned"]["redacted_because"];
    assert_eq!(because["hashes"], timeline[1]["hashes"]);
}

/// What was rendered for clients who ask for the other format is not given to those who wait for this one.
#[test]
fn the_format_of_federation_is_not_shared() {
    let world = world();
    let since = USERS.map(|user| start(&world, user));
    world.message(ROOM, ALICE, "hello");
    compared(&world, BOB, since[1]);
    assert!(is_shared(&world));
    let whole = read(&world, &sync(CAROL, since[2], r#"{"event_format":"federation"}"#)).0;
    let plain = read(&world, &sync(CAROL, since[2], "{}")).0;
    let event = |answer: &Value| answer["rooms"]["join"][ROOM]["timeline"]["events"][0].clone();
    assert!(event(&whole).get("hashes").is_some() && event(&plain).get("hashes").is_none());
}

#[test]
fn typing_is_sent_by_those_who_type() {
    let world = world();
    let set = |user: &str, typing| {
        let set = SetTyping { room_id: ROOM.into(), user: user.into(), typing, timeout_ms: None };
        world.engine.write(set).wait().unwrap();
    };
    let since = start(&world, BOB);
    let typing = |filter: &str| {
        let rooms = rooms(&world, since, &format!(r#"{{"ephemeral":{filter}}}"#));
        let event = rooms[ROOM]["ephemeral"]["events"][0].clone();
        event["content"]["user_ids"].as_array().cloned()
    };
    set(ALICE, true);
    set(CAROL, true);
    let without_alice = r#"{"not_senders":["@alice:here.example"]}"#;
    assert_eq!(typing("{}"), Some(vec![ALICE.into(), CAROL.into()]));
    assert_eq!(typing(without_alice), Some(vec![CAROL.into()]));
    assert_eq!(typing(r#"{"not_rooms":["ROOM"]}"#), None);
    assert_eq!(typing(r#"{"types":["m.receipt"]}"#), None);
    // That Carol has stopped must be told.
    set(CAROL, false);
    assert_eq!(typing(without_alice), Some(vec![]));
}
