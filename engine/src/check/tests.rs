//! A store with everything in it is clean; whatever is then broken by hand is found.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Check, Report};
use crate::{
    Committer, Engine, Options,
    command::{Command, CreateRoom, Lanes, SendEvent},
    core::num::{EventNum, NodeId, RoomNum, StreamPos, UserNum},
    error::Result,
    room::decode_body,
    store::{
        Direction, Key, Memory, Positioned, Reader, Tx, Value as Stored, schema,
        schema::{Keyspace, Membership, Receipt},
    },
};

const ALICE: &str = "@alice:a.example";
const BOB: &str = "@bob:a.example";

/// Writes whatever it is told to.
struct Write<F>(F);

impl<F: Fn(&mut Tx) -> Result<()>> Command for Write<F> {
    type Output = ();
    fn lanes(&self) -> Lanes {
        Lanes::none()
    }
    fn run(&self, tx: &mut Tx) -> Result<()> {
        (self.0)(tx)
    }
}

fn open(backend: &Arc<Memory>) -> Engine {
    let mut options = Options::new("a.example");
    options.committer = Committer::Inline;
    Engine::open(backend.clone(), options).unwrap()
}

fn check(backend: &Arc<Memory>) -> Report {
    open(backend).read(&Check { progress: &|_, _| {} }).unwrap()
}

fn send(engine: &Engine, room_id: &str, kind: &str, content: Value, redacts: Option<&str>) -> String {
    let event = SendEvent {
        room_id: room_id.to_owned(),
        sender: ALICE.to_owned(),
        kind: kind.to_owned(),
        state_key: None,
        content: content.as_object().cloned().unwrap(),
        redacts: redacts.map(str::to_owned),
        transaction: None,
        is_guest: false,
        origin_server_ts: None,
    };
    engine.write(event).wait().unwrap()
}

/// A room of the version with messages, a thread, a redaction, an alias, an invitation and a receipt.
fn furnish(engine: &Engine, version: &str) {
    let mut room = CreateRoom::new(ALICE, version);
    room.alias_localpart = Some(format!("burrow{version}"));
    room.is_listed = true;
    room.invite = vec![BOB.to_owned()];
    let room_id = engine.write(room).wait().unwrap();
    let say = |content| send(engine, &room_id, "m.room.message", content, None);
    let root = say(json!({"msgtype": "m.text", "body": "hi"}));
    let relation = json!({"rel_type": "m.thread", "event_id": root});
    let second = say(json!({"msgtype": "m.text", "body": "in the thread", "m.relates_to": relation}));
    let third = say(json!({"msgtype": "m.text", "body": "regretted"}));
    let content = if version == "12" { json!({"redacts": third}) } else { json!({}) };
    send(engine, &room_id, "m.room.redaction", content, Some(&third));
    let receipt = |tx: &mut Tx| {
        let (room, user) = (tx.room_num(&room_id)?.unwrap(), tx.intern_user(ALICE)?);
        let thread = tx.intern_text("")?;
        let event = tx.event_num(&second)?.unwrap();
        let value = Receipt { event, event_pos: tx.event(event)?.pos(), ts: 1 };
        let pos = tx.next_position();
        tx.put(&schema::RECEIPTS, &(room, user, 0, thread), &Positioned { pos, value });
        tx.put(&schema::RECEIPT_STREAM, &(room, pos), &(user, 0, thread));
        Ok(())
    };
    engine.write(Write(receipt)).wait().unwrap();
}

/// A store with one room.
fn furnished() -> Arc<Memory> {
    let backend = Arc::new(Memory::default());
    furnish(&open(&backend), "11");
    backend
}

#[test]
fn rooms_of_every_version_are_clean() {
    let backend = Arc::new(Memory::default());
    let engine = open(&backend);
    for version in ["1", "3", "6", "10", "11", "12"] {
        furnish(&engine, version);
    }
    drop(engine);
    let report = check(&backend);
    assert_eq!(report.findings, []);
    for place in ["EVENT_HEADERS", "ROOM_HEADS", "THREADS", "RECEIPTS", "ALIASES", "RELATIONS", "MEMBERS"] {
        assert!(report.counts.get(place).is_some_and(|count| *count > 0), "no {place} were checked");
    }
}

/// The first row of a keyspace.
fn first<K: Key, V: Stored>(reader: &Reader, keyspace: &Keyspace<K, V>) -> (K, V) {
    nth(reader, keyspace, 0)
}

fn nth<K: Key, V: Stored>(reader: &Reader, keyspace: &Keyspace<K, V>, index: usize) -> (K, V) {
    let mut rows = Vec::new();
    reader
        .scan(keyspace, &(), Direction::Forward, |key, value| {
            rows.push((key, value));
            true
        })
        .unwrap();
    rows.remove(index)
}

/// Breaks a store, and sees what of it is found.
fn breaks(harm: impl Fn(&mut Tx), place: &str, problem: &str) {
    let backend = furnished();
    open(&backend)
        .write(Write(|tx: &mut Tx| {
            harm(tx);
            Ok(())
        }))
        .wait()
        .unwrap();
    let report = check(&backend);
    let found = |finding: &super::Finding| finding.place == place && finding.problem.contains(problem);
    assert!(
        report.findings.iter().any(found),
        "{place}: {problem}: not among {:#?}",
        report.findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
}

/// Changes the header of the event at an index, counted from the create event.
fn change_header(tx: &mut Tx, index: usize, change: impl Fn(&mut Positioned<schema::EventHeader>)) {
    let (num, mut header) = nth(tx, &schema::EVENT_HEADERS, index);
    change(&mut header);
    tx.put(&schema::EVENT_HEADERS, &num, &header);
}

/// Replaces a text in the body of the message that is the root of the thread.
fn change_body(tx: &mut Tx, from: &str, to: &str) {
    let ((_, root), _) = first(tx, &schema::THREADS);
    let body = tx.get(&schema::EVENT_BODIES, &root).unwrap().unwrap();
    let (_, json) = decode_body(&body).unwrap();
    let head = body.len() - json.len();
    let json = String::from_utf8(json.to_vec()).unwrap().replacen(from, to, 1);
    let body = [&body[..head], json.as_bytes()].concat();
    tx.put(&schema::EVENT_BODIES, &root, &body.into());
}

#[test]
fn events_that_were_tampered_with() {
    breaks(|tx| change_body(tx, "\"hi\"", "\"ho\""), "EVENT_HEADERS", "the content hash is wrong");
    // Signature and reference hash are over what redaction leaves, which the content of a message is not.
    let retype = |tx: &mut Tx| change_body(tx, "m.room.message", "m.room.massage");
    breaks(retype, "EVENT_HEADERS", "this server's signature");
    breaks(retype, "EVENT_HEADERS", "the id is not that of");
    breaks(retype, "EVENT_HEADERS", "differ in the type");
    breaks(|tx| change_body(tx, "{\"", "{ \""), "EVENT_HEADERS", "canonical");
    breaks(|tx| change_body(tx, "\"depth\":", "\"height\":"), "EVENT_HEADERS", "the body is not an event");
    let strip = |tx: &mut Tx| {
        let (num, _) = first(tx, &schema::EVENT_BODIES);
        tx.delete(&schema::EVENT_BODIES, &num);
    };
    breaks(strip, "EVENT_HEADERS", "no body");
    let behead = |tx: &mut Tx| {
        let (num, _) = first(tx, &schema::EVENT_HEADERS);
        tx.delete(&schema::EVENT_HEADERS, &num);
    };
    breaks(behead, "EVENT_BODIES", "no header");
    breaks(behead, "TIMELINE", "does not say so");
    breaks(behead, "EVENT_HEADERS", "a previous event is not there");
    breaks(behead, "EVENT_HEADERS", "an auth event is not there");
}

#[test]
fn headers_that_do_not_agree() {
    breaks(|tx| change_header(tx, 3, |row| row.value.depth += 1), "EVENT_HEADERS", "differ in the depth");
    breaks(|tx| change_header(tx, 3, |row| row.value.sender = UserNum(99)), "EVENT_HEADERS", "has no name");
    breaks(
        |tx| change_header(tx, 3, |row| row.value.prev.clear()),
        "EVENT_HEADERS",
        "lacks a previous event",
    );
    let other = |row: &mut Positioned<schema::EventHeader>| row.value.auth = vec![EventNum(9)];
    breaks(|tx| change_header(tx, 3, other), "EVENT_HEADERS", "not one that the body names");
    let no_change =
        |row: &mut Positioned<schema::EventHeader>| row.value.state_after = row.value.state_before;
    breaks(|tx| change_header(tx, 3, no_change), "EVENT_HEADERS", "the state after the event");
    let moved = |row: &mut Positioned<schema::EventHeader>| row.pos = StreamPos(1_000);
    breaks(|tx| change_header(tx, 3, moved), "EVENT_HEADERS", "not in the timeline");
    let rename = |tx: &mut Tx| {
        let (id, _) = first(tx, &schema::EVENT_NUMS);
        tx.put(&schema::EVENT_NUMS, &id, &EventNum(3_000));
    };
    breaks(rename, "EVENT_NUMS", "to another event or to none");
    breaks(rename, "EVENT_HEADERS", "does not lead to it");
}

#[test]
fn rooms_that_do_not_agree() {
    fn head(tx: &mut Tx, change: impl Fn(&mut schema::RoomHead)) {
        let (room, mut head) = first(tx, &schema::ROOM_HEADS);
        change(&mut head);
        tx.put(&schema::ROOM_HEADS, &room, &head);
    }
    breaks(|tx| head(tx, |head| head.joined += 1), "ROOM_HEADS", "joined members are counted wrong");
    breaks(|tx| head(tx, |head| head.invited = 0), "ROOM_HEADS", "invited users are counted wrong");
    breaks(|tx| head(tx, |head| head.state = NodeId(0)), "ROOM_HEADS", "not the one after the last event");
    breaks(|tx| head(tx, |head| head.extremities.clear()), "ROOM_HEADS", "no last event");
    breaks(|tx| head(tx, |head| head.extremities[0].0 = EventNum(2)), "ROOM_HEADS", "has another id");
    breaks(|tx| head(tx, |head| head.depth = 1), "ROOM_HEADS", "deeper than the room");
    let fell = |tx: &mut Tx| {
        let (_, head) = first(tx, &schema::ROOM_HEADS);
        tx.delete(&schema::STATE_NODES, &(RoomNum(1), head.state));
    };
    breaks(fell, "ROOM_HEADS", "of a state tree is missing");
    let lost = |tx: &mut Tx| {
        let ((room, _, user), _) = first(tx, &schema::MEMBERS);
        tx.delete(&schema::MEMBERS, &(room, Membership::Join as u8, user));
    };
    breaks(lost, "USER_ROOMS", "says something else");
    breaks(lost, "ROOM_HEADS", "lack or contradict the state");
    let ghost = |tx: &mut Tx| tx.put(&schema::MEMBERS, &(RoomNum(1), 5, UserNum(77)), &EventNum(3));
    breaks(ghost, "MEMBERS", "says something else");
    breaks(ghost, "ROOM_HEADS", "in the rows but not in the state");
}

#[test]
fn indexes_that_lead_nowhere() {
    let names = |tx: &mut Tx| tx.put(&schema::NAME_TEXTS, &(1, 500), &"@ghost:a.example".to_owned());
    breaks(names, "NAME_TEXTS", "does not lead back");
    let twice = |tx: &mut Tx| tx.put(&schema::NAME_NUMS, &(1, "@ghost:a.example".to_owned()), &1);
    breaks(twice, "NAME_NUMS", "does not lead back");
    let relation = |tx: &mut Tx| {
        let ((room, class, _, pos), value) = first(tx, &schema::RELATIONS);
        tx.put(&schema::RELATIONS, &(room, class, EventNum(4_000), pos), &value);
    };
    breaks(relation, "RELATIONS", "related to is not there");
    let thread = |tx: &mut Tx| {
        let (key, mut row) = first(tx, &schema::THREADS);
        row.value.count += 1;
        tx.put(&schema::THREADS, &key, &row);
    };
    breaks(thread, "THREADS", "counted wrong");
    let stream = |tx: &mut Tx| {
        let ((room, pos), root) = first(tx, &schema::THREAD_STREAM);
        tx.put(&schema::THREAD_STREAM, &(room, StreamPos(pos.0 + 1)), &root);
    };
    breaks(stream, "THREAD_STREAM", "does not stand here");
    let receipt = |tx: &mut Tx| {
        let (key, mut row) = first(tx, &schema::RECEIPTS);
        row.value.event_pos = StreamPos(1);
        tx.put(&schema::RECEIPTS, &key, &row);
    };
    breaks(receipt, "RECEIPTS", "at another position");
    let unlisted = |tx: &mut Tx| {
        let (key, _) = first(tx, &schema::RECEIPT_STREAM);
        tx.delete(&schema::RECEIPT_STREAM, &key);
    };
    breaks(unlisted, "RECEIPTS", "not in the room's stream");
    let alias = |tx: &mut Tx| {
        let (name, _) = first(tx, &schema::ALIASES);
        tx.delete(&schema::ALIASES, &name);
    };
    breaks(alias, "ROOM_ALIASES", "another room's or nobody's");
    let unlisted = |tx: &mut Tx| {
        let (key, ()) = first(tx, &schema::ROOM_ALIASES);
        tx.delete(&schema::ROOM_ALIASES, &key);
    };
    breaks(unlisted, "ALIASES", "does not list the alias");
    breaks(|tx| tx.put(&schema::PUBLIC_ROOMS, &RoomNum(70), &()), "PUBLIC_ROOMS", "not there");
}

#[test]
fn a_row_that_cannot_be_read_does_not_hide_others() {
    let harm = |tx: &mut Tx| {
        let (num, _) = first(tx, &schema::EVENT_HEADERS);
        tx.put(
            &schema::EVENT_HEADERS.raw(),
            &crate::store::RestOfKey(num.0.to_be_bytes().to_vec()),
            &"?".into(),
        );
        change_header_behind(tx);
    };
    fn change_header_behind(tx: &mut Tx) {
        let behind = nth(tx, &schema::EVENT_BODIES, 3).0;
        let mut header = tx.get(&schema::EVENT_HEADERS, &behind).unwrap().unwrap();
        header.value.depth += 1;
        tx.put(&schema::EVENT_HEADERS, &behind, &header);
    }
    breaks(harm, "EVENT_HEADERS", "the row cannot be read");
    breaks(harm, "EVENT_HEADERS", "differ in the depth");
}
