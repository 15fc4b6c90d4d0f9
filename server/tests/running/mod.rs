//! The real binary: a server on a data folder, and the commands that want it stopped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};

use serde_json::{Value, json};

/// A running server.
pub struct Server {
    process: Child,
    /// The lines of its log. They are read to the end, so that the server never waits for somebody to read it.
    log: Receiver<String>,
    address: String,
}

impl Server {
    pub fn start(data_dir: &Path) -> Server {
        // Who is there is known in memory only.
        let options = ["--registration", "open", "--rate-limits", "off", "--presence", "off"];
        let mut command = warren(data_dir, &[&["serve"], &options[..]].concat());
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(process.stderr.take().expect("its log is piped")).lines();
        let (sender, log) = mpsc::channel();
        // Nobody may be left to be told.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let mut server = Server { process, log, address: String::new() };
        let line = server.wait_for("listening address=http://");
        server.address = line.split("http://").nth(1).unwrap_or_default().trim().to_owned();
        server
    }

    /// Waits until something is logged; the line.
    pub fn wait_for(&self, text: &str) -> String {
        self.log.iter().find(|line| line.contains(text)).expect("it says so before it ends")
    }

    /// Sends a request; the body of the answer.
    pub fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Value {
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

    pub fn stop(mut self) {
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

pub fn warren(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WARREN_")) {
        command.env_remove(name);
    }
    command.args(arguments).args(["--listen", "http://127.0.0.1:0", "--data-dir"]).arg(data_dir);
    command
}

pub fn check(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, .. } =
        warren(data_dir, &[&["check"], arguments].concat()).output().expect("the binary runs");
    (status.code(), String::from_utf8(stdout).expect("text"))
}

/// Registers a user; their access token.
pub fn register(server: &Server, name: &str) -> String {
    let account = json!({"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}});
    let session = server.ask("POST", "/_matrix/client/v3/register", None, &account);
    session["access_token"].as_str().expect("a token").to_owned()
}

/// Makes a room that everybody may join; its id.
pub fn make_room(server: &Server, token: &str) -> String {
    let room = json!({"name": "burrow", "preset": "public_chat"});
    let room = server.ask("POST", "/_matrix/client/v3/createRoom", Some(token), &room);
    room["room_id"].as_str().expect("a room").to_owned()
}

/// Sends a message; the event's id.
pub fn say(server: &Server, token: &str, room_id: &str, transaction: &str, body: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{transaction}");
    let sent = server.ask("PUT", &path, Some(token), &json!({"msgtype": "m.text", "body": body}));
    sent["event_id"].as_str().expect("an event").to_owned()
}
