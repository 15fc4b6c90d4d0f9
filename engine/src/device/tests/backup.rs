//! Key backups.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{kind, object, register};
use crate::{
    command::{CreateKeyBackup, DeleteBackupKeys, DeleteKeyBackup, PutBackupKeys, UpdateKeyBackup},
    device::key_backup::{AUTH_DATA_BYTES_MAX, SESSION_BYTES_MAX, Selection},
    error::{Conflict, Error, Result},
    fixture::World,
    view::{BackupKeys, KeyBackupVersion},
};

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn create(world: &World, user: &str) -> String {
    let auth_data = json!({"public_key": "abc"}).to_string().into();
    let command = CreateKeyBackup { user_id: user.to_owned(), algorithm: ALGORITHM.to_owned(), auth_data };
    world.engine.write(command).wait().unwrap().to_string()
}

fn session(is_verified: bool, first_message_index: u64, forwarded_count: u64) -> Value {
    json!({
        "is_verified": is_verified,
        "first_message_index": first_message_index,
        "forwarded_count": forwarded_count,
        "session_data": {"ciphertext": "x"},
    })
}

/// Stores sessions of a room; answers count and etag.
fn put(
    world: &World,
    user: &str,
    version: &str,
    room: &str,
    sessions: &[(&str, Value)],
) -> Result<(u64, u64)> {
    let sessions =
        sessions.iter().map(|(id, data)| (room.to_owned(), (*id).to_owned(), object(data.clone())));
    let command =
        PutBackupKeys { user_id: user.to_owned(), version: version.to_owned(), sessions: sessions.collect() };
    world.engine.write(command).wait().map(|backup| (backup.count, backup.etag))
}

fn get(world: &World, user: &str, version: &str, selection: Selection) -> Result<Value> {
    let view = BackupKeys { user_id: user.to_owned(), version: version.to_owned(), selection };
    world.engine.read(&view).map(|body| serde_json::from_slice(&body).unwrap())
}

fn one(room: &str, session: &str) -> Selection {
    Selection::Session(room.to_owned(), session.to_owned())
}

fn latest(world: &World, user: &str) -> Result<String> {
    let view = KeyBackupVersion { user_id: user.to_owned(), version: None };
    world.engine.read(&view).map(|(version, _)| version.to_string())
}

#[test]
fn the_better_key_stays() {
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let version = create(&world, &alice);
    // From the worst to the best.
    let ranks = [
        session(false, 9, 1),
        session(false, 9, 0),
        session(false, 3, 5),
        session(true, 20, 7),
        session(true, 20, 2),
    ];
    for (rank, data) in ranks.iter().enumerate() {
        let (count, etag) = put(&world, &alice, &version, "!a:b", &[("s", data.clone())]).unwrap();
        assert_eq!((count, etag), (1, rank as u64 + 1));
        for worse in &ranks[..=rank] {
            assert_eq!(
                put(&world, &alice, &version, "!a:b", &[("s", worse.clone())]).unwrap(),
                (count, etag)
            );
        }
        assert_eq!(get(&world, &alice, &version, one("!a:b", "s")).unwrap(), *data);
    }
}

#[test]
fn sessions_by_room() {
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let version = create(&world, &alice);
    assert_eq!(get(&world, &alice, &version, Selection::All).unwrap(), json!({"rooms": {}}));
    let room = |room: &str| Selection::Room(room.to_owned());
    assert_eq!(get(&world, &alice, &version, room("!a:b")).unwrap(), json!({"sessions": {}}));
    let data = session(true, 0, 0);
    put(&world, &alice, &version, "!a:b", &[("s", data.clone()), ("t", data.clone())]).unwrap();
    assert_eq!(put(&world, &alice, &version, "!a:bc", &[("s", data.clone())]).unwrap().0, 3);
    let expected =
        json!({"rooms": {"!a:b": {"sessions": {"s": data, "t": data}}, "!a:bc": {"sessions": {"s": data}}}});
    assert_eq!(get(&world, &alice, &version, Selection::All).unwrap(), expected);
    assert_eq!(get(&world, &alice, &version, room("!a:b")).unwrap(), expected["rooms"]["!a:b"]);
    assert_eq!(kind(get(&world, &alice, &version, one("!a:b", "u"))), "not found");

    let delete = |selection| {
        let command = DeleteBackupKeys { user_id: alice.clone(), version: version.clone(), selection };
        world.engine.write(command).wait().map(|backup| (backup.count, backup.etag)).unwrap()
    };
    assert_eq!(delete(one("!a:b", "u")), (3, 2), "nothing was there");
    assert_eq!(delete(one("!a:b", "t")), (2, 3));
    assert_eq!(delete(room("!a:b")), (1, 4));
    assert_eq!(
        get(&world, &alice, &version, Selection::All).unwrap(),
        json!({"rooms": {"!a:bc": {"sessions": {"s": data}}}})
    );
    assert_eq!(delete(Selection::All), (0, 5));
    assert_eq!(get(&world, &alice, &version, Selection::All).unwrap(), json!({"rooms": {}}));
}

#[test]
fn only_the_newest_version_takes_sessions() {
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let data = session(true, 0, 0);
    assert_eq!(kind(latest(&world, &alice)), "not found");
    assert_eq!(kind(put(&world, &alice, "1", "!a:b", &[("s", data.clone())])), "not found");
    let (first, second) = (create(&world, &alice), create(&world, &alice));
    assert_eq!(latest(&world, &alice).unwrap(), second);
    let refused = put(&world, &alice, &first, "!a:b", &[("s", data.clone())]);
    assert!(
        matches!(refused, Err(Error::Conflict(Conflict::BackupVersion { current })) if current == second)
    );
    assert_eq!(kind(put(&world, &alice, "77", "!a:b", &[("s", data.clone())])), "not found");
    put(&world, &alice, &second, "!a:b", &[("s", data.clone())]).unwrap();
    let delete = |version: &str| {
        let command = DeleteKeyBackup { user_id: alice.clone(), version: version.to_owned() };
        kind(world.engine.write(command).wait())
    };
    assert_eq!(
        [delete(&second), delete(&second), delete("77"), delete("x")],
        ["ok", "ok", "not found", "not found"]
    );
    assert_eq!(kind(get(&world, &alice, &second, Selection::All)), "not found");
    assert_eq!(latest(&world, &alice).unwrap(), first);
    assert_eq!(put(&world, &alice, &first, "!a:b", &[("s", data)]).unwrap(), (1, 1));
    let third = create(&world, &alice);
    assert!(third != first && third != second, "a version is not used again");
}

#[test]
fn auth_data_can_change_and_the_algorithm_not() {
    const AUTH_DATA: &str = r#"{ "public_key": "new", "iterations": 1.50 }"#;
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let version = create(&world, &alice);
    let update = |version: &str, algorithm: &str| {
        let command = UpdateKeyBackup {
            user_id: alice.clone(),
            version: version.to_owned(),
            algorithm: algorithm.to_owned(),
            auth_data: AUTH_DATA.into(),
        };
        kind(world.engine.write(command).wait())
    };
    assert_eq!(
        [update(&version, "other"), update("77", ALGORITHM), update(&version, ALGORITHM)],
        ["invalid", "not found", "ok"]
    );
    let view = KeyBackupVersion { user_id: alice.clone(), version: Some(version) };
    assert_eq!(world.engine.read(&view).unwrap().1.auth_data, AUTH_DATA.as_bytes(), "as it was written");
}

#[test]
fn auth_data_has_a_limit() {
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let version = create(&world, &alice);
    for (bytes, expected) in [(AUTH_DATA_BYTES_MAX, "ok"), (AUTH_DATA_BYTES_MAX + 1, "too large")] {
        let algorithm = ALGORITHM.to_owned();
        let auth_data = Bytes::from(format!("{{}}{}", " ".repeat(bytes - 2)));
        let create = CreateKeyBackup { user_id: alice.clone(), algorithm, auth_data: auth_data.clone() };
        assert_eq!(kind(world.engine.write(create).wait()), expected);
        let (algorithm, version) = (ALGORITHM.to_owned(), version.clone());
        let update = UpdateKeyBackup { user_id: alice.clone(), version, algorithm, auth_data };
        assert_eq!(kind(world.engine.write(update).wait()), expected);
    }
}

#[test]
fn any_number_may_stand_in_a_session() {
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let version = create(&world, &alice);
    let mut data = session(true, 0, 0);
    data["session_data"]["n"] = json!([1.5, -2.25e-7, 1u64 << 60]);
    put(&world, &alice, &version, "!a:b", &[("s", data.clone())]).unwrap();
    assert_eq!(get(&world, &alice, &version, one("!a:b", "s")).unwrap(), data);
}

#[test]
fn malformed_sessions_are_refused_whole() {
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let version = create(&world, &alice);
    let good = ("good", session(true, 0, 0));
    let mut large = session(true, 0, 0);
    large["session_data"]["ciphertext"] = json!("x".repeat(SESSION_BYTES_MAX));
    assert_eq!(kind(put(&world, &alice, &version, "!a:b", &[good.clone(), ("s", large)])), "too large");
    let bad = [
        json!({}),
        json!({"is_verified": true, "first_message_index": 0, "forwarded_count": 0}),
        json!({"is_verified": 1, "first_message_index": 0, "forwarded_count": 0, "session_data": {}}),
        json!({"is_verified": true, "first_message_index": -1, "forwarded_count": 0, "session_data": {}}),
    ];
    for data in bad {
        assert_eq!(kind(put(&world, &alice, &version, "!a:b", &[good.clone(), ("s", data)])), "invalid");
    }
    for room in ["a:b", "!a\0:b"] {
        assert_eq!(kind(put(&world, &alice, &version, room, std::slice::from_ref(&good))), "invalid");
    }
    assert_eq!(get(&world, &alice, &version, Selection::All).unwrap(), json!({"rooms": {}}));
}

#[test]
fn a_large_upload_is_several_batches() {
    let world = World::new();
    let alice = register(&world, "alice", &[]);
    let version = create(&world, &alice);
    let mut data = session(true, 0, 0);
    data["session_data"]["ciphertext"] = json!("x".repeat(20_000));
    let sessions: Vec<_> =
        (0..400).map(|number| ("!a:b".to_owned(), number.to_string(), object(data.clone()))).collect();
    let bytes = sessions.len() * 20_200;
    let command = PutBackupKeys { user_id: alice.clone(), version: version.clone(), sessions };
    let batches = command.in_batches(bytes);
    assert!(batches.len() > 2);
    let counts: Vec<u64> =
        batches.into_iter().map(|batch| world.engine.write(batch).wait().unwrap().count).collect();
    assert_eq!(counts.last(), Some(&400));
    let none = PutBackupKeys { user_id: alice.clone(), version, sessions: Vec::new() };
    assert_eq!(none.in_batches(2).len(), 1, "an empty upload still answers");
}
