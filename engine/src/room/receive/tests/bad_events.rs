//! Events that are malformed, mis-signed, mis-hashed, too large or not allowed: each has its own error, which says the rule by
//! its number in the specification, and leaves nothing behind.

use super::*;
use crate::core::limits::{AUTH_EVENTS_MAX, EVENT_BYTES_MAX, PREV_EVENTS_MAX};

/// Everything of the room that an event could leave something in.
fn everything(scene: &Scene) -> (Vec<String>, Vec<String>, Vec<String>) {
    let state = scene.world.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        let entries = reader.state_entries(room.num, room.head.state)?;
        entries.into_iter().map(|(_, num)| Ok(reader.event(num)?.event_id.to_string())).collect()
    });
    (scene.ends(), scene.timeline(), state)
}

fn check(scene: &Scene, json: &Value) -> PduCheck {
    let pdus = [Bytes::from(json.to_string())];
    scene.world.engine.read(&CheckPdus { version: version(), pdus: &pdus }).unwrap().remove(0)
}

fn refused(scene: &Scene, json: &Value) -> String {
    match check(scene, json) {
        PduCheck::Refused { error, .. } => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_malformed_is_told_with_what_is_wrong_with_it() {
    let scene = Scene::new();
    let before = everything(&scene);
    let good = scene.message(BOB, &strs(&scene.ends()), 20);
    let good: Value = serde_json::from_slice(&good.json).unwrap();
    let ids = |count: usize| json!((0..count).map(|number| format!("$e{number}")).collect::<Vec<_>>());
    let cases = [
        ("type", Value::Null, "no type"),
        ("type", json!(1), "type is not valid"),
        ("type", json!("x".repeat(256)), "type has a size of 256"),
        ("state_key", json!({}), "state_key is not valid"),
        ("state_key", json!("x".repeat(256)), "state_key has a size of 256"),
        ("sender", Value::Null, "no sender"),
        ("sender", json!("bob"), "sender is not valid"),
        ("sender", json!(format!("@{}:there.example", "b".repeat(250))), "sender has a size"),
        ("room_id", Value::Null, "no room_id"),
        ("room_id", json!("room"), "room_id is not valid"),
        ("event_id", json!("$own"), "no event_id"),
        ("prev_events", Value::Null, "no prev_events"),
        ("prev_events", json!("$e"), "prev_events is not valid"),
        ("prev_events", ids(PREV_EVENTS_MAX + 1), "prev_events has a size of 21"),
        ("auth_events", Value::Null, "no auth_events"),
        ("auth_events", json!([1]), "auth_events is not valid"),
        ("auth_events", ids(AUTH_EVENTS_MAX + 1), "auth_events has a size of 11"),
        ("depth", Value::Null, "no depth"),
        ("depth", json!(-1), "depth is not valid"),
        ("origin_server_ts", json!("now"), "origin_server_ts is not valid"),
        ("content", Value::Null, "no content"),
        ("content", json!([]), "content is not valid"),
        ("content", json!({"body": "x".repeat(EVENT_BYTES_MAX)}), "JSON has a size of"),
        ("hashes", Value::Null, "no hashes"),
        ("hashes", json!({}), "hashes is not valid"),
        ("signatures", Value::Null, "no signatures"),
        ("signatures", json!({"there.example": 1}), "signatures is not valid"),
    ];
    for (name, value, expected) in cases {
        let mut bad = good.clone();
        match value {
            Value::Null => drop(bad.as_object_mut().unwrap().remove(name)),
            value => bad[name] = value,
        }
        let said = refused(&scene, &bad);
        assert!(said.contains(expected) && said.contains("check 1 on receipt"), "{name}: {said}");
    }
    for (text, expected) in
        [("", "check 1"), ("{", "check 1"), ("[]", "check 1"), ("{\"depth\":1.5}", "check 1")]
    {
        let pdus = [Bytes::from(text)];
        let checks = scene.world.engine.read(&CheckPdus { version: version(), pdus: &pdus }).unwrap();
        let [PduCheck::Refused { error, .. }] = &checks[..] else { panic!("{checks:?}") };
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    assert_eq!(everything(&scene), before);
}

#[test]
fn what_is_mis_signed_or_mis_hashed_is_told_apart() {
    let scene = Scene::new();
    let before = everything(&scene);
    let pdu = scene.message(BOB, &strs(&scene.ends()), 20);
    let good: Value = serde_json::from_slice(&pdu.json).unwrap();
    let mut unsigned = good.clone();
    unsigned["signatures"] = json!({"other.example": {KEY_ID: "AAAA"}});
    assert_eq!(refused(&scene, &unsigned), "it is not signed by there.example (check 2 on receipt)");
    let mut wrong = good.clone();
    wrong["signatures"]["there.example"][KEY_ID] = json!("A".repeat(86));
    assert_eq!(refused(&scene, &wrong), "the signature of there.example is wrong (check 2 on receipt)");
    // A key that is used no more counts for what was sent while it was.
    let key = ServerKey {
        key_id: "ed25519:old".into(),
        public_key: scene.peer.key.public_key().to_vec(),
        valid_until_ts: START_MS,
        is_old: true,
    };
    let keys = StoreServerKeys { server_name: "there.example".into(), keys: vec![key] };
    scene.world.engine.write(keys).wait().unwrap();
    let mut expired = good.clone();
    let signature = good["signatures"]["there.example"][KEY_ID].clone();
    expired["signatures"]["there.example"] = json!({"ed25519:old": signature});
    let said = refused(&scene, &expired);
    assert_eq!(said, "the key of there.example was not valid when it was signed (check 2 on receipt)");
    // What was changed on the way is redacted (check 3), and is the event all the same.
    let mut changed = good.clone();
    changed["content"]["body"] = json!("something else");
    let PduCheck::Ready(redacted) = check(&scene, &changed) else { panic!() };
    assert_eq!((&redacted.pdu().event_id, redacted.pdu().content.len()), (&pdu.event_id, 0));
    assert_eq!(everything(&scene), before);
}

/// Specification, "Room Version 5", "Signing key validity period": `valid_until_ts` is to be "at least as large as the
/// `origin_server_ts`". No earlier version asks for that.
#[test]
fn how_long_keys_are_valid_counts_from_version_5_on() {
    let scene = Scene::new();
    let [now, past] = ["now", "past"].map(|name| KeyPair::from_seed(name, &[9; 32]).unwrap());
    let kept = |key: &KeyPair, is_old| ServerKey {
        key_id: key.key_id().into(),
        public_key: key.public_key().to_vec(),
        valid_until_ts: START_MS,
        is_old,
    };
    let keys = vec![kept(&now, false), kept(&past, true)];
    scene.world.engine.write(StoreServerKeys { server_name: "there.example".into(), keys }).wait().unwrap();
    let check = |number: u32, key: &KeyPair, origin_server_ts: u64| {
        let version = RoomVersion::get(&number.to_string()).unwrap();
        let room_id = if number < 12 { ROOM.to_owned() } else { format!("!{}", "A".repeat(43)) };
        let event = json!({
            "room_id": room_id, "type": "m.room.message", "sender": BOB, "content": {}, "depth": 7,
            "prev_events": [], "auth_events": [], "origin_server_ts": origin_server_ts,
        });
        let mut event = event.as_object().cloned().unwrap();
        if number < 3 {
            event.insert("event_id".to_owned(), json!("$own:there.example"));
        }
        hash_and_sign_event(version, &mut event, "there.example", key);
        let pdus = [Bytes::from(serde_json::to_vec(&event).unwrap())];
        scene.world.engine.read(&CheckPdus { version, pdus: &pdus }).unwrap().remove(0)
    };
    for number in 1..=12 {
        for key in [&now, &past] {
            let in_time = check(number, key, START_MS);
            assert!(matches!(in_time, PduCheck::Ready(_)), "{number}: {in_time:?}");
        }
        match (number, check(number, &now, START_MS + 1), check(number, &past, START_MS + 1)) {
            (..5, PduCheck::Ready(_), PduCheck::Ready(_)) => {}
            // Of a key that is still used it may be told that it is valid for longer.
            (5.., PduCheck::MissingKeys(keys), PduCheck::Refused { error, .. }) => {
                let wanted = MissingKey { server_name: "there.example".into(), key_id: now.key_id().into() };
                assert_eq!((keys, error), (vec![wanted], Refused::KeyExpired("there.example".into())));
            }
            late => panic!("{late:?}"),
        }
    }
}

#[test]
fn what_is_not_allowed_is_told_with_the_rule_and_kept_from_the_room() {
    let scene = Scene::new();
    let levels = json!({"users": {ALICE: 100}});
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", levels);
    let before = everything(&scene);
    let ends = strs(&before.0);
    let state = |kind: &str, key: &str| scene.state(kind, key).unwrap();
    let create = state("m.room.create", "");
    let levels = state("m.room.power_levels", "");
    let bob = state("m.room.member", BOB);
    let rules = state("m.room.join_rules", "");
    let usual = [&*create, &*levels, &*bob];
    let message = json!({"body": "no"});
    /// The rule, sender, type, state key, content and auth events.
    type Case<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, Value, Vec<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        ("2.1", BOB, "m.room.message", None, message.clone(), vec![&create, &levels, &bob, &bob]),
        ("2.2", BOB, "m.room.message", None, message.clone(), vec![&create, &levels, &bob, &rules]),
        ("2.4", BOB, "m.room.message", None, message.clone(), vec![&levels, &bob]),
        (
            "4.3.2",
            BOB,
            "m.room.member",
            Some(CARL),
            json!({"membership": "join"}),
            vec![&create, &levels, &bob, &rules],
        ),
        (
            "4.5.5",
            BOB,
            "m.room.member",
            Some(ALICE),
            json!({"membership": "leave"}),
            vec![&create, &levels, &bob],
        ),
        (
            "4.6.3",
            BOB,
            "m.room.member",
            Some(ALICE),
            json!({"membership": "ban"}),
            vec![&create, &levels, &bob],
        ),
        ("4.8", BOB, "m.room.member", Some(BOB), json!({"membership": "maybe"}), usual.to_vec()),
        ("5", CARL, "m.room.message", None, message.clone(), vec![&create, &levels]),
        ("7", BOB, "m.room.topic", Some(""), json!({"topic": "no"}), usual.to_vec()),
        ("7", BOB, "m.room.power_levels", Some(""), json!({"users": {BOB: 100}}), usual.to_vec()),
    ];
    for (depth, (rule, sender, kind, state_key, content, auth)) in cases.into_iter().enumerate() {
        let (prev, depth) = (ends.clone(), 20 + depth as u64);
        let pdu = scene.peer.make(Draft { sender, kind, state_key, content, prev, auth, depth });
        let received = scene.receive(&[&pdu]);
        let [(_, Outcome::Rejected(denied))] = &received.outcomes[..] else { panic!("{rule}: {received:?}") };
        assert_eq!((denied.rule, denied.rule), (rule, denied.reason.number(version())), "{denied}");
        assert!(denied.to_string().contains(&format!("authorisation rule {rule}")));
        assert_eq!(scene.status(&pdu.event_id), Some(EventStatus::Rejected));
    }
    assert_eq!(everything(&scene), before);
    scene.is_sound();
}

#[test]
fn what_is_of_another_room_is_refused() {
    let scene = Scene::new();
    scene.world.room("!other:here.example", ALICE, None);
    let before = everything(&scene);
    let message = scene.message(BOB, &strs(&before.0), 20);
    let pdus = scene.check(&[&message]);
    let command = ReceivePdus { room_id: "!other:here.example".to_owned(), pdus, ..ReceivePdus::default() };
    let received = scene.world.engine.write(command).wait().unwrap();
    assert_eq!(received.outcomes, [(message.event_id.clone(), Outcome::Refused(Refused::OtherRoom))]);
    assert_eq!((scene.status(&message.event_id), everything(&scene)), (None, before));
    scene.is_sound();
}

#[test]
fn what_names_events_of_another_room_is_refused() {
    let scene = Scene::new();
    scene.world.room("!other:here.example", ALICE, None);
    let foreign = scene.world.message("!other:here.example", ALICE, "elsewhere");
    let before = everything(&scene);
    let own = before.0[0].clone();
    for prev in [vec![&*foreign], vec![&*foreign, &*own], vec![&*own, &*foreign]] {
        let message = scene.message(BOB, &prev, 20);
        let received = scene.receive(&[&message]);
        assert_eq!(received.outcomes, [(message.event_id.clone(), Outcome::Refused(Refused::OtherRoom))]);
        assert_eq!((scene.status(&message.event_id), everything(&scene)), (None, before.clone()));
    }
    scene.is_sound();
}
