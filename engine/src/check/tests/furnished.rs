//! A store with something in every keyspace, what its users read from it, and a way to its rows past the engine.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Clock, Command, Committer, Engine, Options, PresenceState,
    account::sessions::NewSession,
    command::{
        ChangeMembership, CreateKeyBackup, CreateMedia, CreateRoom, Deactivate, DeviceMessage,
        MembershipAction, NoteMediaAccess, NoteSeen, PutBackupKeys, Register, Registered, SendEvent,
        SendToDevice, SetAccountData, SetPresence, SetProfileField, SetReceipts, ShowProfile, StoreFilter,
        UploadKeys,
    },
    core::event::JsonObject,
    store::{
        Backend, Change, Direction, Durability, Family, Key, Memory, Read, RestOfKey, Value as Stored,
        ValueWriter, encode_key,
        schema::{Keyspace, Sighting},
    },
    view::{Members, Messages, Sync},
};

pub(super) const ALICE: &str = "@alice:a.example";
pub(super) const BOB: &str = "@bob:a.example";
pub(super) const CAROL: &str = "@carol:a.example";
pub(super) const DAVE: &str = "@dave:a.example";
pub(super) const EVE: &str = "@eve:a.example";

/// Ages are part of what is read.
struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

pub(super) fn open(backend: &Arc<Memory>) -> Engine {
    let mut options = Options::new("a.example");
    options.committer = Committer::Inline;
    options.clock = Arc::new(Still);
    Engine::open(backend.clone(), options).unwrap()
}

fn write<C: Command>(engine: &Engine, command: C) -> C::Output {
    engine.write(command).wait().unwrap()
}

fn object(value: Value) -> JsonObject {
    value.as_object().cloned().unwrap()
}

pub(super) fn send(
    engine: &Engine,
    room_id: &str,
    kind: &str,
    content: Value,
    redacts: Option<&str>,
) -> String {
    let event = SendEvent {
        room_id: room_id.to_owned(),
        sender: ALICE.to_owned(),
        kind: kind.to_owned(),
        state_key: None,
        content: object(content),
        redacts: redacts.map(str::to_owned),
        transaction: None,
        is_guest: false,
        origin_server_ts: None,
    };
    write(engine, event)
}

fn membership(engine: &Engine, room_id: &str, sender: &str, target: &str, action: MembershipAction) {
    let (room_id, sender, target) = (room_id.to_owned(), sender.to_owned(), target.to_owned());
    write(engine, ChangeMembership { room_id, sender, target, action, reason: None, is_guest: false });
}

/// A room of the version in which something of everything has happened. Returns its id.
pub(super) fn furnish(engine: &Engine, version: &str) -> String {
    let mut room = CreateRoom::new(ALICE, version);
    room.alias_localpart = Some(format!("burrow{version}"));
    room.is_listed = true;
    room.preset = crate::Preset::PublicChat;
    room.topic = Some("holes".to_owned());
    room.invite = vec![BOB.to_owned(), EVE.to_owned()];
    let room_id = write(engine, room);
    let say = |content| send(engine, &room_id, "m.room.message", content, None);
    membership(engine, &room_id, BOB, BOB, MembershipAction::Join);
    membership(engine, &room_id, CAROL, CAROL, MembershipAction::Join);
    let root = say(json!({"msgtype": "m.text", "body": "hi"}));
    let relation = json!({"rel_type": "m.thread", "event_id": root});
    let second = say(json!({"msgtype": "m.text", "body": "in the thread", "m.relates_to": relation}));
    let third = say(json!({"msgtype": "m.text", "body": "regretted"}));
    let content = match version {
        "11" | "12" => json!({"redacts": third}),
        _ => json!({}),
    };
    send(engine, &room_id, "m.room.redaction", content, Some(&third));
    let edit = json!({
        "msgtype": "m.text", "body": "* hello", "m.new_content": {"msgtype": "m.text", "body": "hello"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": root},
    });
    say(edit);
    let read = SetReceipts {
        room_id: room_id.clone(),
        user: BOB.to_owned(),
        read: Some(second.clone()),
        read_private: None,
        fully_read: Some(second),
        thread_id: None,
    };
    write(engine, read);
    membership(engine, &room_id, CAROL, CAROL, MembershipAction::Leave);
    membership(engine, &room_id, ALICE, DAVE, MembershipAction::Ban);
    write(engine, ShowProfile { room_id: room_id.clone(), user_id: BOB.to_owned() });
    // What it relates to is not here.
    let relation = json!({"rel_type": "m.reference", "event_id": "$elsewhere"});
    say(json!({"msgtype": "m.text", "body": "see there", "m.relates_to": relation}));
    say(json!({"msgtype": "m.text", "body": "the last"}));
    room_id
}

/// Accounts, and what they have outside of rooms.
pub(super) fn people(engine: &Engine) {
    for name in ["alice", "bob", "carol", "dave", "eve"] {
        let session = NewSession {
            device_id: Some("PHONE".into()),
            display_name: Some("phone".into()),
            is_refreshable: name == "bob",
            seen: None,
        };
        let register = Register { localpart: name.to_owned(), session: Some(session), ..Register::default() };
        write(engine, register);
    }
    let user_id = || BOB.to_owned();
    let phone = || "PHONE".to_owned();
    let bytes = |value: Value| Bytes::from(value.to_string());
    let value = Some(bytes(json!("Bob")));
    write(engine, SetProfileField { user_id: user_id(), name: "displayname".to_owned(), value });
    let content = bytes(json!({"theme": "dark"}));
    let kind = "org.example.theme".to_owned();
    write(engine, SetAccountData { user_id: user_id(), room_id: None, kind, content });
    write(
        engine,
        SetPresence {
            user: user_id(),
            device: None,
            state: PresenceState::Online,
            status_msg: "busy".to_owned(),
        },
    );
    write(engine, StoreFilter { user_id: user_id(), json: bytes(json!({"room": {}})) });
    let sighting = Sighting { ts: 1, ip: Some("127.0.0.1".to_owned()) };
    write(engine, NoteSeen { user_id: user_id(), device_id: phone(), sighting });
    let key = json!({"key": "AAAA", "signatures": {}});
    let keys = UploadKeys {
        user_id: user_id(),
        device_id: phone(),
        device_keys: None,
        one_time_keys: vec![
            ("signed_curve25519:A".to_owned(), key.clone()),
            ("signed_curve25519:B".to_owned(), key.clone()),
        ],
        fallback_keys: vec![("signed_curve25519:C".to_owned(), key)],
    };
    write(engine, keys);
    for _ in 0..2 {
        let content = bytes(json!({"secret": true}));
        let message = DeviceMessage { user_id: user_id(), device_id: phone(), content };
        let (sender, kind) = (ALICE.to_owned(), "org.example.secret".to_owned());
        write(engine, SendToDevice { sender, kind, messages: vec![message], transaction: None });
    }
    let algorithm = "m.megolm_backup.v1.curve25519-aes-sha2".to_owned();
    let auth_data = bytes(json!({"public_key": "x", "signatures": {}}));
    let version = write(engine, CreateKeyBackup { user_id: user_id(), algorithm, auth_data }).to_string();
    let session = json!({
        "first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": {"c": "x"},
    });
    let sessions = vec![("!r:a.example".to_owned(), "session".to_owned(), object(session))];
    write(engine, PutBackupKeys { user_id: user_id(), version, sessions });
    let media = write(engine, CreateMedia { user_id: user_id() });
    write(engine, NoteMediaAccess { media_id: media.media_id });
    let register = Register { localpart: "frank".to_owned(), ..Register::default() };
    let Registered { user_id, .. } = write(engine, register);
    write(engine, Deactivate { user_id, erase: true });
}

/// A store with one room, of version 11.
pub(super) fn furnished() -> (Arc<Memory>, String) {
    let backend = Arc::new(Memory::default());
    let engine = open(&backend);
    people(&engine);
    let room_id = furnish(&engine, "11");
    drop(engine);
    (backend, room_id)
}

/// What everybody is shown: syncs, members, messages.
pub(super) fn reads(backend: &Arc<Memory>, room_id: &str) -> Vec<Value> {
    let engine = open(backend);
    let mut seen = Vec::new();
    for user in [ALICE, BOB, CAROL, EVE] {
        let sync = Sync {
            user_id: user.to_owned(),
            device_id: Some("PHONE".to_owned()),
            since: None,
            filter: Arc::default(),
            full_state: true,
            state_after: None,
            waits: false,
        };
        let mut body: Value = serde_json::from_slice(&engine.read(&sync).unwrap().body).unwrap();
        // The position on which a restart goes on depends on how often it was started.
        body["next_batch"] = Value::Null;
        seen.push(body);
    }
    for user in [ALICE, BOB] {
        let (user, room_id) = (user.to_owned(), room_id.to_owned());
        let members = Members {
            room_id: room_id.clone(),
            user: user.clone(),
            at: None,
            membership: None,
            not_membership: None,
        };
        seen.push(serde_json::from_slice(&engine.read(&members).unwrap()).unwrap());
        let messages = Messages {
            room_id,
            user,
            device: None,
            from: None,
            to: None,
            forwards: true,
            limit: Some(100),
            filter: Default::default(),
        };
        seen.push(serde_json::from_slice(&engine.read(&messages).unwrap()).unwrap());
    }
    seen
}

/// The rows of a store, past the engine.
pub(super) struct Raw<'a>(pub &'a Memory);

impl Raw<'_> {
    /// All rows of a keyspace as they are stored.
    pub fn rows<K: Key, V: Stored>(&self, keyspace: &Keyspace<K, V>) -> Vec<(K, Bytes)> {
        let mut rows = Vec::new();
        let start = vec![keyspace.id];
        let end = vec![keyspace.id + 1];
        self.0
            .scan(keyspace.family, &start, Some(&end), Direction::Forward, &mut |key, value| {
                let key = RestOfKey(key[1..].to_vec()).decode().expect("a key of its keyspace");
                rows.push((key, Bytes::copy_from_slice(value)));
                true
            })
            .unwrap();
        rows
    }

    /// All that is stored.
    pub fn everything(&self) -> Vec<(Vec<u8>, Bytes)> {
        let mut rows = Vec::new();
        for family in Family::ALL {
            let visit = &mut |key: &[u8], value: &[u8]| {
                rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
                true
            };
            self.0.scan(family, &[], None, Direction::Forward, visit).unwrap();
        }
        rows
    }

    /// The first row that `is_it` picks.
    pub fn find<K: Key + Debug, V: Stored>(
        &self,
        keyspace: &Keyspace<K, V>,
        is_it: impl Fn(&K, &V) -> bool,
    ) -> (K, V) {
        let rows = self.rows(keyspace).into_iter().map(|(key, value)| (key, V::read(&value).unwrap()));
        let mut rows = rows.filter(|(key, value)| is_it(key, value));
        rows.next().unwrap_or_else(|| panic!("no such row of {}", keyspace.name))
    }

    /// The first row.
    pub fn first<K: Key + Debug, V: Stored>(&self, keyspace: &Keyspace<K, V>) -> (K, V) {
        self.find(keyspace, |_, _| true)
    }

    pub fn put<K: Key, V: Stored>(&self, keyspace: &Keyspace<K, V>, key: &K, value: &V) {
        let mut out = ValueWriter::default();
        value.write(&mut out);
        self.put_bytes(keyspace, key, out.bytes.into());
    }

    pub fn put_bytes<K: Key, V: Stored>(&self, keyspace: &Keyspace<K, V>, key: &K, value: Bytes) {
        self.commit(Change::Put(keyspace.family, encode_key(keyspace, key).into(), value));
    }

    pub fn delete<K: Key, V: Stored>(&self, keyspace: &Keyspace<K, V>, key: &K) {
        self.commit(Change::Delete(keyspace.family, encode_key(keyspace, key).into()));
    }

    /// Removes the first row.
    pub fn delete_first<K: Key + Debug, V: Stored>(&self, keyspace: &Keyspace<K, V>) {
        let (key, _) = self.first(keyspace);
        self.delete(keyspace, &key);
    }

    /// Moves the first row to another key.
    pub fn move_first<K: Key + Debug, V: Stored>(&self, keyspace: &Keyspace<K, V>, to: impl FnOnce(&mut K)) {
        let (key, value) = self.first(keyspace);
        self.delete(keyspace, &key);
        let mut key = key;
        to(&mut key);
        self.put(keyspace, &key, &value);
    }

    /// Changes the first row.
    pub fn change_first<K: Key + Debug, V: Stored>(
        &self,
        keyspace: &Keyspace<K, V>,
        change: impl FnOnce(&mut V),
    ) {
        let (key, mut value) = self.first(keyspace);
        change(&mut value);
        self.put(keyspace, &key, &value);
    }

    fn commit(&self, change: Change) {
        self.0.commit(&[change], Durability::Commit).unwrap();
    }
}
