//! `warren room purge` and `warren room purge-history` on a real database: interrupted, gone on with, and the disk given back.

mod running;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use running::{Server, check, make_room, register, say, warren};
use serde_json::{Value, json};

/// Enough for several steps of a purge.
const MESSAGES: usize = 1_200;
/// Long enough that they take the larger part of the database.
const BODY_BYTES: usize = 2_000;

/// A text that hardly compresses.
fn body(number: usize) -> String {
    let mut state = number as u64 + 1;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..BODY_BYTES).map(letter).filter(|letter| !matches!(letter, '"' | '\\')).collect()
}

/// Runs a command to its end; its exit code and what it printed.
fn run(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = warren(data_dir, arguments).output().expect("the binary runs");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Starts a command and interrupts it as soon as it tells how far it is. Returns its exit code: it may have been quicker, or not have
/// begun to look for that, which ends it as well.
fn interrupted(data_dir: &Path, arguments: &[&str]) -> Option<i32> {
    let mut process = warren(data_dir, arguments).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut told = BufReader::new(process.stderr.take().expect("what it tells is piped"));
    let mut line = String::new();
    told.read_line(&mut line).expect("text");
    assert!(line.contains("of about"), "{line}");
    let sent = Command::new("kill").args(["-INT", &process.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    told.read_to_string(&mut line).expect("text");
    let code = process.wait().expect("it ends").code();
    // By a signal it has none.
    assert!(matches!(code, Some(0 | 1) | None), "{code:?}: {line}");
    assert_eq!(code == Some(1), line.contains("interrupted"), "{line}");
    code
}

/// Bytes of the files in a folder and below.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable"));
    let bytes = |entry: std::fs::DirEntry| match entry.metadata().expect("it is there") {
        found if found.is_dir() => size(&entry.path()),
        found => found.len(),
    };
    entries.map(bytes).sum()
}

/// The bodies of the messages that a user finds in a room, the latest first.
fn bodies(server: &Server, token: &str, room_id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut from = String::new();
    loop {
        let path = format!("/_matrix/client/v3/rooms/{room_id}/messages?dir=b&limit=1000{from}");
        let page = server.ask("GET", &path, Some(token), &json!({}));
        let chunk = page["chunk"].as_array().expect("a list");
        found.extend(chunk.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return found,
        }
    }
}

#[test]
fn history_and_rooms_are_removed_from_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path();
    let server = Server::start(data_dir);
    let token = register(&server, "alice");
    let room_id = make_room(&server, &token);
    let other = make_room(&server, &token);
    say(&server, &token, &other, "other", "elsewhere");
    let sent: Vec<String> = (0..MESSAGES)
        .map(|number| say(&server, &token, &room_id, &number.to_string(), &body(number)))
        .collect();
    server.stop();
    let first_size = size(data_dir);

    // Up to an event, interrupted and gone on with.
    let kept = 100;
    let before = &sent[MESSAGES - kept];
    let arguments = ["room", "purge-history", &room_id, "--before", before];
    if interrupted(data_dir, &arguments) == Some(1) {
        assert_eq!(check(data_dir, &[]).0, Some(0), "in the middle of a purge");
    }
    let (code, told) = run(data_dir, &arguments);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(check(data_dir, &[]).0, Some(0));
    let second_size = size(data_dir);
    assert!(second_size < first_size / 2, "{first_size} bytes before, {second_size} after");
    let server = Server::start(data_dir);
    let left: Vec<String> = (MESSAGES - kept..MESSAGES).rev().map(body).collect();
    assert_eq!(bodies(&server, &token, &room_id), left);
    let name = format!("/_matrix/client/v3/rooms/{room_id}/state/m.room.name");
    assert_eq!(server.ask("GET", &name, Some(&token), &json!({}))["name"], "burrow");
    let path = format!("/_matrix/client/v3/rooms/{room_id}/event/{}", sent[MESSAGES - 1]);
    let last = server.ask("GET", &path, Some(&token), &json!({}));
    say(&server, &token, &room_id, "more", "and on");
    server.stop();

    // Up to a time: what is not older stays.
    let ts = last["origin_server_ts"].as_u64().expect("a time").to_string();
    let (code, told) = run(data_dir, &["room", "purge-history", &room_id, "--before", &ts]);
    assert_eq!(code, Some(0), "{told}");
    let server = Server::start(data_dir);
    let left = bodies(&server, &token, &room_id);
    assert_eq!(left[0], "and on");
    assert!(left.contains(&body(MESSAGES - 1)) && left.len() < kept, "{} are left", left.len());
    server.stop();

    // All of it.
    let purge = ["room", "purge", &room_id];
    let (code, told) = run(data_dir, &purge);
    assert!(code == Some(1) && told.contains("--force"), "{told}");
    let purge = ["room", "purge", "--force", &room_id];
    if interrupted(data_dir, &purge) != Some(0) {
        let (code, told) = run(data_dir, &purge);
        // Whatever was left is done, or all was removed and only the disk was being given back.
        assert!(code == Some(0) || told.contains("there is no room"), "{told}");
    }
    assert_eq!(check(data_dir, &[]).0, Some(0));
    let (code, told) = run(data_dir, &purge);
    assert!(code == Some(1) && told.contains("there is no room"), "{told}");
    let server = Server::start(data_dir);
    let rooms: Value = server.ask("GET", "/_matrix/client/v3/joined_rooms", Some(&token), &json!({}));
    assert_eq!(rooms["joined_rooms"], json!([other]));
    assert_eq!(bodies(&server, &token, &other), ["elsewhere"]);
    server.stop();
}

#[test]
fn a_running_server_goes_on_with_what_was_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path();
    let server = Server::start(data_dir);
    let token = register(&server, "alice");
    let room_id = make_room(&server, &token);
    for number in 0..MESSAGES {
        say(&server, &token, &room_id, &number.to_string(), "short");
    }
    server.stop();
    let code = interrupted(data_dir, &["room", "purge", "--force", &room_id]);
    let server = Server::start(data_dir);
    if code == Some(1) {
        server.wait_for("a purge that was interrupted is over");
    }
    let rooms = server.ask("GET", "/_matrix/client/v3/joined_rooms", Some(&token), &json!({}));
    assert_eq!(rooms["joined_rooms"], json!([]));
    server.stop();
    assert_eq!(check(data_dir, &[]).0, Some(0));
}
