//! Counts over rooms that are made event by event.

use std::sync::Arc;

use ruma_common::push::{NewPushRule, NewSimplePushRule};
use serde_json::{Value, json};

use super::{COUNT_BYTES, REMEMBERED_BYTES_MAX, THREADS_MAX, Unread, counts};
use crate::{
    Committer, Engine, Options,
    command::{ChangePushRules, Command, Lanes, PushRuleChange, Register, SetAccountData},
    core::{
        num::{RoomNum, UserNum},
        version::RoomVersion,
    },
    error::Result,
    room::{NewEvent, RoomCtx, append, ignored},
    store::{Memory, Positioned, Reader, Tx, schema, schema::Receipt},
    stream::Touch,
    view::View,
};

const ALICE: &str = "@alice:a.example";
const BOB: &str = "@bob:a.example";
const ROOM: &str = "!room:a.example";

/// Appends an event, to a new room if there is none.
struct Append {
    sender: &'static str,
    kind: &'static str,
    state_key: Option<&'static str>,
    content: Value,
    redacts: Option<String>,
}

impl Command for Append {
    type Output = String;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(ROOM)
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let mut room = match RoomCtx::find(tx, ROOM)? {
            Some(room) => room,
            None => RoomCtx::create(tx, ROOM, RoomVersion::get("10").unwrap())?,
        };
        let event = append(
            tx,
            &mut room,
            NewEvent {
                sender: self.sender,
                kind: self.kind,
                state_key: self.state_key,
                content: self.content.as_object().cloned().unwrap(),
                redacts: self.redacts.as_deref(),
                origin_server_ts: 1,
                transaction: None,
            },
        )?;
        room.save(tx);
        Ok(event.event_id.to_string())
    }
}

/// Writes a receipt as the receipts' module lays it down.
struct Read {
    user: &'static str,
    event_id: String,
    kind: u8,
    thread: String,
}

impl Command for Read {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(ROOM)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = tx.intern_user(self.user)?;
        let room = tx.intern_room(ROOM)?;
        let thread = tx.intern_text(&self.thread)?;
        let event = tx.event_num(&self.event_id)?.unwrap();
        let event_pos = tx.event(event)?.pos();
        let pos = tx.next_position();
        let row = Positioned { pos, value: Receipt { event, event_pos, ts: 1 } };
        tx.put(&schema::RECEIPTS, &(room, user, self.kind, thread), &row);
        tx.touch(Touch::Receipt(room));
        tx.touch(Touch::Room(room));
        tx.touch(Touch::User(user));
        Ok(())
    }
}

struct Counts(&'static str);

impl View for Counts {
    type Output = Unread;

    fn read(&self, reader: &Reader) -> Result<Unread> {
        let (user, room) = numbers(reader, self.0);
        counts(reader, user, room, ignored::by(reader, user)?)
    }
}

/// What the count that is remembered of a user takes in memory.
struct Remembered(&'static str);

impl View for Remembered {
    type Output = usize;

    fn read(&self, reader: &Reader) -> Result<usize> {
        Ok(reader.shared.memo.unread.counts.get(&numbers(reader, self.0)).unwrap().bytes())
    }
}

/// Makes the user active, as a sync does.
struct Activate(&'static str);

impl View for Activate {
    type Output = ();

    fn read(&self, reader: &Reader) -> Result<()> {
        let (user, room) = numbers(reader, self.0);
        reader.shared.watch.activate(user, vec![room], || (reader.pos, reader.pos));
        Ok(())
    }
}

fn numbers(reader: &Reader, user: &str) -> (UserNum, RoomNum) {
    (reader.user_num(user).unwrap().unwrap(), reader.room_num(ROOM).unwrap().unwrap())
}

/// Notifications and highlights.
type Pair = (u64, u64);

struct Room(Engine);

impl Room {
    /// A room with Alice and Bob in it.
    fn new() -> Self {
        let mut options = Options::new("a.example");
        options.committer = Committer::Inline;
        let room = Self(Engine::open(Arc::new(Memory::default()), options).unwrap());
        room.state(ALICE, "m.room.create", "", json!({"creator": ALICE, "room_version": "10"}));
        room.state(ALICE, "m.room.member", ALICE, json!({"membership": "join"}));
        room.state(ALICE, "m.room.join_rules", "", json!({"join_rule": "public"}));
        room.state(BOB, "m.room.member", BOB, json!({"membership": "join", "displayname": "Robert"}));
        room
    }

    fn append(&self, event: Append) -> String {
        self.0.write(event).wait().unwrap()
    }

    fn state(&self, sender: &'static str, kind: &'static str, key: &'static str, content: Value) -> String {
        self.append(Append { sender, kind, state_key: Some(key), content, redacts: None })
    }

    fn send(&self, sender: &'static str, content: Value) -> String {
        self.append(Append { sender, kind: "m.room.message", state_key: None, content, redacts: None })
    }

    fn say(&self, sender: &'static str) -> String {
        self.send(sender, json!({"msgtype": "m.text", "body": "hi"}))
    }

    fn say_in_thread(&self, sender: &'static str, root: &str) -> String {
        let relation = json!({"rel_type": "m.thread", "event_id": root});
        self.send(sender, json!({"msgtype": "m.text", "body": "hi", "m.relates_to": relation}))
    }

    fn mention(&self, sender: &'static str, user: &str) -> String {
        self.send(sender, json!({"msgtype": "m.text", "body": "hi", "m.mentions": {"user_ids": [user]}}))
    }

    fn read(&self, user: &'static str, event_id: &str, kind: u8, thread: &str) {
        let (event_id, thread) = (event_id.to_owned(), thread.to_owned());
        self.0.write(Read { user, event_id, kind, thread }).wait().unwrap();
    }

    fn activate(&self, user: &'static str) {
        self.0.read(&Activate(user)).unwrap();
    }

    /// (notifications, highlights) of the main timeline and, by root, of threads.
    fn counts(&self, user: &'static str) -> (Pair, Vec<(String, Pair)>) {
        let Unread { notification_count, highlight_count, threads } = self.0.read(&Counts(user)).unwrap();
        ((notification_count, highlight_count), threads.into_iter().collect())
    }
}

#[test]
fn messages_of_others_count_and_own_ones_mark_as_read() {
    let room = Room::new();
    room.activate(ALICE);
    room.activate(BOB);
    assert_eq!(room.counts(BOB), ((0, 0), vec![]));
    room.say(ALICE);
    room.mention(ALICE, BOB);
    assert_eq!(room.counts(BOB), ((2, 1), vec![]));
    assert_eq!(room.counts(ALICE), ((0, 0), vec![]));
    room.send(ALICE, json!({"msgtype": "m.notice", "body": "hi"}));
    assert_eq!(room.counts(BOB), ((2, 1), vec![]), "notices do not notify");
    room.state(BOB, "m.room.member", BOB, json!({"membership": "join", "displayname": "Bobby"}));
    assert_eq!(room.counts(BOB), ((2, 1), vec![]), "a new name does not say that one has read");
    room.say(BOB);
    assert_eq!(room.counts(BOB), ((0, 0), vec![]));
    assert_eq!(room.counts(ALICE), ((1, 0), vec![]));
}

#[test]
fn receipts_of_both_kinds_mark_as_read_and_the_later_counts() {
    let room = Room::new();
    room.activate(BOB);
    let events: Vec<String> = (0..4).map(|_| room.say(ALICE)).collect();
    assert_eq!(room.counts(BOB).0, (4, 0));
    room.read(BOB, &events[2], 1, "");
    assert_eq!(room.counts(BOB).0, (1, 0));
    room.read(BOB, &events[0], 0, "");
    assert_eq!(room.counts(BOB).0, (1, 0));
    room.say(ALICE);
    assert_eq!(room.counts(BOB).0, (2, 0));
    room.read(BOB, &events[3], 0, "main");
    assert_eq!(room.counts(BOB).0, (1, 0));
}

#[test]
fn a_count_from_scratch_is_the_remembered_one() {
    let room = Room::new();
    let root = room.say(ALICE);
    let events: Vec<String> = (0..100).map(|_| room.say(ALICE)).collect();
    room.say_in_thread(ALICE, &root);
    room.read(BOB, &events[9], 0, "");
    assert_eq!(room.counts(BOB), ((90, 0), vec![(root.clone(), (1, 0))]));
    // Nobody noted what Bob does: each count looks at the store again.
    room.say_in_thread(ALICE, &root);
    assert_eq!(room.counts(BOB), ((90, 0), vec![(root, (2, 0))]));
    assert_eq!(room.counts(ALICE).0, (0, 0));
}

#[test]
fn threads_are_counted_and_read_apart() {
    let room = Room::new();
    room.activate(BOB);
    let root = room.say(ALICE);
    let in_thread = room.say_in_thread(ALICE, &root);
    room.say_in_thread(ALICE, &root);
    let main = room.say(ALICE);
    assert_eq!(room.counts(BOB), ((2, 0), vec![(root.clone(), (2, 0))]));
    room.read(BOB, &main, 0, "main");
    assert_eq!(room.counts(BOB), ((0, 0), vec![(root.clone(), (2, 0))]));
    room.read(BOB, &in_thread, 0, &root);
    assert_eq!(room.counts(BOB), ((0, 0), vec![(root.clone(), (1, 0))]));
    // An event that relates to one in the thread is in the thread: an edit of it that mentions Bob, say.
    let relation = json!({"rel_type": "m.reference", "event_id": in_thread});
    room.send(ALICE, json!({"msgtype": "m.text", "body": "see", "m.relates_to": relation}));
    assert_eq!(room.counts(BOB), ((0, 0), vec![(root.clone(), (2, 0))]));
    room.say(BOB);
    assert_eq!(room.counts(BOB), ((0, 0), vec![(root.clone(), (2, 0))]), "the thread is not read by that");
    room.say_in_thread(BOB, &root);
    assert_eq!(room.counts(BOB), ((0, 0), vec![]));
    room.say_in_thread(ALICE, &root);
    let last = room.say(ALICE);
    room.read(BOB, &last, 0, "");
    assert_eq!(room.counts(BOB), ((0, 0), vec![]), "an unthreaded receipt reads all");
}

#[test]
fn so_are_threads_whose_root_is_not_here() {
    let room = Room::new();
    room.activate(BOB);
    let root = "$said:before.example";
    let in_thread = room.say_in_thread(ALICE, root);
    let relation = json!({"rel_type": "m.reference", "event_id": in_thread});
    let last = room.send(ALICE, json!({"msgtype": "m.text", "body": "see", "m.relates_to": relation}));
    assert_eq!(room.counts(BOB), ((0, 0), vec![(root.to_owned(), (2, 0))]));
    room.say(ALICE);
    room.read(BOB, &in_thread, 0, root);
    assert_eq!(room.counts(BOB), ((1, 0), vec![(root.to_owned(), (1, 0))]));
    room.read(BOB, &last, 0, root);
    assert_eq!(room.counts(BOB), ((1, 0), vec![]));
    // No name of a thread, but what is in none.
    for named in ["main", "", "root"] {
        room.say_in_thread(ALICE, named);
    }
    assert_eq!(room.counts(BOB), ((4, 0), vec![]));
}

#[test]
fn threads_without_end_are_held_as_far_as_anybody_counts() {
    let room = Room::new();
    room.activate(BOB);
    let roots: Vec<String> = (0..THREADS_MAX + 3).map(|_| room.say(ALICE)).collect();
    for root in &roots {
        room.say_in_thread(ALICE, root);
    }
    let threads = room.counts(BOB).1;
    assert_eq!(threads.len(), THREADS_MAX);
    let is_counted = |root: &String| threads.iter().any(|(counted, _)| counted == root);
    assert!(roots[3..].iter().all(is_counted), "those that were silent for longest go");
    let bytes = room.0.read(&Remembered(BOB)).unwrap();
    assert!(bytes > COUNT_BYTES + THREADS_MAX * roots[0].len(), "each weighs something");
    assert!(bytes <= REMEMBERED_BYTES_MAX);
    // What is read with all else is not remembered thread by thread.
    for root in &roots[..10] {
        room.read(BOB, root, 0, root);
    }
    let last = room.say(ALICE);
    room.read(BOB, &last, 0, "");
    assert_eq!(room.counts(BOB), ((0, 0), vec![]));
    assert_eq!(room.0.read(&Remembered(BOB)).unwrap(), COUNT_BYTES);
}

#[test]
fn what_is_redacted_counts_no_longer() {
    let room = Room::new();
    room.activate(BOB);
    room.say(ALICE);
    let event_id = room.mention(ALICE, BOB);
    assert_eq!(room.counts(BOB).0, (2, 1));
    room.append(Append {
        sender: ALICE,
        kind: "m.room.redaction",
        state_key: None,
        content: json!({}),
        redacts: Some(event_id),
    });
    assert_eq!(room.counts(BOB).0, (1, 0));
}

#[test]
fn what_falls_among_the_older_ones_is_counted_anew() {
    let room = Room::new();
    room.activate(BOB);
    let mut events: Vec<String> = (0..60).map(|_| room.say(ALICE)).collect();
    room.say(BOB);
    events.clear();
    events.extend((0..100).map(|_| room.say(ALICE)));
    assert_eq!(room.counts(BOB).0, (100, 0));
    let redact = |event_id: &String| {
        room.append(Append {
            sender: ALICE,
            kind: "m.room.redaction",
            state_key: None,
            content: json!({}),
            redacts: Some(event_id.clone()),
        })
    };
    redact(&events[5]);
    assert_eq!(room.counts(BOB).0, (99, 0));
    room.read(BOB, &events[9], 0, "");
    assert_eq!(room.counts(BOB).0, (90, 0));
    redact(&events[2]);
    assert_eq!(room.counts(BOB).0, (90, 0), "what is read was not counted");
    room.say(ALICE);
    room.read(BOB, &events[98], 1, "main");
    assert_eq!(room.counts(BOB).0, (2, 0));
}

#[test]
fn changed_rules_decide_from_then_on() {
    let room = Room::new();
    room.activate(BOB);
    room.say(ALICE);
    assert_eq!(room.counts(BOB).0, (1, 0));
    let rule = NewSimplePushRule::new(ROOM.try_into().unwrap(), Vec::new());
    let change = PushRuleChange::Set { rule: NewPushRule::Room(rule), before: None, after: None };
    room.0.write(ChangePushRules { user_id: BOB.to_owned(), change }).wait().unwrap();
    room.say(ALICE);
    assert_eq!(room.counts(BOB).0, (1, 0), "the room is muted");
    room.mention(ALICE, BOB);
    assert_eq!(room.counts(BOB).0, (2, 1), "but a mention comes before the rule of the room");
}

#[test]
fn who_is_ignored_notifies_nobody() {
    let room = Room::new();
    room.activate(BOB);
    room.0.write(Register { localpart: "bob".into(), ..Register::default() }).wait().unwrap();
    let ignore = |whom: Value| {
        let content = json!({"ignored_users": whom}).to_string().into();
        let kind = "m.ignored_user_list".to_owned();
        let set = SetAccountData { user_id: BOB.to_owned(), room_id: None, kind, content };
        room.0.write(set).wait().unwrap();
    };
    room.mention(ALICE, BOB);
    assert_eq!(room.counts(BOB).0, (1, 1));
    const CAROL: &str = "@carol:a.example";
    ignore(json!({ALICE: {}, CAROL: {}}));
    assert_eq!(room.counts(BOB).0, (0, 0));
    room.mention(ALICE, BOB);
    // Of whom nothing was known when Bob chose to ignore them.
    room.state(CAROL, "m.room.member", CAROL, json!({"membership": "join"}));
    room.mention(CAROL, BOB);
    assert_eq!(room.counts(BOB).0, (0, 0));
    ignore(json!({}));
    assert_eq!(room.counts(BOB).0, (3, 3));
}

#[test]
fn counting_begins_where_the_user_joined() {
    let room = Room::new();
    room.say(ALICE);
    const CAROL: &str = "@carol:a.example";
    room.state(CAROL, "m.room.member", CAROL, json!({"membership": "join"}));
    room.say(ALICE);
    room.state(CAROL, "m.room.member", CAROL, json!({"membership": "join", "displayname": "C"}));
    assert_eq!(room.counts(CAROL).0, (1, 0));
    room.state(CAROL, "m.room.member", CAROL, json!({"membership": "leave"}));
    assert_eq!(room.counts(CAROL).0, (0, 0));
    room.say(ALICE);
    room.state(CAROL, "m.room.member", CAROL, json!({"membership": "join"}));
    assert_eq!(room.counts(CAROL).0, (0, 0));
    room.say(ALICE);
    assert_eq!(room.counts(CAROL).0, (1, 0));
}

#[test]
fn nothing_newer_than_the_readers_moment_is_told() {
    let room = Room::new();
    room.activate(BOB);
    struct Later<'a>(&'a Room);
    impl View for Later<'_> {
        type Output = (Unread, Unread);
        fn read(&self, reader: &Reader) -> Result<Self::Output> {
            let (user, number) = numbers(reader, BOB);
            let before = counts(reader, user, number, ignored::by(reader, user)?)?;
            self.0.say(ALICE);
            assert_eq!(self.0.counts(BOB).0, (1, 0));
            Ok((before, counts(reader, user, number, ignored::by(reader, user)?)?))
        }
    }
    let (before, after) = room.0.read(&Later(&room)).unwrap();
    assert_eq!(before, after);
}
