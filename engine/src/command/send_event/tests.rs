//! What is checked of an event besides the room's rules.

use serde_json::{Value, json};

use super::SendEvent;
use crate::{
    command::{ChangeMembership, CreateRoom, MembershipAction, RemoveAlias, SetAlias},
    core::{auth::Reason, version::ROOM_VERSIONS},
    error::{Conflict, Denied, Error, Invalid, Result, What},
    fixture::World,
    room::{Preset, RoomCtx},
};

const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:here.example";

/// A public room of alice's, which bob is in.
fn room(world: &World, version: &str) -> String {
    let mut request = CreateRoom::new(ALICE, version);
    request.preset = Preset::PublicChat;
    let room_id = world.engine.write(request).wait().unwrap();
    let join = ChangeMembership {
        room_id: room_id.clone(),
        sender: BOB.to_owned(),
        target: BOB.to_owned(),
        action: MembershipAction::Join,
        reason: None,
        is_guest: false,
    };
    world.engine.write(join).wait().unwrap();
    room_id
}

fn event(room_id: &str, sender: &str, kind: &str, state_key: Option<&str>, content: &Value) -> SendEvent {
    SendEvent {
        room_id: room_id.to_owned(),
        sender: sender.to_owned(),
        is_guest: false,
        kind: kind.to_owned(),
        state_key: state_key.map(str::to_owned),
        content: content.as_object().cloned().unwrap(),
        redacts: None,
        transaction: None,
        origin_server_ts: None,
    }
}

fn send(
    world: &World,
    room_id: &str,
    sender: &str,
    kind: &str,
    state_key: Option<&str>,
    content: Value,
) -> Result<String> {
    world.engine.write(event(room_id, sender, kind, state_key, &content)).wait()
}

#[test]
fn only_own_events_or_with_power() {
    for version in ROOM_VERSIONS {
        let world = World::new();
        let room_id = room(&world, version.id);
        let message =
            |sender| send(&world, &room_id, sender, "m.room.message", None, json!({"body": "hello"}));
        let redact = |sender, redacts: &str| {
            // As clients may do in every version: the target in the content.
            send(&world, &room_id, sender, "m.room.redaction", None, json!({"redacts": redacts}))
        };
        let of_alice = message(ALICE).unwrap();
        let error = redact(BOB, &of_alice).unwrap_err();
        assert!(matches!(error, Error::Denied(Denied::PowerLevel)), "{version:?} {error}");
        let own = message(BOB).unwrap();
        redact(BOB, &own).unwrap();
        redact(ALICE, &of_alice).unwrap();
        let other = message(BOB).unwrap();
        redact(ALICE, &other).unwrap();
        for event_id in [&own, &of_alice, &other] {
            world.ask(|reader| {
                let event = reader.event(reader.event_num(event_id)?.unwrap())?;
                assert!(event.header.redacted_by.is_some());
                assert!(event.pdu()?.content.is_empty());
                Ok(())
            });
        }
        // Who has the power may redact what only other servers have, too.
        let error = redact(BOB, "$unknown:here.example").unwrap_err();
        assert!(matches!(error, Error::NotFound(What::Event)), "{error}");
        redact(ALICE, "$unknown:here.example").unwrap();
        for no_event in ["unknown", "", &format!("${}", "a".repeat(255))] {
            assert!(matches!(redact(ALICE, no_event).unwrap_err(), Error::NotFound(What::Event)));
        }
        let elsewhere = room(&world, version.id);
        let elsewhere = send(&world, &elsewhere, ALICE, "m.room.message", None, json!({})).unwrap();
        assert!(matches!(redact(ALICE, &elsewhere).unwrap_err(), Error::NotFound(What::Event)));
    }
}

#[test]
fn nobody_redacts_what_a_room_stands_on() {
    for version in ROOM_VERSIONS {
        let world = World::new();
        let room_id = room(&world, version.id);
        let acl = json!({"allow": ["*"], "deny": ["evil.example"]});
        send(&world, &room_id, ALICE, "m.room.server_acl", Some(""), acl).unwrap();
        for kind in ["m.room.create", "m.room.server_acl"] {
            let event_id = world.ask(|reader| {
                let event = RoomCtx::load(reader, &room_id)?.state(reader, kind, "")?.unwrap();
                Ok(event.event_id.to_string())
            });
            for sender in [ALICE, BOB] {
                let redacts = json!({ "redacts": event_id });
                let error = send(&world, &room_id, sender, "m.room.redaction", None, redacts).unwrap_err();
                assert!(matches!(error, Error::Denied(Denied::Unredactable)), "{version:?} {kind} {error}");
            }
        }
    }
}

#[test]
fn nobody_reacts_twice_alike() {
    let world = World::new();
    let room_id = room(&world, "12");
    let target = send(&world, &room_id, ALICE, "m.room.message", None, json!({"body": "hello"})).unwrap();
    let react = |sender, key: &str| {
        let relation = json!({"rel_type": "m.annotation", "event_id": target, "key": key});
        send(&world, &room_id, sender, "m.reaction", None, json!({ "m.relates_to": relation }))
    };
    let first = react(BOB, "👍").unwrap();
    react(BOB, "👎").unwrap();
    react(ALICE, "👍").unwrap();
    let error = react(BOB, "👍").unwrap_err();
    assert!(matches!(error, Error::Conflict(Conflict::DuplicateAnnotation)), "{error}");
    send(&world, &room_id, BOB, "m.room.redaction", None, json!({ "redacts": first })).unwrap();
    react(BOB, "👍").unwrap();
}

#[test]
fn canonical_aliases_exist_and_point_here() {
    let world = World::new();
    let room_id = room(&world, "12");
    let alias = "#burrow:here.example";
    let set = |content| send(&world, &room_id, ALICE, "m.room.canonical_alias", Some(""), content);
    let error = set(json!({ "alias": alias })).unwrap_err();
    assert!(matches!(error, Error::Invalid(Invalid::AliasTarget(_))), "{error}");
    let error = set(json!({ "alt_aliases": ["burrow"] })).unwrap_err();
    assert!(matches!(error, Error::Invalid(Invalid::Identifier { .. })), "{error}");
    let make = |user: &str| {
        let make = SetAlias { alias: alias.to_owned(), room_id: room_id.clone(), user_id: user.to_owned() };
        world.engine.write(make).wait()
    };
    assert!(matches!(make("@eve:here.example").unwrap_err(), Error::Denied(Denied::NotInRoom)));
    make(BOB).unwrap();
    assert!(matches!(make(ALICE).unwrap_err(), Error::Conflict(Conflict::AliasInUse)));
    set(json!({ "alias": alias, "alt_aliases": [alias] })).unwrap();
    let remove = |user: &str| {
        let (alias, room_id, user_id) = (alias.to_owned(), room_id.clone(), user.to_owned());
        world.engine.write(RemoveAlias { alias, room_id, user_id, is_admin: false }).wait()
    };
    assert!(matches!(remove("@eve:here.example").unwrap_err(), Error::Denied(Denied::NotYours)));
    remove(ALICE).unwrap();
    assert!(matches!(remove(ALICE).unwrap_err(), Error::NotFound(What::Alias)));
    world.ask(|reader| {
        let room = RoomCtx::load(reader, &room_id)?;
        let event = room.state(reader, "m.room.canonical_alias", "")?.unwrap();
        assert_eq!(Value::Object(event.pdu()?.content.clone()), json!({ "alt_aliases": [] }));
        assert!(reader.room_aliases(room.num)?.is_empty());
        Ok(())
    });
    // What is there already is not asked for again.
    make(BOB).unwrap();
    set(json!({ "alias": alias })).unwrap();
    remove(BOB).unwrap();
    set(json!({ "alias": alias, "note": "unchanged" })).unwrap();
}

#[test]
fn the_same_again_makes_nothing_new() {
    let world = World::new();
    let room_id = room(&world, "12");
    let mut message = event(&room_id, BOB, "m.room.message", None, &json!({"body": "hello"}));
    message.transaction = Some(("DEVICE".to_owned(), "1".to_owned()));
    let first = world.engine.write(message.clone()).wait().unwrap();
    assert_eq!(world.engine.write(message.clone()).wait().unwrap(), first);
    message.transaction = Some(("OTHER".to_owned(), "1".to_owned()));
    assert_ne!(world.engine.write(message).wait().unwrap(), first);
    let name = || send(&world, &room_id, ALICE, "m.room.name", Some(""), json!({"name": "Burrow"}));
    assert_eq!(name().unwrap(), name().unwrap());
}

#[test]
fn a_second_create_event_is_refused() {
    for version in ["11", "12"] {
        let world = World::new();
        let room_id = room(&world, version);
        for (state_key, content) in
            [(Some(""), json!({"room_version": version})), (Some("again"), json!({})), (None, json!({}))]
        {
            let create = |sender| send(&world, &room_id, sender, "m.room.create", state_key, content.clone());
            for member in [ALICE, BOB] {
                let error = create(member).unwrap_err();
                assert!(
                    matches!(error, Error::Invalid(Invalid::Parameter { what: "eventType", .. })),
                    "{error}"
                );
            }
            // Who is not in a room is not told that there is one.
            assert!(matches!(create("@eve:here.example").unwrap_err(), Error::Denied(Denied::NotInRoom)));
        }
    }
}

#[test]
fn content_of_a_wrong_shape_is_the_senders_to_correct() {
    for version in ["6", "11", "12"] {
        let world = World::new();
        let room_id = room(&world, version);
        for (kind, state_key, content) in [
            ("m.room.member", ALICE, json!({})),
            ("m.room.member", BOB, json!({"membership": 5})),
            ("m.room.member", BOB, json!({"membership": "burrowed"})),
            ("m.room.power_levels", "", json!({"ban": "fifty"})),
            ("m.room.power_levels", "", json!({"events": {"m.x": "fifty"}})),
            ("m.room.power_levels", "", json!({"users": []})),
            ("m.room.power_levels", "", json!({"users": {"bob": 50}})),
        ] {
            let error = send(&world, &room_id, ALICE, kind, Some(state_key), content).unwrap_err();
            assert!(matches!(error, Error::Invalid(Invalid::Content { .. })), "{kind} in {version}: {error}");
        }
        let levels = json!({"users": {ALICE: 100, BOB: 50}});
        let sent = send(&world, &room_id, ALICE, "m.room.power_levels", Some(""), levels);
        match version {
            "12" => {
                let error = sent.unwrap_err();
                assert!(matches!(error, Error::Invalid(Invalid::Content { rule: "10.4", .. })), "{error}");
            }
            _ => drop(sent.unwrap()),
        }
    }
}

#[test]
fn what_somebody_else_could_send_is_refused_as_such() {
    let world = World::new();
    let room_id = room(&world, "6");
    let levels = json!({"ban": "fifty"});
    let error = send(&world, &room_id, BOB, "m.room.power_levels", Some(""), levels).unwrap_err();
    assert!(matches!(error, Error::Denied(Denied::Rule { reason: Reason::RequiredLevel, .. })), "{error}");
    // Whose content the server makes cannot correct it: this version knows no knocks.
    let knock = ChangeMembership {
        room_id,
        sender: BOB.to_owned(),
        target: BOB.to_owned(),
        action: MembershipAction::Knock,
        reason: None,
        is_guest: false,
    };
    let error = world.engine.write(knock).wait().unwrap_err();
    assert!(
        matches!(error, Error::Denied(Denied::Rule { reason: Reason::MembershipUnknown, .. })),
        "{error}"
    );
}

#[test]
fn strangers_and_unknown_rooms_are_told_alike() {
    let world = World::new();
    let room_id = room(&world, "12");
    for (room_id, sender) in [("!nowhere:here.example", ALICE), (&*room_id, "@eve:here.example")] {
        let error = send(&world, room_id, sender, "m.room.message", None, json!({})).unwrap_err();
        assert!(matches!(error, Error::Denied(Denied::NotInRoom)), "{error}");
    }
}

#[test]
fn an_access_list_lets_this_server_in() {
    let world = World::new();
    let room_id = room(&world, "11");
    let set = |content: Value| send(&world, &room_id, ALICE, "m.room.server_acl", Some(""), content);
    for content in [
        json!({}),
        json!({"allow": ["*"], "deny": ["*"]}),
        json!({"allow": ["*"], "deny": ["HERE.example"]}),
        json!({"allow": ["there.example"]}),
    ] {
        assert!(matches!(set(content).unwrap_err(), Error::Invalid(Invalid::DeniesThisServer)));
    }
    set(json!({"allow": ["*.example"], "deny": ["there.example"]})).unwrap();
}

#[test]
fn no_thread_begins_at_what_relates_to_another_event() {
    let world = World::new();
    let room_id = room(&world, "11");
    let say = |content: Value| send(&world, &room_id, ALICE, "m.room.message", None, content);
    let in_thread = |root: &str| say(json!({"m.relates_to": {"rel_type": "m.thread", "event_id": root}}));
    let root = say(json!({})).unwrap();
    let reply = in_thread(&root).unwrap();
    assert!(matches!(in_thread(&reply).unwrap_err(), Error::Invalid(Invalid::ThreadRoot)));
}
