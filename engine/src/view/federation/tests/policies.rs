//! This server as the policy server of a room: whose events it signs, and whose it does not.

use super::*;
use crate::{
    Engine, PolicyServer, UnsignedEvent,
    command::{SendEvent, WithSigned},
    core::{
        event::{EventBuilder, EventError, JsonObject, KeyPair, Pdu, encode_base64, hash_and_sign_event},
        limits::PREV_EVENTS_MAX,
        version::RoomVersion,
    },
    fixture::SERVER,
    remote::KeyStanding,
    store::Memory,
    view::{OwnOldKeys, StandingOfKey},
};

const LIST: &str = "!list:here.example";
const POLICY_KEY_ID: &str = "ed25519:policy_server";
const MALLORY: &str = "@mallory:there.example";

fn version() -> &'static RoomVersion {
    RoomVersion::get("10").unwrap()
}

/// A policy server that goes by one list, with a room that uses it.
fn protecting() -> World {
    let world = World::of_policies(&[LIST], Arc::new(Memory::default()));
    world.room(LIST, ALICE, None);
    world.room(ROOM, ALICE, None);
    name_policy_server(&world, SERVER, world.engine.policy_key().unwrap().public_key());
    world
}

fn name_policy_server(world: &World, via: &str, public_key: &[u8]) {
    let content = json!({"via": via, "public_keys": {"ed25519": encode_base64(public_key)}});
    world.state(ROOM, ALICE, "m.room.policy", "", content);
}

/// An event of another server's user.
fn event(room_id: &str, sender: &str, kind: &str, state_key: Option<&str>, content: Value) -> Pdu {
    let builder = EventBuilder {
        room_id: Some(room_id.into()),
        sender: sender.into(),
        kind: kind.into(),
        state_key: state_key.map(Arc::from),
        content: content.as_object().cloned().unwrap(),
        redacts: None,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 9,
        origin_server_ts: START_MS,
        event_id_localpart: None,
    };
    builder.build(version(), THERE, &KeyPair::from_seed("1", &[7; 32]).unwrap()).unwrap()
}

fn message(sender: &str) -> Pdu {
    event(ROOM, sender, "m.room.message", None, json!({"msgtype": "m.text", "body": "hello"}))
}

fn member(sender: &str, user: &str, membership: &str) -> Pdu {
    event(ROOM, sender, "m.room.member", Some(user), json!({"membership": membership}))
}

fn opinion(world: &World, pdu: &Pdu) -> Opinion {
    ask(world, &PolicyOpinion { event: &pdu.json })
}

fn refusal(world: &World, pdu: &Pdu) -> Option<PolicyRefusal> {
    match opinion(world, pdu) {
        Opinion::Recommended(_) => None,
        Opinion::Refused(refusal) => Some(refusal),
    }
}

/// Adds a rule to the list, or changes it.
fn rule(world: &World, kind: &str, key: &str, content: Value) -> String {
    world.state(LIST, ALICE, kind, key, content)
}

fn ban(world: &World, subject: &str, entity: &str) -> String {
    let content = json!({"entity": entity, "recommendation": "m.ban", "reason": "spam"});
    rule(world, &format!("m.policy.rule.{subject}"), &format!("rule:{entity}"), content)
}

#[test]
fn the_key_is_kept_and_is_none_of_the_servers_signing_keys() {
    let store = Arc::new(Memory::default());
    let key_of = |engine: &Engine| engine.policy_key().map(|key| key.public_key().to_vec()).unwrap();
    let world = World::of_policies(&[], store.clone());
    let key = key_of(&world.engine);
    assert_eq!(world.engine.policy_key().unwrap().key_id(), POLICY_KEY_ID);
    assert_ne!(key, world.engine.key_pair().public_key());
    let standing = ask(&world, &StandingOfKey { server_name: SERVER, key_id: POLICY_KEY_ID });
    assert!(matches!(standing, KeyStanding::Unknown), "{standing:?}");
    assert!(ask(&world, &OwnOldKeys).is_empty());
    assert_eq!(ask(&world, &Check { progress: &|_, _| () }).findings, []);
    drop(world);
    // It is the same after a time in which the server was none.
    assert!(World::on(store.clone()).engine.policy_key().is_none());
    assert_eq!(key_of(&World::of_policies(&[], store).engine), key);
}

#[test]
fn what_is_recommended_is_signed_as_the_room_wants_it() {
    let world = protecting();
    let policy = PolicyServer {
        name: SERVER.into(),
        public_key: world.engine.policy_key().unwrap().public_key().to_vec(),
    };
    for pdu in
        [message(BOB), member(BOB, BOB, "join"), event(ROOM, BOB, "m.room.policy", Some("x"), json!({}))]
    {
        let Opinion::Recommended(answer) = opinion(&world, &pdu) else { panic!("{pdu:?}") };
        assert_eq!(answer.len(), 1);
        let signature = answer[SERVER][POLICY_KEY_ID].as_str().unwrap().to_owned();
        let signed = pdu.with_given_signature(version(), SERVER, POLICY_KEY_ID, signature).unwrap();
        signed.verify_signature(version(), SERVER, POLICY_KEY_ID, &policy.public_key).unwrap();
    }
}

#[test]
fn its_own_users_events_are_signed_beside_the_servers_signature() {
    let world = protecting();
    let content = json!({"msgtype": "m.text", "body": "hello"}).as_object().cloned().unwrap();
    let command = SendEvent::message(ROOM, ALICE, content);
    let unsigned = || -> Box<UnsignedEvent> {
        match world.engine.write(command.clone()).wait() {
            Err(Error::Unsigned(unsigned)) => unsigned,
            other => panic!("{other:?}"),
        }
    };
    let first = unsigned();
    let Opinion::Recommended(answer) = ask(&world, &PolicyOpinion { event: first.json() }) else {
        panic!("nobody is banned")
    };
    let signed = [first.signed(&answer).unwrap()];
    let sent = world.engine.write(WithSigned { command: &command, signed: &signed }).wait().unwrap();
    let stored: Value = world.ask(|reader| {
        let event = reader.event(reader.event_num(&sent)?.unwrap())?;
        Ok(serde_json::from_slice(&event.json).unwrap())
    });
    let keys: Vec<&String> = stored["signatures"][SERVER].as_object().unwrap().keys().collect();
    assert_eq!(keys, [world.engine.key_pair().key_id(), POLICY_KEY_ID]);
    ban(&world, "user", ALICE);
    let refused = ask(&world, &PolicyOpinion { event: unsigned().json() });
    assert_eq!(refused, Opinion::Refused(PolicyRefusal::Sender));
}

#[test]
fn who_is_banned_may_go_and_be_turned_out_and_nothing_else() {
    let world = protecting();
    ban(&world, "user", MALLORY);
    assert_eq!(refusal(&world, &message(MALLORY)), Some(PolicyRefusal::Sender));
    for membership in ["join", "knock", "ban"] {
        let pdu = member(MALLORY, MALLORY, membership);
        assert_eq!(refusal(&world, &pdu), Some(PolicyRefusal::Sender), "{membership}");
    }
    assert_eq!(refusal(&world, &member(MALLORY, BOB, "leave")), Some(PolicyRefusal::Sender));
    assert_eq!(refusal(&world, &member(BOB, MALLORY, "invite")), Some(PolicyRefusal::Member));
    for pdu in [
        member(MALLORY, MALLORY, "leave"),
        member(BOB, MALLORY, "leave"),
        member(BOB, MALLORY, "ban"),
        member(BOB, BOB, "join"),
        message(BOB),
        // A state key that happens to be a user's id.
        event(ROOM, BOB, "org.example.note", Some(MALLORY), json!({"membership": "invite"})),
    ] {
        assert_eq!(refusal(&world, &pdu), None, "{pdu:?}");
    }
}

#[test]
fn servers_and_rooms_are_banned_as_well() {
    let world = protecting();
    let rule_id = ban(&world, "server", "THERE.exampl?");
    assert_eq!(refusal(&world, &message(BOB)), Some(PolicyRefusal::SendersServer));
    assert_eq!(refusal(&world, &message("@bob:there.example:8448")), Some(PolicyRefusal::SendersServer));
    assert_eq!(refusal(&world, &member(ALICE, BOB, "invite")), Some(PolicyRefusal::MembersServer));
    assert_eq!(refusal(&world, &member(BOB, BOB, "leave")), None);
    assert_eq!(refusal(&world, &message(DAVE)), None);
    // The list's state is the same, and what it says another, which is seen by and by.
    world.redact(LIST, ALICE, &rule_id);
    world.pass_ms(10_000);
    assert_eq!(refusal(&world, &message(BOB)), None);
    ban(&world, "room", "!roo*:here.example");
    assert_eq!(refusal(&world, &message(DAVE)), Some(PolicyRefusal::Room));
    assert_eq!(refusal(&world, &member(DAVE, DAVE, "leave")), None);
}

#[test]
fn a_rule_is_one_that_bans_somebody_and_counts_until_it_is_taken_back() {
    let world = protecting();
    for content in [
        json!({}),
        json!({"entity": MALLORY}),
        json!({"entity": MALLORY, "recommendation": "org.example.praise"}),
        json!({"entity": MALLORY, "recommendation": 5}),
        json!({"entity": [MALLORY], "recommendation": "m.ban"}),
        json!({"entity": format!("{MALLORY}{}", "*".repeat(300)), "recommendation": "m.ban"}),
    ] {
        rule(&world, "m.policy.rule.user", "rule", content.clone());
        assert_eq!(refusal(&world, &message(MALLORY)), None, "{content}");
    }
    for (kind, recommendation, entity) in [
        ("m.policy.rule.user", "m.ban", MALLORY),
        ("m.policy.rule.user", "m.ban", "@mal*:there.example"),
        ("m.room.rule.user", "org.matrix.mjolnir.ban", MALLORY),
        ("org.matrix.mjolnir.rule.user", "org.matrix.mjolnir.ban", MALLORY),
    ] {
        rule(&world, kind, "rule", json!({"entity": entity, "recommendation": recommendation}));
        assert_eq!(refusal(&world, &message(MALLORY)), Some(PolicyRefusal::Sender), "{kind}");
        assert_eq!(refusal(&world, &message("@Mallory:there.example")), None);
        rule(&world, kind, "rule", json!({}));
        assert_eq!(refusal(&world, &message(MALLORY)), None, "{kind}");
    }
}

#[test]
fn a_list_in_whose_room_nobody_is_says_nothing() {
    let store = Arc::new(Memory::default());
    let world = World::of_policies(&[LIST, OTHER_ROOM], store);
    assert_eq!(ask(&world, &AbsentPolicyLists), [LIST, OTHER_ROOM]);
    world.room(ROOM, ALICE, None);
    world.room(LIST, ALICE, None);
    ban(&world, "user", MALLORY);
    assert_eq!(refusal(&world, &message(MALLORY)), Some(PolicyRefusal::Sender));
    assert_eq!(ask(&world, &AbsentPolicyLists), [OTHER_ROOM]);
    world.leave(LIST, ALICE);
    assert_eq!(refusal(&world, &message(MALLORY)), None);
    assert_eq!(ask(&world, &AbsentPolicyLists), [LIST, OTHER_ROOM]);
}

#[test]
fn what_cannot_be_judged_is_not_signed() {
    let world = protecting();
    let naming = event(ROOM, BOB, "m.room.policy", Some(""), json!({}));
    assert_eq!(refusal(&world, &naming), Some(PolicyRefusal::NamesPolicyServer));
    let mut other: JsonObject = serde_json::from_slice(&message(BOB).json).unwrap();
    other.insert("content".into(), json!({"body": "something else"}));
    let other = serde_json::to_vec(&other).unwrap();
    let refused = world.engine.read(&PolicyOpinion { event: &other });
    assert!(matches!(refused, Err(Error::Invalid(Invalid::Event(EventError::Invalid("content hash"))))));
    for malformed in ["", "[]", "{}", r#"{"room_id":"!room:here.example"}"#] {
        let refused = world.engine.read(&PolicyOpinion { event: malformed.as_bytes() });
        assert!(matches!(refused, Err(Error::Invalid(Invalid::Event(_)))), "{malformed}: {refused:?}");
    }
    // A server that is none has no opinion.
    let none = World::new();
    none.room(ROOM, ALICE, None);
    let refused = none.engine.read(&PolicyOpinion { event: &message(BOB).json });
    assert!(matches!(refused, Err(Error::NotFound(What::Room))));
}

/// Specification: "the response of backfill MUST NOT be validated on these specific restrictions".
#[test]
fn history_that_names_more_events_than_one_of_today_may_is_judged_as_well() {
    let world = protecting();
    let mut wide: JsonObject = serde_json::from_slice(&message(MALLORY).json).unwrap();
    wide["prev_events"] = (0..=PREV_EVENTS_MAX).map(|number| format!("${number:a>43}")).collect();
    hash_and_sign_event(version(), &mut wide, THERE, &KeyPair::from_seed("1", &[7; 32]).unwrap());
    let wide = serde_json::to_vec(&wide).unwrap();
    assert!(Pdu::parse(version(), &wide).is_err());
    let opinion = || ask(&world, &PolicyOpinion { event: &wide });
    assert!(matches!(opinion(), Opinion::Recommended(_)));
    ban(&world, "user", MALLORY);
    assert_eq!(opinion(), Opinion::Refused(PolicyRefusal::Sender));
}

#[test]
fn a_room_is_protected_that_names_this_server_and_its_key() {
    let world = World::of_policies(&[], Arc::new(Memory::default()));
    let key = world.engine.policy_key().unwrap().public_key().to_vec();
    let asked_by = |server: &str, room_id: &str| {
        let pdu = event(room_id, BOB, "m.room.message", None, json!({}));
        world.engine.read(&ProtectedRoom { event: &pdu.json, server }).map(|version| version.id)
    };
    let is_unknown = |answer: Result<&str, Error>| matches!(answer, Err(Error::NotFound(What::Room)));
    assert!(is_unknown(asked_by(THERE, ROOM)));
    world.room(ROOM, ALICE, None);
    world.room(OTHER_ROOM, ALICE, None);
    world.state(ROOM, ALICE, "m.room.server_acl", "", json!({"allow": ["*"], "deny": [THIRD]}));
    assert!(is_unknown(asked_by(THERE, ROOM)));
    for (via, public_key) in [(SERVER, world.engine.key_pair().public_key()), (THERE, &key[..])] {
        name_policy_server(&world, via, public_key);
        assert!(is_unknown(asked_by(THERE, ROOM)), "{via}");
    }
    name_policy_server(&world, SERVER, &key);
    assert_eq!(asked_by(THERE, ROOM).unwrap(), "10");
    assert!(is_unknown(asked_by(THERE, OTHER_ROOM)));
    assert!(matches!(asked_by(THIRD, ROOM), Err(Error::Denied(Denied::ServerAcl))));
    let nowhere = world.engine.read(&ProtectedRoom { event: b"{}", server: THERE });
    assert!(matches!(nowhere, Err(Error::Invalid(Invalid::Event(EventError::Missing("room_id"))))));
    world.state(ROOM, ALICE, "m.room.policy", "", json!({}));
    assert!(is_unknown(asked_by(THERE, ROOM)));
}
