//! `warren check` and `warren check --repair` on a real database: broken by hand while the server is stopped, mended, and
//! served again as if nothing had been.

mod running;

use running::{Server, check, make_room, register, say};
use serde_json::{Value, json};
use warren_engine::store::schema::{self, Keyspace};
use warren_engine::store::{Backend, Change, Direction, Durability, Read as _, Rocks};

/// Enough for so small a database.
const MEMORY_BUDGET: usize = 16 << 20;

/// What a client that has nothing is shown, but for where it is to go on.
fn sync(server: &Server, token: &str) -> Value {
    let mut body = server.ask("GET", "/_matrix/client/v3/sync?full_state=true", Some(token), &json!({}));
    body["next_batch"] = Value::Null;
    // Ages grow.
    let Some(rooms) = body["rooms"]["join"].as_object_mut() else { panic!("no rooms: {body}") };
    for room in rooms.values_mut() {
        for part in ["timeline", "state"] {
            for event in room[part]["events"].as_array_mut().into_iter().flatten() {
                event["unsigned"] = Value::Null;
            }
        }
    }
    body
}

/// Removes all rows of a keyspace.
fn wipe<K, V>(store: &Rocks, keyspace: &Keyspace<K, V>) {
    let (start, end) = ([keyspace.id], [keyspace.id + 1]);
    let mut changes = Vec::new();
    store
        .scan(keyspace.family, &start, Some(&end), Direction::Forward, &mut |key, _| {
            changes.push(Change::Delete(keyspace.family, key.into()));
            true
        })
        .expect("it can be read");
    assert!(!changes.is_empty(), "there is nothing in {}", keyspace.name);
    store.commit(&changes, Durability::Commit).expect("it can be written");
}

#[test]
fn a_broken_database_is_mended_and_served_as_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path();
    assert_eq!(check(data_dir, &[]).0, Some(2), "there is no database yet");
    let server = Server::start(data_dir);
    let token = register(&server, "alice");
    let room_id = make_room(&server, &token);
    for number in 0..5 {
        say(&server, &token, &room_id, &number.to_string(), &format!("number {number}"));
    }
    let before = sync(&server, &token);
    server.stop();
    let (code, text) = check(data_dir, &[]);
    assert_eq!((code, text.contains("the database is sound")), (Some(0), true), "{text}");

    let store = Rocks::open(&data_dir.join("store"), MEMORY_BUDGET).expect("nobody has it open");
    wipe(&store, &schema::EVENT_NUMS);
    wipe(&store, &schema::TIMELINE);
    wipe(&store, &schema::STATE_NODES);
    wipe(&store, &schema::ROOM_HEADS);
    wipe(&store, &schema::MEMBERS);
    drop(store);
    let (code, text) = check(data_dir, &["--json"]);
    let found: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (code, found["findings"].as_array().is_some_and(|found| found.len() > 5)),
        (Some(1), true),
        "{text}"
    );

    let (code, text) = check(data_dir, &["--repair"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("mended:") && text.contains("rows of TIMELINE"), "{text}");
    let (code, text) = check(data_dir, &[]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = check(data_dir, &["--repair"]);
    assert_eq!((code, text.as_str()), (Some(0), "the database is sound\n"));

    let server = Server::start(data_dir);
    assert_eq!(sync(&server, &token), before);
    say(&server, &token, &room_id, "more", "and on");
    server.stop();
    assert_eq!(check(data_dir, &[]).0, Some(0));
}
