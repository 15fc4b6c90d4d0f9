//! `warren check` and `warren check --repair` on a real database: broken by hand while the server is stopped, mended, and
//! served again as if nothing had been.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use warren_engine::store::schema::{self, Keyspace};
use warren_engine::store::{Backend, Change, Direction, Durability, Read as _, Rocks};

/// Enough for so small a database.
const MEMORY_BUDGET: usize = 16 << 20;

/// A running server.
struct Server {
    process: Child,
    // Read to the end, so that the server never waits for somebody to read its log.
    _log: std::thread::JoinHandle<()>,
    address: String,
}

impl Server {
    fn start(data_dir: &Path) -> Server {
        // Who is there is known in memory only.
        let options = ["--registration", "open", "--rate-limits", "off", "--presence", "off"];
        let mut command = warren(data_dir, &[&["serve"], &options[..]].concat());
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut log = BufReader::new(process.stderr.take().expect("its log is piped"));
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("the log is text") > 0, "the server ended at once");
            if let Some((_, address)) = line.split_once("listening address=http://") {
                break address.trim().to_owned();
            }
        };
        let log = std::thread::spawn(move || drop(log.read_to_end(&mut Vec::new())));
        Server { process, _log: log, address }
    }

    /// Sends a request; the body of the answer.
    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Value {
        let body = body.to_string();
        let authorization =
            token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).expect("JSON")
    }

    fn stop(mut self) {
        let killed = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
        self.process.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended where the test stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn warren(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WARREN_")) {
        command.env_remove(name);
    }
    command.args(arguments).args(["--listen", "http://127.0.0.1:0", "--data-dir"]).arg(data_dir);
    command
}

fn check(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, .. } =
        warren(data_dir, &[&["check"], arguments].concat()).output().expect("the binary runs");
    (status.code(), String::from_utf8(stdout).expect("text"))
}

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
            changes.push(Change::Delete(keyspace.family, key.to_vec()));
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
    let account =
        json!({"username": "alice", "password": "correct horse", "auth": {"type": "m.login.dummy"}});
    let session = server.ask("POST", "/_matrix/client/v3/register", None, &account);
    let token = session["access_token"].as_str().expect("a token").to_owned();
    let room = json!({"name": "burrow", "preset": "public_chat"});
    let room = server.ask("POST", "/_matrix/client/v3/createRoom", Some(&token), &room);
    let room_id = room["room_id"].as_str().expect("a room").to_owned();
    for number in 0..5 {
        let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{number}");
        server.ask(
            "PUT",
            &path,
            Some(&token),
            &json!({"msgtype": "m.text", "body": format!("number {number}")}),
        );
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
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/more");
    server.ask("PUT", &path, Some(&token), &json!({"msgtype": "m.text", "body": "and on"}));
    server.stop();
    assert_eq!(check(data_dir, &[]).0, Some(0));
}
