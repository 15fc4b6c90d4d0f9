//! Every preset in every room version, and what is refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{CreateRoom, InitialState};
use crate::{
    core::version::ROOM_VERSIONS,
    error::{Conflict, Error, Invalid},
    fixture::{SERVER, World},
    room::{Preset, RoomCtx},
    store::{Direction, schema},
};

const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:here.example";

const PRESETS: [Preset; 3] = [Preset::PrivateChat, Preset::TrustedPrivateChat, Preset::PublicChat];

/// The room's state, content by type and state key.
fn state(world: &World, room_id: &str) -> BTreeMap<(String, String), Value> {
    world.ask(|reader| {
        let room = RoomCtx::load(reader, room_id)?;
        let mut state = BTreeMap::new();
        for (_, num) in reader.state_entries(room.num, room.head.state)? {
            let pdu = reader.event(num)?.pdu()?;
            let key = (pdu.kind.to_string(), pdu.state_key.as_deref().unwrap_or_default().to_owned());
            state.insert(key, Value::Object(pdu.content.clone()));
        }
        Ok(state)
    })
}

/// The types of the room's events in their order.
fn kinds(world: &World, room_id: &str) -> Vec<String> {
    world.ask(|reader| {
        let room = RoomCtx::load(reader, room_id)?;
        let mut nums = Vec::new();
        reader.scan(&schema::TIMELINE, &room.num, Direction::Forward, |_, num| {
            nums.push(num);
            true
        })?;
        nums.into_iter().map(|num| Ok(reader.event(num)?.pdu()?.kind.to_string())).collect()
    })
}

fn object(value: Value) -> crate::core::event::JsonObject {
    value.as_object().cloned().unwrap()
}

#[test]
fn every_preset_in_every_version() {
    for version in ROOM_VERSIONS {
        for preset in PRESETS {
            let world = World::new();
            let mut request = CreateRoom::new(ALICE, version.id);
            request.preset = preset;
            request.invite = vec![BOB.to_owned()];
            let room_id = world.engine.write(request).wait().unwrap();
            let state = state(&world, &room_id);
            let content = |kind: &str, key: &str| &state[&(kind.to_owned(), key.to_owned())];

            let create = content("m.room.create", "");
            assert_eq!(create["room_version"], version.id);
            assert_eq!(create.get("creator").is_some(), version.creator_in_content);
            let trusted = preset == Preset::TrustedPrivateChat;
            let additional = create.get("additional_creators");
            assert_eq!(additional, (trusted && version.privileged_creators).then(|| json!([BOB])).as_ref());
            let levels = content("m.room.power_levels", "");
            let users = match (version.privileged_creators, trusted) {
                (true, _) => json!({}),
                (false, true) => json!({ ALICE: 100, BOB: 100 }),
                (false, false) => json!({ ALICE: 100 }),
            };
            assert_eq!(levels["users"], users);
            let tombstone = levels["events"]["m.room.tombstone"].as_i64().unwrap();
            assert!(!version.privileged_creators || tombstone > levels["state_default"].as_i64().unwrap());

            let (join_rule, guest_access) = match preset {
                Preset::PublicChat => ("public", "forbidden"),
                _ => ("invite", "can_join"),
            };
            assert_eq!(content("m.room.join_rules", "")["join_rule"], join_rule);
            assert_eq!(content("m.room.guest_access", "")["guest_access"], guest_access);
            assert_eq!(content("m.room.history_visibility", "")["history_visibility"], "shared");
            assert_eq!(content("m.room.member", ALICE)["membership"], "join");
            assert_eq!(content("m.room.member", BOB)["membership"], "invite");
            assert_eq!(room_id.contains(':'), !version.room_id_is_create_hash);
        }
    }
}

#[test]
fn events_come_in_the_order_of_the_specification() {
    let world = World::new();
    let mut request = CreateRoom::new(ALICE, "12");
    request.alias_localpart = Some("burrow".to_owned());
    request.name = Some("The burrow".to_owned());
    request.topic = Some("Digging".to_owned());
    request.invite = vec![BOB.to_owned(), BOB.to_owned(), ALICE.to_owned()];
    request.is_direct = true;
    request.is_listed = true;
    request.initial_state = [
        ("m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})),
        ("m.room.name", json!({"name": "overwritten"})),
        ("m.room.guest_access", json!({"guest_access": "forbidden"})),
    ]
    .into_iter()
    .map(|(kind, content)| InitialState {
        kind: kind.to_owned(),
        state_key: String::new(),
        content: object(content),
    })
    .collect();
    let room_id = world.engine.write(request).wait().unwrap();
    assert_eq!(
        kinds(&world, &room_id),
        [
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.encryption",
            "m.room.guest_access",
            "m.room.name",
            "m.room.topic",
            "m.room.member",
        ]
    );
    let state = state(&world, &room_id);
    let content = |kind: &str, key: &str| &state[&(kind.to_owned(), key.to_owned())];
    assert_eq!(content("m.room.name", "")["name"], "The burrow");
    assert_eq!(content("m.room.topic", "")["m.topic"]["m.text"][0]["body"], "Digging");
    assert_eq!(content("m.room.guest_access", "")["guest_access"], "forbidden");
    assert_eq!(content("m.room.canonical_alias", "")["alias"], format!("#burrow:{SERVER}"));
    assert_eq!(content("m.room.member", BOB)["is_direct"], true);
    world.ask(|reader| {
        assert_eq!(reader.alias(&format!("#burrow:{SERVER}"))?.unwrap().room_id, room_id);
        let room = RoomCtx::load(reader, &room_id)?;
        assert!(reader.has(&schema::PUBLIC_ROOMS, &room.num)?);
        let bob = reader.user_num(BOB)?.unwrap();
        let row = reader.user_room(bob, room.num)?.unwrap().value;
        let shown: Vec<Value> = serde_json::from_slice(&row.stripped_state.unwrap()).unwrap();
        let kinds: Vec<&str> = shown.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "m.room.create",
                "m.room.name",
                "m.room.topic",
                "m.room.join_rules",
                "m.room.canonical_alias",
                "m.room.encryption",
                "m.room.member",
                "m.room.member",
            ]
        );
        assert_eq!(shown.last().unwrap()["state_key"], BOB);
        assert_eq!(shown[6]["state_key"], ALICE);
        assert!(shown[0].get("event_id").is_none());
        Ok(())
    });
}

#[test]
fn rooms_made_alike_in_one_millisecond_are_two() {
    let world = World::new();
    let ids: Vec<String> =
        (0..2).map(|_| world.engine.write(CreateRoom::new(ALICE, "12")).wait().unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
    for room_id in &ids {
        assert_eq!(kinds(&world, room_id).len(), 6);
    }
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let world = World::new();
    let refused = |change: &dyn Fn(&mut CreateRoom)| {
        let mut request = CreateRoom::new(ALICE, "12");
        change(&mut request);
        world.engine.write(request).wait().unwrap_err()
    };
    let error = refused(&|request| request.version = "burrow".to_owned());
    assert!(matches!(error, Error::Invalid(Invalid::RoomVersion(_))), "{error}");
    let error = refused(&|request| request.invite = vec!["not a user".to_owned()]);
    assert!(matches!(error, Error::Invalid(Invalid::Identifier { .. })), "{error}");
    let error = refused(&|request| request.alias_localpart = Some("with:colon".to_owned()));
    assert!(matches!(error, Error::Invalid(Invalid::Identifier { .. })), "{error}");
    // A creator who may not name the room; in version 12, one who is listed among the users.
    for (version, users) in [("11", json!({ ALICE: 10 })), ("12", json!({ ALICE: 100 }))] {
        let error = refused(&|request| {
            request.version = version.to_owned();
            request.name = Some("nameless".to_owned());
            request.alias_localpart = Some("free".to_owned());
            request.power_level_content_override = object(json!({ "users": users }));
        });
        assert!(matches!(error, Error::Invalid(Invalid::RoomState(_))), "{error}");
    }
    // What no rule refuses of the first levels of an old room.
    for wrong in [json!({"ban": "fifty"}), json!({"notifications": {"room": "loud"}})] {
        let error = refused(&|request| {
            request.version = "5".to_owned();
            request.power_level_content_override = object(wrong.clone());
        });
        assert!(matches!(error, Error::Invalid(Invalid::RoomState(_))), "{wrong}: {error}");
    }
    world.ask(|reader| {
        assert!(reader.alias(&format!("#free:{SERVER}"))?.is_none());
        let alice = reader.user_num(ALICE)?;
        assert!(alice.is_none_or(|alice| reader.user_rooms(alice).unwrap().is_empty()));
        Ok(())
    });
    let with_alias = || {
        let mut request = CreateRoom::new(ALICE, "12");
        request.alias_localpart = Some("taken".to_owned());
        request
    };
    world.engine.write(with_alias()).wait().unwrap();
    let error = world.engine.write(with_alias()).wait().unwrap_err();
    assert!(matches!(error, Error::Conflict(Conflict::AliasInUse)), "{error}");
}

#[test]
fn an_access_list_lets_this_server_in() {
    let world = World::new();
    let create = |allow: &str| {
        let mut request = CreateRoom::new(ALICE, "11");
        let (kind, state_key) = ("m.room.server_acl".to_owned(), String::new());
        request.initial_state =
            vec![InitialState { kind, state_key, content: object(json!({"allow": [allow]})) }];
        world.engine.write(request).wait()
    };
    assert!(matches!(create("there.example").unwrap_err(), Error::Invalid(Invalid::RoomState(_))));
    let room_id = create("*.example").unwrap();
    let key = ("m.room.server_acl".to_owned(), String::new());
    assert_eq!(state(&world, &room_id)[&key], json!({"allow": ["*.example"]}));
}

#[test]
fn a_room_begins_with_no_alias_that_does_not_lead_to_it() {
    let world = World::new();
    let create = |localpart: Option<&str>, content: Value| {
        let mut request = CreateRoom::new(ALICE, "12");
        request.alias_localpart = localpart.map(str::to_owned);
        let (kind, state_key) = ("m.room.canonical_alias".to_owned(), String::new());
        request.initial_state = vec![InitialState { kind, state_key, content: object(content) }];
        world.engine.write(request).wait()
    };
    let taken = format!("#taken:{SERVER}");
    create(Some("taken"), json!({"alias": taken, "alt_aliases": [taken]})).unwrap();
    for alias in [taken, format!("#free:{SERVER}"), "#burrow:there.example".to_owned()] {
        for content in [json!({"alias": alias}), json!({"alt_aliases": [alias]})] {
            let error = create(None, content).unwrap_err();
            assert!(matches!(error, Error::Invalid(Invalid::AliasTarget(_))), "{alias}: {error}");
        }
    }
    for content in [json!({"alias": 5}), json!({"alt_aliases": "burrow"})] {
        let error = create(None, content).unwrap_err();
        assert!(matches!(error, Error::Invalid(Invalid::Parameter { .. })), "{error}");
    }
    create(None, json!({})).unwrap();
}
