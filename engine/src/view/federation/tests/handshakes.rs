//! Templates: to whom they are given, what is signed of those that others give, and which joins get a second signature.

use proptest::prelude::*;

use super::*;
use crate::{
    core::event::{JsonObject, Pdu, redact},
    core::version::{ROOM_VERSIONS, RoomVersion},
};

const SPACE: &str = "!space:here.example";

fn make(handshake: Handshake, user: &str) -> MakeMembership {
    let server = user.split_once(':').unwrap().1.to_owned();
    let versions = ROOM_VERSIONS.iter().map(|version| version.id.to_owned()).collect();
    MakeMembership { room_id: ROOM.into(), user_id: user.into(), handshake, versions, server }
}

fn rule(error: Option<Error>) -> bool {
    matches!(error, Some(Error::Denied(Denied::Rule { .. })))
}

fn join_rule(world: &World, rule: &str) {
    world.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": rule}));
}

/// Lets the members of the space in, in which nobody but alice is.
fn restrict(world: &World) {
    world.room(SPACE, ALICE, None);
    let allow = json!([{"type": "m.room_membership", "room_id": SPACE}, {"type": "org.example.moon"}, 5]);
    world.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "restricted", "allow": allow}));
}

fn sign(template: &MembershipTemplate, handshake: Handshake, user: &str) -> SignedEvent {
    let there = World::named(THERE);
    let asked = SignTemplate {
        room_id: ROOM,
        user_id: user,
        handshake,
        resident: "here.example",
        room_version: Some(template.room_version),
        template: &template.event,
        reason: Some("why not"),
    };
    ask(&there, &asked)
}

fn countersign(world: &World, event: &SignedEvent) -> crate::Result<Bytes> {
    let view = CountersignJoin { room_id: ROOM, event_id: &event.event_id, pdu: &event.json, server: THERE };
    world.engine.read(&view)
}

#[test]
fn a_template_is_what_the_user_could_send_now() {
    let world = world("shared");
    let last = world.message(ROOM, ALICE, "last");
    let made = ask(&world, &make(Handshake::Join, BOB));
    assert_eq!(made.room_version, "10");
    let event = Value::Object(made.event);
    assert_eq!(event["type"], "m.room.member");
    assert_eq!(event["room_id"], ROOM);
    assert_eq!((&event["sender"], &event["state_key"]), (&json!(BOB), &json!(BOB)));
    assert_eq!(event["content"], json!({"membership": "join"}));
    assert_eq!(event["prev_events"], json!([last]));
    assert_eq!(event["origin"], "here.example");
    // Create, join rules; the room has no power levels, and the user no membership.
    assert_eq!(event["auth_events"].as_array().unwrap().len(), 2);
    assert!(event.get("signatures").is_none() && event.get("hashes").is_none());
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    let leave = ask(&world, &make(Handshake::Leave, BOB));
    assert_eq!(leave.event["content"], json!({"membership": "leave"}));
}

#[test]
fn templates_are_for_those_whom_the_room_would_let_do_it() {
    let world = world("shared");
    let made = |handshake, user| world.engine.read(&make(handshake, user));
    assert!(made(Handshake::Join, BOB).is_ok());
    assert!(rule(made(Handshake::Knock, BOB).err()));
    assert!(rule(made(Handshake::Leave, BOB).err()));
    join_rule(&world, "knock");
    assert!(rule(made(Handshake::Join, BOB).err()));
    assert!(made(Handshake::Knock, BOB).is_ok());
    join_rule(&world, "invite");
    assert!(rule(made(Handshake::Join, BOB).err()));
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    assert!(made(Handshake::Join, BOB).is_ok());
    assert!(made(Handshake::Leave, BOB).is_ok());
    join_rule(&world, "public");
    world.member(ROOM, ALICE, BOB, "ban").unwrap();
    for handshake in [Handshake::Join, Handshake::Knock, Handshake::Leave] {
        assert!(rule(made(handshake, BOB).err()));
    }
}

#[test]
fn templates_are_for_servers_that_ask_rightly() {
    let world = world("shared");
    let engine = &world.engine;
    let good = || make(Handshake::Join, BOB);
    let other_user = MakeMembership { user_id: DAVE.into(), ..good() };
    assert!(matches!(engine.read(&other_user), Err(Error::Denied(Denied::NotYours))));
    let no_user = MakeMembership { user_id: "bob:there.example".into(), ..good() };
    assert!(matches!(engine.read(&no_user), Err(Error::Denied(Denied::NotYours))));
    let unknown = MakeMembership { room_id: "!unknown:here.example".into(), ..good() };
    assert!(matches!(engine.read(&unknown), Err(Error::NotFound(What::Room))));
    let old = MakeMembership { versions: vec!["1".into(), "9".into()], ..good() };
    let refused = engine.read(&old).err();
    assert!(matches!(refused, Some(Error::Denied(Denied::IncompatibleRoomVersion("10")))));
    // A version is not needed to leave.
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    assert!(engine.read(&MakeMembership { versions: Vec::new(), ..make(Handshake::Leave, BOB) }).is_ok());
    world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"allow": ["here.example"]}));
    assert!(matches!(engine.read(&good()), Err(Error::Denied(Denied::ServerAcl))));
    world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"allow": ["*"]}));
    assert!(engine.read(&good()).is_ok());
    // A server whose users have left knows too little to help.
    world.join(ROOM, BOB);
    world.leave(ROOM, ALICE);
    assert!(matches!(engine.read(&make(Handshake::Join, DAVE)), Err(Error::NotFound(What::Room))));
}

#[test]
fn a_restricted_join_is_vouched_for_by_who_may_invite() {
    let world = world("shared");
    restrict(&world);
    let made = || world.engine.read(&make(Handshake::Join, BOB));
    assert!(rule(made().err()), "in none of the rooms");
    world.join(SPACE, BOB);
    let vouched = made().unwrap().event;
    assert_eq!(vouched["content"]["join_authorised_via_users_server"], ALICE);
    // Whoever is invited needs nobody.
    world.member(ROOM, ALICE, BOB, "invite").unwrap();
    assert!(made().unwrap().event["content"].get("join_authorised_via_users_server").is_none());
    world.leave(ROOM, BOB);
    world.leave(SPACE, BOB);
    assert!(rule(made().err()), "left the room that let them in");
}

#[test]
fn a_restricted_join_for_which_nobody_here_can_vouch() {
    let world = world("shared");
    restrict(&world);
    world.join(SPACE, BOB);
    world.join(SPACE, DAVE);
    let invited = ask(&world, &make(Handshake::Join, DAVE));
    assert!(invited.event["content"].get("join_authorised_via_users_server").is_some());
    // The one who may invite is of another server.
    world.member(ROOM, ALICE, DAVE, "invite").unwrap();
    world.join(ROOM, DAVE);
    let levels = json!({"users": {DAVE: 100, ALICE: 50}, "invite": 75});
    world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
    let made = || world.engine.read(&make(Handshake::Join, BOB));
    assert!(matches!(made(), Err(Error::Denied(Denied::UnableToGrantJoin))));
    // Nothing is known of the rooms whose members may come in: never heard of, or left by all who were there from here.
    world.leave(SPACE, ALICE);
    assert!(matches!(made(), Err(Error::Denied(Denied::UnableToAuthoriseJoin))));
}

/// Another server may be in the room that this one does not know, and vouch for the join.
#[test]
fn a_restricted_join_is_for_others_to_decide_as_long_as_one_room_is_not_known() {
    let world = world("shared");
    restrict(&world);
    let rooms = [SPACE, "!unheard:there.example"];
    let allow = rooms.map(|room_id| json!({"type": "m.room_membership", "room_id": room_id}));
    world.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": "restricted", "allow": allow}));
    let made = || world.engine.read(&make(Handshake::Join, BOB));
    assert!(matches!(made(), Err(Error::Denied(Denied::UnableToAuthoriseJoin))));
    world.join(SPACE, BOB);
    let vouched = sign(&made().unwrap(), Handshake::Join, BOB);
    assert!(countersign(&world, &vouched).is_ok());
    world.leave(SPACE, BOB);
    assert!(matches!(countersign(&world, &vouched), Err(Error::Denied(Denied::UnableToAuthoriseJoin))));
}

#[test]
fn a_restricted_join_is_refused_where_no_room_is_named() {
    let world = world("shared");
    let is_refused = || rule(world.engine.read(&make(Handshake::Join, BOB)).err());
    let other_kind = json!([{"type": "org.example.moon", "room_id": SPACE}]);
    let no_room = json!([{"type": "m.room_membership"}, {"type": "m.room_membership", "room_id": 5}, "x"]);
    for allow in [json!([]), json!(null), json!({}), other_kind, no_room] {
        for name in ["restricted", "knock_restricted"] {
            world.state(ROOM, ALICE, "m.room.join_rules", "", json!({"join_rule": name, "allow": allow}));
            assert!(is_refused(), "{name} {allow}");
        }
    }
    join_rule(&world, "restricted");
    assert!(is_refused());
}

#[test]
fn what_is_signed_is_what_was_asked_for() {
    let world = world("shared");
    restrict(&world);
    world.join(SPACE, BOB);
    let made = ask(&world, &make(Handshake::Join, BOB));
    let signed = sign(&made, Handshake::Join, BOB);
    let pdu = Pdu::parse(signed.version, &signed.json).unwrap();
    assert_eq!(pdu.event_id, signed.event_id);
    let expected = json!({
        "membership": "join",
        "reason": "why not",
        "join_authorised_via_users_server": ALICE,
    });
    assert_eq!(Value::Object(pdu.content.clone()), expected);
    let there = World::named(THERE);
    let key = there.engine.key_pair();
    pdu.verify_signature(signed.version, THERE, key.key_id(), key.public_key()).unwrap();
}

#[test]
fn events_of_every_room_version_are_signed() {
    let there = World::named(THERE);
    for version in ROOM_VERSIONS {
        let room_id = if version.room_id_is_create_hash { "!hash" } else { ROOM };
        let template = json!({
            "type": "m.room.member",
            "room_id": room_id,
            "sender": BOB,
            "state_key": BOB,
            "content": {"membership": "leave"},
            "depth": 7,
            "prev_events": [reference(version, 'a')],
            "auth_events": [reference(version, 'b'), reference(version, 'c')],
        });
        let asked = SignTemplate {
            room_id,
            user_id: BOB,
            handshake: Handshake::Leave,
            resident: "here.example",
            room_version: Some(version.id),
            template: template.as_object().unwrap(),
            reason: None,
        };
        let signed = ask(&there, &asked);
        let pdu = Pdu::parse(version, &signed.json).unwrap();
        assert_eq!((pdu.depth, pdu.auth_events.len()), (7, 2));
        let unknown = SignTemplate { room_version: Some("org.example.13"), ..asked };
        assert!(matches!(there.engine.read(&unknown), Err(Error::Invalid(Invalid::RoomVersion(_)))));
    }
}

fn reference(version: &RoomVersion, name: char) -> Value {
    let hash = "A".repeat(43);
    match version.event_ids {
        crate::core::version::EventIdFormat::Own => {
            json!([format!("${name}:here.example"), {"sha256": hash}])
        }
        _ => json!(format!("${name}")),
    }
}

/// A template as a resident gives it, to be tampered with.
fn good_template() -> JsonObject {
    json!({
        "type": "m.room.member",
        "room_id": ROOM,
        "sender": BOB,
        "state_key": BOB,
        "content": {"membership": "join"},
        "depth": 7,
        "prev_events": ["$a"],
        "auth_events": ["$b", "$c"],
        "origin": "here.example",
        "origin_server_ts": 1,
    })
    .as_object()
    .cloned()
    .unwrap()
}

fn try_sign(world: &World, template: &JsonObject) -> crate::Result<SignedEvent> {
    world.engine.read(&SignTemplate {
        room_id: ROOM,
        user_id: BOB,
        handshake: Handshake::Join,
        resident: "here.example",
        room_version: Some("10"),
        template,
        reason: None,
    })
}

#[test]
fn templates_for_anything_else_are_refused() {
    let there = World::named(THERE);
    assert!(try_sign(&there, &good_template()).is_ok());
    let tampered = [
        ("type", json!("m.room.power_levels")),
        ("room_id", json!("!other:here.example")),
        ("sender", json!(CAROL)),
        ("state_key", json!(CAROL)),
        ("state_key", json!(null)),
        ("content", json!({"membership": "invite"})),
        ("content", json!({"membership": "leave"})),
        ("content", json!({})),
        ("content", json!([])),
        ("prev_events", json!([])),
        ("prev_events", json!([["$a:here.example", {"sha256": "AAAA"}]])),
        ("auth_events", json!("$b")),
        // Beyond the limits of an event, which is no fault of who wants to come in.
        ("prev_events", json!(vec!["$a"; 21])),
        ("auth_events", json!(vec!["$b"; 11])),
        ("prev_events", json!(["$".repeat(256)])),
        ("auth_events", json!(["$".repeat(65_536)])),
        ("depth", json!(-1)),
        ("content", json!({"membership": "join", "join_authorised_via_users_server": "@eve:evil.example"})),
        ("content", json!({"membership": "join", "join_authorised_via_users_server": 5})),
    ];
    for (name, value) in tampered {
        let mut template = good_template();
        template.insert(name.to_owned(), value.clone());
        let refused = try_sign(&there, &template);
        assert!(matches!(refused, Err(Error::Invalid(Invalid::Template(_)))), "{name}: {value}");
    }
    // For a user of another server nothing is signed at all.
    let asked = SignTemplate {
        room_id: ROOM,
        user_id: DAVE,
        handshake: Handshake::Join,
        resident: "here.example",
        room_version: Some("10"),
        template: &good_template(),
        reason: None,
    };
    assert!(matches!(there.engine.read(&asked), Err(Error::Denied(Denied::OtherServer))));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![Just(BOB), Just(ROOM), Just("join"), Just("invite"), Just("m.room.create"), Just("$x")]
            .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![Just("membership".to_owned()), Just("displayname".to_owned()), "[a-z_.]{1,20}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// No answer makes us sign anything else than a join of this user to this room, saying what our user says.
    #[test]
    fn no_template_makes_us_sign_anything_else(
        changes in proptest::collection::vec((0_usize..14, any_json()), 0..4),
    ) {
        const NAMES: [&str; 14] = [
            "type", "room_id", "sender", "state_key", "content", "depth", "prev_events", "auth_events", "origin",
            "origin_server_ts", "redacts", "unsigned", "signatures", "event_id",
        ];
        let there = World::named(THERE);
        let mut template = good_template();
        for (name, value) in changes {
            template.insert(NAMES[name].to_owned(), value);
        }
        if let Ok(signed) = try_sign(&there, &template) {
            let event: Value = serde_json::from_slice(&signed.json).unwrap();
            prop_assert_eq!(&event["type"], "m.room.member");
            prop_assert_eq!(&event["room_id"], ROOM);
            prop_assert_eq!(&event["sender"], BOB);
            prop_assert_eq!(&event["state_key"], BOB);
            prop_assert_eq!(&event["content"], &json!({"membership": "join"}));
            let allowed = [
                "auth_events", "content", "depth", "hashes", "origin_server_ts", "prev_events", "room_id",
                "sender", "signatures", "state_key", "type",
            ];
            for name in event.as_object().unwrap().keys() {
                prop_assert!(allowed.contains(&name.as_str()), "{}", name);
            }
            prop_assert_eq!(event["signatures"].as_object().unwrap().len(), 1);
        }
    }
}

#[test]
fn only_joins_that_our_user_vouches_for_get_our_signature() {
    let world = world("shared");
    let key = world.engine.key_pair();
    let is_ours = |event: &SignedEvent, json: &Bytes| {
        let pdu = Pdu::parse(event.version, json).unwrap();
        assert_eq!(pdu.event_id, event.event_id);
        pdu.verify_signature(event.version, "here.example", key.key_id(), key.public_key()).is_ok()
    };
    // A plain join needs none.
    let plain = sign(&ask(&world, &make(Handshake::Join, BOB)), Handshake::Join, BOB);
    assert_eq!(countersign(&world, &plain).unwrap(), plain.json);
    restrict(&world);
    world.join(SPACE, BOB);
    let vouched = sign(&ask(&world, &make(Handshake::Join, BOB)), Handshake::Join, BOB);
    let signed = countersign(&world, &vouched).unwrap();
    assert!(is_ours(&vouched, &signed));
    let signed_again = signed.clone();
    // The joining server takes our signature, and nothing else of the answer.
    let mut answer: JsonObject = serde_json::from_slice(&signed).unwrap();
    answer.insert("content".to_owned(), json!({"membership": "leave"}));
    answer["signatures"]["third.example"] = json!({"ed25519:a": "AAAA"});
    let take = |answer: &JsonObject| {
        world.engine.read(&TakeSignature { event: &vouched, answer, server: "here.example" })
    };
    assert_eq!(take(&answer).unwrap(), TakenSignature::Signed(signed));
    // Nor one that does not hold, whatever else there is; and one by a key that is not known cannot be told from such.
    answer["signatures"]["here.example"]["ed25519:unheard_of"] = json!("AAAA");
    assert_eq!(take(&answer).unwrap(), TakenSignature::Signed(signed_again));
    let forged = json!({"here.example": {key.key_id(): "A".repeat(86)}});
    answer.insert("signatures".to_owned(), forged);
    assert!(matches!(take(&answer), Err(Error::Invalid(Invalid::Template("signatures")))));
    let unknown = json!({"here.example": {"ed25519:unheard_of": "A".repeat(86)}});
    answer.insert("signatures".to_owned(), unknown);
    assert!(matches!(take(&answer).unwrap(), TakenSignature::MissingKeys(keys) if keys.len() == 1));
    answer.insert("signatures".to_owned(), json!({"third.example": {"ed25519:a": "AAAA"}}));
    assert!(matches!(take(&answer), Err(Error::Invalid(Invalid::Template("signatures")))));
    // Who has left the room that let them in meanwhile does not get it.
    world.leave(SPACE, BOB);
    assert!(matches!(countersign(&world, &vouched), Err(Error::Denied(Denied::JoinConditions))));
    world.join(SPACE, BOB);
    assert!(countersign(&world, &vouched).is_ok());
    // Nor is it given in the name of who may not invite, or no longer.
    world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 50}, "invite": 75}));
    assert!(matches!(countersign(&world, &vouched), Err(Error::Denied(Denied::UnableToGrantJoin))));
}

#[test]
fn nothing_but_a_join_of_the_asking_server_is_countersigned() {
    let world = world("shared");
    restrict(&world);
    world.join(SPACE, BOB);
    let vouched = sign(&ask(&world, &make(Handshake::Join, BOB)), Handshake::Join, BOB);
    fn view<'a>(room_id: &'a str, event_id: &'a str, pdu: &'a [u8], server: &'a str) -> CountersignJoin<'a> {
        CountersignJoin { room_id, event_id, pdu, server }
    }
    let invalid = |result: crate::Result<Bytes>| {
        matches!(result, Err(Error::Invalid(Invalid::Parameter { what: "event", .. })))
    };
    let engine = &world.engine;
    let (id, json) = (&*vouched.event_id, &*vouched.json);
    assert!(invalid(engine.read(&view(ROOM, "$other", json, THERE))));
    assert!(invalid(engine.read(&view(ROOM, id, json, THIRD))));
    assert!(invalid(engine.read(&view(SPACE, id, json, THERE))));
    let unknown = engine.read(&view("!unknown:here.example", id, json, THERE));
    assert!(matches!(unknown, Err(Error::NotFound(What::Room))));
    assert!(matches!(engine.read(&view(ROOM, id, b"[]", THERE)), Err(Error::Invalid(Invalid::Event(_)))));
    // Other events that name who vouches.
    for (kind, state_key, membership) in [
        ("m.room.member", BOB, "leave"),
        ("m.room.member", BOB, "invite"),
        ("m.room.member", CAROL, "join"),
        ("m.room.power_levels", "", "join"),
    ] {
        let mut event: JsonObject = serde_json::from_slice(json).unwrap();
        event.insert("type".to_owned(), kind.into());
        event.insert("state_key".to_owned(), state_key.into());
        event["content"]["membership"] = membership.into();
        let pdu = Pdu::from_object(vouched.version, event).unwrap();
        assert!(invalid(engine.read(&view(ROOM, &pdu.event_id, &pdu.json, THERE))), "{kind} {membership}");
    }
}

#[test]
fn a_redacted_copy_keeps_its_id_and_signatures() {
    let world = world("joined");
    let hidden = world.message(ROOM, ALICE, "hidden");
    world.join(ROOM, BOB);
    let pdu = events(&world, &[&hidden], THERE).remove(0).unwrap();
    let version = RoomVersion::get("10").unwrap();
    let parsed = Pdu::parse(version, &pdu).unwrap();
    assert_eq!(*parsed.event_id, *hidden);
    let key = world.engine.key_pair();
    parsed.verify_signature(version, "here.example", key.key_id(), key.public_key()).unwrap();
    let object: JsonObject = serde_json::from_slice(&pdu).unwrap();
    assert_eq!(redact(version, &object), object);
}

#[test]
fn an_invite_for_a_user_of_another_server_waits_for_its_signature() {
    let world = world("shared");
    world.state(ROOM, ALICE, "m.room.name", "", json!({"name": "Come in"}));
    let said = json!({
        "reason": "please", "is_direct": true, "org.example.more": [1],
        "membership": "join", "join_authorised_via_users_server": "@x:elsewhere.example",
    });
    let invite = |sender: &str, target: &str| MakeInvite {
        room_id: ROOM.into(),
        sender: sender.into(),
        target: target.into(),
        content: said.as_object().cloned().unwrap(),
        third_party_signed: None,
    };
    let made = ask(&world, &invite(ALICE, BOB));
    let pdu = Pdu::parse(made.event.version, &made.event.json).unwrap();
    assert!(pdu.is_state("m.room.member", BOB));
    assert_eq!((&*pdu.sender, pdu.membership()), (ALICE, Some("invite")));
    let kept =
        json!({"membership": "invite", "reason": "please", "is_direct": true, "org.example.more": [1]});
    assert_eq!(Value::from(pdu.content.clone()), kept);
    let kinds: Vec<Value> = made
        .room_state
        .iter()
        .map(|event| serde_json::from_slice::<Value>(event).unwrap()["type"].clone())
        .collect();
    assert_eq!(kinds, ["m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"]);
    // It is not in the room before the other server has signed it.
    let event_id = made.event.event_id.to_string();
    assert!(world.ask(|reader| Ok(reader.event_num(&event_id)?)).is_none());
    let refused = |sender: &str, target: &str| world.engine.read(&invite(sender, target)).err();
    assert!(matches!(refused(BOB, DAVE), Some(Error::Denied(Denied::OtherServer))));
    assert!(rule(refused("@eve:here.example", DAVE)), "not in the room");
    let nowhere = MakeInvite { room_id: "!nowhere:here.example".into(), ..invite(ALICE, DAVE) };
    assert!(matches!(world.engine.read(&nowhere), Err(Error::Denied(Denied::NotInRoom))));
    world.join(ROOM, BOB);
    assert!(rule(refused(ALICE, BOB)), "in the room already");
    assert!(matches!(refused(ALICE, "nobody"), Some(Error::Invalid(Invalid::Identifier { .. }))));
}
