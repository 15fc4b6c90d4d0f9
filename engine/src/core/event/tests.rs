//! Tests of events against the vectors: hashes, ids, signatures, redaction, and what is built here.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::core::json::canonical;
use crate::core::version::{EventIdFormat, ROOM_VERSIONS, RoomVersion};

macro_rules! vectors {
    ($path:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("../../../vectors/", $path))).unwrap()
    };
}

fn str_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn object(value: &Value) -> JsonObject {
    value.as_object().unwrap().clone()
}

/// The specification's key.
fn spec_key() -> KeyPair {
    let seed = decode_base64(str_of(&vectors!("signing/spec.json"), "signing_key_seed")).unwrap();
    KeyPair::from_seed("1", &seed).unwrap()
}

fn version(id: &str) -> &'static RoomVersion {
    RoomVersion::get(id).unwrap()
}

#[test]
fn base64_vectors() {
    let vectors = vectors!("signing/base64.json");
    for case in vectors["encode"].as_array().unwrap() {
        assert_eq!(encode_base64(str_of(case, "input").as_bytes()), str_of(case, "output"));
    }
    for case in vectors["decode"].as_array().unwrap() {
        let decoded = decode_base64(str_of(case, "input")).unwrap();
        match case["hex"].as_str() {
            Some(hex) => {
                assert_eq!(decoded.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex);
            }
            None => assert_eq!(decoded, str_of(case, "output").as_bytes()),
        }
    }
}

#[test]
fn json_signing_vectors() {
    let key = spec_key();
    assert_eq!(encode_base64(key.public_key()), str_of(&vectors!("signing/spec.json"), "public_key"));
    for file in [vectors!("signing/spec.json"), vectors!("signing/extra.json")] {
        for case in file["json_signing"].as_array().unwrap() {
            let mut signed = object(&case["input"]);
            sign_json(&mut signed, "domain", &key);
            assert_eq!(Value::Object(signed.clone()), case["signed"]);
            assert_eq!(verify_json(&signed, "domain", "ed25519:1", key.public_key()), Ok(()));
            signed.insert("added".to_owned(), json!(1));
            let verdict = verify_json(&signed, "domain", "ed25519:1", key.public_key());
            assert_eq!(verdict, Err(SignatureError::Wrong));
            let verdict = verify_json(&signed, "domain", "ed25519:2", key.public_key());
            assert_eq!(verdict, Err(SignatureError::Missing));
        }
    }
}

#[test]
fn event_signing_vectors() {
    for case in vectors!("signing/spec.json")["event_signing"].as_array().unwrap() {
        let mut event = object(&case["input"]);
        hash_and_sign_event(version("1"), &mut event, "domain", &spec_key());
        assert_eq!(Value::Object(event), case["signed"]);
    }
}

#[test]
fn federation_request_vectors() {
    let vectors = vectors!("signing/federation-requests.json");
    let key = spec_key();
    for case in vectors["requests"].as_array().unwrap() {
        let content = case.get("content").map(canonical);
        let request = SignedRequest {
            method: str_of(case, "method"),
            uri: str_of(case, "uri"),
            origin: str_of(case, "origin"),
            destination: str_of(case, "destination"),
            content: content.as_deref(),
        };
        assert_eq!(String::from_utf8(request.signed_bytes()).unwrap(), str_of(case, "signed_json"));
        assert_eq!(request.authorization(&key), str_of(case, "authorization"));
        assert_eq!(request.verify(key.public_key(), str_of(case, "signature")), Ok(()));
        let other = SignedRequest { destination: "other.example", ..request };
        let verdict = other.verify(key.public_key(), str_of(case, "signature"));
        assert_eq!(verdict, Err(SignatureError::Wrong));
    }
}

#[test]
fn policy_server_vectors() {
    let vectors = vectors!("policy-server/signatures.json");
    let public_key = decode_base64(str_of(&vectors, "public_key")).unwrap();
    for case in vectors["vectors"].as_array().unwrap() {
        let pdu = Pdu::from_object(version(str_of(case, "room_version")), object(&case["pdu"])).unwrap();
        let signed = pdu.signed_bytes(version(str_of(case, "room_version"))).unwrap();
        assert_eq!(verify(&public_key, &signed, str_of(case, "signature")), Ok(()));
    }
}

#[test]
fn redaction_vectors() {
    for case in vectors!("events/redaction.json")["cases"].as_array().unwrap() {
        for redacted in case["redacted"].as_array().unwrap() {
            for id in redacted["room_versions"].as_array().unwrap() {
                let version = version(id.as_str().unwrap());
                let mut event = object(&case["event"]);
                if version.event_ids == EventIdFormat::Own {
                    event.insert("event_id".to_owned(), json!("$ev:example.org"));
                }
                let ours = redact(version, &event);
                assert_eq!(Value::Object(ours.clone()), redacted["event"], "{} in {id}", case["name"]);
                assert_eq!(redact(version, &ours), ours);
                assert_bytes_redact_as_values(version, &event);
            }
        }
    }
}

/// Redacting bytes and redacting values are one algorithm.
fn assert_bytes_redact_as_values(version: &RoomVersion, event: &JsonObject) {
    let bytes = crate::core::json::canonical(&Value::Object(event.clone()));
    let mut redacted = Vec::new();
    write_redacted(version, &bytes, &mut redacted).unwrap();
    let mut expected = redact(version, event);
    expected.remove("signatures");
    assert_eq!(redacted, crate::core::json::canonical(&Value::Object(expected)));
}

#[test]
fn redaction_of_odd_third_party_invites() {
    let v11 = version("11");
    for (invite, expected) in [
        (json!("text"), None),
        (json!({"x": 1}), Some(json!({}))),
        (json!({"signed": 1, "x": 1}), Some(json!({"signed": 1}))),
    ] {
        let event = object(&json!({"type": "m.room.member", "content": {"third_party_invite": invite}}));
        assert_eq!(redact(v11, &event)["content"].get("third_party_invite"), expected.as_ref());
        assert_bytes_redact_as_values(v11, &event);
    }
}

/// Calls `check` with (version, case) for every event of `events/ids.json`.
fn each_event(check: impl Fn(&'static RoomVersion, &Value, &Value)) {
    for room in vectors!("events/ids.json")["rooms"].as_array().unwrap() {
        for case in room["events"].as_array().unwrap() {
            check(version(str_of(room, "room_version")), room, case);
        }
    }
}

#[test]
fn hashes_ids_and_signatures_of_all_room_versions() {
    let key = spec_key();
    each_event(|version, room, case| {
        let event = object(&case["event"]);
        assert_eq!(encode_base64(&content_hash(&event)), str_of(case, "content_hash"));
        let hash = reference_hash(version, &event).unwrap();
        assert_eq!(encode_base64(&hash), str_of(case, "reference_hash"));

        let bytes = serde_json::to_vec(&case["event"]).unwrap();
        let pdu = Pdu::parse(version, &bytes).unwrap();
        assert_eq!(&*pdu.event_id, str_of(case, "event_id"));
        assert_eq!(&*pdu.room_id, str_of(room, "room_id"));
        assert_eq!(verify_content_hash(&pdu), Ok(true));
        assert_eq!(pdu.verify_signature(version, "example.org", "ed25519:1", key.public_key()), Ok(()));
        assert_eq!(required_signatures(version, &pdu), ["example.org"]);

        let stored = Pdu::from_stored(version, pdu.event_id.clone(), pdu.json.clone()).unwrap();
        assert_eq!(format!("{stored:?}"), format!("{pdu:?}"));
        let signed = pdu.with_signature(version, "second.example", &key).unwrap();
        assert_eq!(signed.verify_signature(version, "second.example", "ed25519:1", key.public_key()), Ok(()));
        assert_eq!(signed.verify_signature(version, "example.org", "ed25519:1", key.public_key()), Ok(()));

        let mut forged = event.clone();
        forged.insert("content".to_owned(), json!({"body": "forged"}));
        let forged = Pdu::from_object(version, forged).unwrap();
        assert_eq!(verify_content_hash(&forged), Ok(false));
    });
}

#[test]
fn real_create_event() {
    let vectors = vectors!("events/real-create-event.json");
    let bytes = serde_json::to_vec(&vectors["event"]).unwrap();
    for (id, event_id) in vectors["event_ids"].as_object().unwrap() {
        let pdu = Pdu::parse(version(id), &bytes).unwrap();
        assert_eq!(&*pdu.event_id, event_id.as_str().unwrap());
        assert_eq!(verify_content_hash(&pdu), Ok(true));
    }
}

/// The builder that makes the event of a vector, which besides has no `origin`.
fn builder(version: &RoomVersion, event: &JsonObject) -> EventBuilder {
    let text = |key: &str| event.get(key).and_then(Value::as_str).map(Arc::<str>::from);
    let references = |key: &str| {
        let one = |reference: &Value| match reference.as_array() {
            None => Arc::<str>::from(reference.as_str().unwrap()).into(),
            Some(pair) => EventReference {
                event_id: pair[0].as_str().unwrap().into(),
                reference_hash: decode_base64(str_of(&pair[1], "sha256"))
                    .map(|hash| hash.try_into().unwrap()),
            },
        };
        event[key].as_array().unwrap().iter().map(one).collect()
    };
    EventBuilder {
        room_id: text("room_id"),
        sender: text("sender").unwrap(),
        kind: text("type").unwrap(),
        state_key: text("state_key"),
        content: object(&event["content"]),
        redacts: text("redacts").filter(|_| !version.redaction_v11),
        prev_events: references("prev_events"),
        auth_events: references("auth_events"),
        depth: event["depth"].as_u64().unwrap(),
        origin_server_ts: event["origin_server_ts"].as_u64().unwrap(),
        event_id_localpart: text("event_id").map(|id| id[1..].split(':').next().unwrap().to_owned()),
    }
}

/// What `hash_and_sign_event` makes of the vector's event without `origin` is what the builder makes.
fn assert_built(version: &RoomVersion, mut event: JsonObject) {
    for key in ["origin", "unsigned", "hashes", "signatures"] {
        event.remove(key);
    }
    let built = builder(version, &event).build(version, "example.org", &spec_key()).unwrap();
    hash_and_sign_event(version, &mut event, "example.org", &spec_key());
    let expected = crate::core::json::canonical(&Value::Object(event));
    assert_eq!(String::from_utf8_lossy(&built.json), String::from_utf8_lossy(&expected));
    let parsed = Pdu::parse(version, &expected).unwrap();
    assert_eq!(format!("{built:?}"), format!("{parsed:?}"));
}

#[test]
fn built_events_are_the_vectors() {
    each_event(|version, _, case| {
        let event = object(&case["event"]);
        assert_built(version, event.clone());
        if str_of(case, "name") == "message" {
            let target = if version.event_ids == EventIdFormat::Own { "$x:example.org" } else { "$x" };
            let mut redaction = event;
            redaction.insert("type".to_owned(), json!("m.room.redaction"));
            if !version.redaction_v11 {
                redaction.insert("redacts".to_owned(), json!(target));
            }
            assert_built(version, redaction);
        }
    });
}

#[test]
fn a_redaction_names_its_target_where_the_room_version_wants_it() {
    each_event(|version, _, case| {
        if str_of(case, "name") != "message" {
            return;
        }
        let target = if version.event_ids == EventIdFormat::Own { "$x:example.org" } else { "$x" };
        let builder = EventBuilder {
            kind: "m.room.redaction".into(),
            redacts: Some(target.into()),
            content: JsonObject::new(),
            ..builder(version, &object(&case["event"]))
        };
        let built = builder.build(version, "example.org", &spec_key()).unwrap();
        let json: Value = serde_json::from_slice(&built.json).unwrap();
        let place = if version.redaction_v11 { &json["content"]["redacts"] } else { &json["redacts"] };
        assert_eq!(place, target);
        assert_eq!(built.redacts.as_deref(), Some(target));
        assert_eq!(Pdu::parse(version, &built.json).unwrap().redacts.as_deref(), Some(target));
    });
}

#[test]
fn the_builder_refuses_what_the_parser_would() {
    each_event(|version, _, case| {
        let builder = || builder(version, &object(&case["event"]));
        let build = |builder: EventBuilder| builder.build(version, "example.org", &spec_key()).err();
        let long: Arc<str> = "x".repeat(KEY_BYTES_MAX + 1).into();
        assert!(build(EventBuilder { kind: long.clone(), ..builder() }).is_some());
        assert!(build(EventBuilder { state_key: Some(long), ..builder() }).is_some());
        assert!(build(EventBuilder { sender: "alice".into(), ..builder() }).is_some());
        let big = object(&json!({"body": "x".repeat(EVENT_BYTES_MAX)}));
        assert!(build(EventBuilder { content: big, ..builder() }).is_some());
        assert!(build(EventBuilder { redacts: Some("$x:b".into()), ..builder() }).is_some());
        let float = object(&json!({"a": [0.5]}));
        assert_eq!(
            build(EventBuilder { content: float, ..builder() }).is_some(),
            version.strict_canonical_json
        );
        let depth = EventBuilder { depth: u64::MAX, ..builder() };
        assert_eq!(depth.build(version, "example.org", &spec_key()).unwrap().depth, depth_max(version));
    });
}

#[test]
fn required_signatures_by_room_version() {
    let member = |content: Value| {
        object(&json!({"type": "m.room.member", "state_key": "@b:b.example", "sender": "@b:b.example",
            "room_id": "!r:c.example", "event_id": "$e:c.example", "content": content, "depth": 1,
            "prev_events": [], "auth_events": [], "origin_server_ts": 1, "hashes": {"sha256": ""}, "signatures": {}}))
    };
    let servers = |id: &str, content: Value| {
        let mut event = member(content);
        if version(id).event_ids != EventIdFormat::Own {
            event.remove("event_id");
        }
        let pdu = Pdu::from_object(version(id), event).unwrap();
        required_signatures(version(id), &pdu).join(" ")
    };
    let restricted = json!({"membership": "join", "join_authorised_via_users_server": "@a:a.example"});
    assert_eq!(servers("1", restricted.clone()), "b.example c.example");
    assert_eq!(servers("7", restricted.clone()), "b.example");
    assert_eq!(servers("8", restricted), "b.example a.example");
    assert_eq!(servers("10", json!({"membership": "invite", "third_party_invite": {}})), "");
    assert_eq!(servers("10", json!({"membership": "join", "third_party_invite": {}})), "b.example");
}

#[test]
fn keys_are_checked() {
    assert!(matches!(KeyPair::from_seed("1", &[0; 31]), Err(KeyError::Seed)));
    assert!(matches!(KeyPair::from_seed("", &[0; 32]), Err(KeyError::Version)));
    assert!(matches!(KeyPair::from_seed("a:b", &[0; 32]), Err(KeyError::Version)));
    assert!(!format!("{:?}", spec_key()).contains("pair"));
}

#[test]
fn malformed_events_are_refused() {
    let base = json!({"type": "t", "sender": "@a:b", "room_id": "!r:b", "content": {}, "depth": 1,
        "prev_events": ["$p"], "auth_events": ["$a"], "origin_server_ts": 1, "hashes": {"sha256": ""},
        "signatures": {}});
    let parse = |id: &str, key: &str, value: Value| {
        let mut event = object(&base);
        if value.is_null() {
            event.remove(key);
        } else {
            event.insert(key.to_owned(), value);
        }
        Pdu::parse(version(id), &serde_json::to_vec(&event).unwrap())
    };
    assert!(parse("10", "extra", json!(1)).is_ok());
    for key in base.as_object().unwrap().keys() {
        assert!(parse("10", key, Value::Null).is_err(), "without {key}");
        assert!(parse("10", key, json!(true)).is_err(), "{key} of a wrong type");
    }
    let ids = |count: usize| json!((0..count).map(|number| format!("$e{number}")).collect::<Vec<_>>());
    let refused = [
        ("type", json!("x".repeat(256))),
        ("state_key", json!("é".repeat(128))),
        ("state_key", json!(1)),
        ("sender", json!("@a")),
        ("sender", json!(format!("@{}:b", "a".repeat(253)))),
        ("room_id", json!("!r")),
        ("event_id", json!("$e")),
        ("prev_events", ids(21)),
        ("auth_events", ids(11)),
        ("prev_events", json!([["$p", {}]])),
        ("prev_events", json!(["p"])),
        ("depth", json!(-1)),
        ("depth", json!(1u64 << 53)),
        ("depth", json!(1.5)),
        ("origin_server_ts", json!("1")),
        ("signatures", json!({"b": {"ed25519:1": 1}})),
        ("content", json!({"body": "x".repeat(EVENT_BYTES_MAX)})),
        ("content", json!({"a": 1.5})),
    ];
    for (key, value) in refused {
        assert!(parse("10", key, value.clone()).is_err(), "{key}: {value}");
    }
    for (key, value) in
        [("state_key", json!("é".repeat(127))), ("prev_events", ids(20)), ("auth_events", ids(10))]
    {
        assert!(parse("10", key, value).is_ok(), "{key}");
    }
    assert!(parse("5", "content", json!({"a": 1.5})).is_ok());
    assert!(parse("5", "depth", json!(1u64 << 53)).is_ok());
    assert!(parse("5", "depth", json!(1u64 << 63)).is_err());
    assert!(parse("12", "type", json!("m.room.create")).is_err());
    assert!(parse("12", "room_id", json!("!r")).is_ok());
    let unsigned = parse("10", "unsigned", json!({"age": "x".repeat(EVENT_BYTES_MAX)})).unwrap();
    assert!(!String::from_utf8_lossy(&unsigned.json).contains("unsigned"));
}

#[test]
fn corrupt_stored_events_are_errors() {
    for bytes in ["", "{", "{}", r#"{"type":1}"#, r#"{"content":{"a":}"#] {
        assert!(Pdu::from_stored(version("10"), "$e".into(), bytes.into()).is_err(), "{bytes}");
    }
}

proptest! {
    #[test]
    fn whatever_is_built_parses_as_it_was_built(
        body in any::<String>(),
        state_key in prop::option::of("[^\\x00]{0,40}"),
        kind in prop::sample::select(vec!["m.room.member", "m.room.power_levels", "org.example.\"odd\n", ""]),
        key in any::<String>(),
        number in -9_007_199_254_740_991_i64..=9_007_199_254_740_991,
    ) {
        each_event(|version, _, case| {
            let content = object(&json!({&key: {"body": &body}, "membership": &body, "ban": number, "users": [number]}));
            let built = EventBuilder {
                kind: kind.into(),
                state_key: state_key.as_deref().map(Arc::from),
                room_id: Some(if version.room_id_is_create_hash { "!r" } else { "!r:b" }.into()),
                content,
                ..builder(version, &object(&case["event"]))
            };
            let built = built.build(version, "example.org", &spec_key()).unwrap();
            let parsed = Pdu::parse(version, &built.json).unwrap();
            assert_eq!(format!("{built:?}"), format!("{parsed:?}"));
            assert_eq!(verify_content_hash(&built), Ok(true));
            let verdict = built.verify_signature(version, "example.org", "ed25519:1", spec_key().public_key());
            assert_eq!(verdict, Ok(()));
            let mut shown = Vec::new();
            write_client_event(&mut shown, (&built).into(), ClientFormat::Room, None).unwrap();
            let shown: Value = serde_json::from_slice(&shown).unwrap();
            assert_eq!(shown["content"].as_object(), Some(&built.content));
        });
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
        for version in ROOM_VERSIONS {
            let _ = Pdu::parse(version, &bytes);
            let _ = Pdu::from_stored(version, "$e".into(), Bytes::from(bytes.clone()));
            let _ = write_redacted(version, &bytes, &mut Vec::new());
        }
    }

    #[test]
    fn flipped_bytes_of_an_event_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        each_event(|version, _, case| {
            let mut bytes = crate::core::json::canonical(&case["event"]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Pdu::parse(version, &bytes);
            let stored = Pdu::from_stored(version, "$e:b".into(), Bytes::from(bytes));
            if let Ok(stored) = stored {
                let _ = (verify_content_hash(&stored), stored.signatures(), stored.signed_bytes(version));
            }
        });
    }
}
