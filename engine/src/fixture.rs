//! Rooms for tests: an engine in memory whose clock stands still, and users who act.

pub(crate) mod observed;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use crate::{
    Clock, Command, Committer, Engine, Lanes, Options, Random, View,
    command::{NextTransaction, Transaction},
    core::version::RoomVersion,
    error::Result,
    room::{NewEvent, RoomCtx, append},
    store::{Backend, Memory, Reader, Tx},
    view::{Sync, SyncToken, federation::DueDestinations},
};

/// The server's name.
pub(crate) const SERVER: &str = "here.example";
/// Where the clock begins.
pub(crate) const START_MS: u64 = 1_600_000_000_000;

#[derive(Default)]
struct Still(AtomicU64);

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        START_MS + self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&next.to_be_bytes()[..chunk.len()]);
        }
    }
}

/// An engine and its time.
pub(crate) struct World {
    pub engine: Engine,
    clock: Arc<Still>,
}

/// A question as a closure.
struct Ask<F>(F);

impl<T, F: Fn(&Reader) -> Result<T>> View for Ask<F> {
    type Output = T;

    fn read(&self, reader: &Reader) -> Result<T> {
        (self.0)(reader)
    }
}

/// A decision as a closure, with every lane to itself: tests run one at a time.
pub(crate) struct Act<F>(pub F);

impl<T, F: Fn(&mut Tx) -> Result<T>> Command for Act<F> {
    type Output = T;

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<T> {
        (self.0)(tx)
    }
}

impl World {
    pub fn new() -> Self {
        Self::on(Arc::new(Memory::default()))
    }

    /// On a store that may hold a world already, whose clock then begins anew.
    pub fn on(backend: Arc<dyn Backend>) -> Self {
        Self::opened(SERVER, backend)
    }

    /// A server of another name.
    pub fn named(server: &str) -> Self {
        Self::opened(server, Arc::new(Memory::default()))
    }

    /// A server that tells others what its users call their devices.
    pub fn telling_device_names() -> Self {
        let options = Options { device_names_over_federation: true, ..Options::new(SERVER) };
        Self::with(options, Arc::new(Memory::default()))
    }

    /// A policy server that goes by the lists in some rooms, on a store that may hold a world already.
    pub fn of_policies(lists: &[&str], backend: Arc<dyn Backend>) -> Self {
        let policy_lists = lists.iter().map(|room_id| (*room_id).to_owned()).collect();
        let options = Options { is_policy_server: true, policy_lists, ..Options::new(SERVER) };
        Self::with(options, backend)
    }

    fn opened(server: &str, backend: Arc<dyn Backend>) -> Self {
        Self::with(Options::new(server), backend)
    }

    fn with(mut options: Options, backend: Arc<dyn Backend>) -> Self {
        let clock = Arc::new(Still::default());
        options.clock = clock.clone();
        options.random = Arc::new(Counting::default());
        options.committer = Committer::Inline;
        Self { engine: Engine::open(backend, options).unwrap(), clock }
    }

    /// Lets time pass.
    pub fn pass_ms(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets the clock back.
    pub fn set_back_ms(&self, ms: u64) {
        self.clock.0.fetch_sub(ms, Ordering::Relaxed);
    }

    /// Asks.
    pub fn ask<T>(&self, question: impl Fn(&Reader) -> Result<T>) -> T {
        self.engine.read(&Ask(question)).unwrap()
    }

    /// Acts.
    pub fn act<T>(&self, decision: impl Fn(&mut Tx) -> Result<T>) -> Result<T> {
        self.engine.write(Act(decision)).wait()
    }

    /// Whose presence a sync of the user's tells, and how present they are; and where the next one goes on.
    pub fn presences_told_to(
        &self,
        user_id: &str,
        since: Option<SyncToken>,
    ) -> (Vec<(String, String)>, SyncToken) {
        let sync = Sync {
            user_id: user_id.into(),
            device_id: None,
            since,
            filter: Default::default(),
            full_state: false,
            state_after: None,
            waits: false,
        };
        let answer = self.engine.read(&sync).unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let events = body["presence"]["events"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let told = events.iter().map(|event| (text(&event["sender"]), text(&event["content"]["presence"])));
        (told.collect(), answer.token)
    }

    /// A room of version 10 that anybody may join, with a history visibility where one is given.
    pub fn room(&self, room_id: &str, creator: &str, visibility: Option<&str>) {
        self.create(room_id, creator, &json!({"creator": creator, "room_version": "10"}));
        if let Some(visibility) = visibility {
            let content = json!({"history_visibility": visibility});
            self.state(room_id, creator, "m.room.history_visibility", "", content);
        }
    }

    /// The same in version 1, where servers choose the ids of events.
    pub fn room_of_version_1(&self, room_id: &str, creator: &str) {
        self.create(room_id, creator, &json!({"creator": creator, "room_version": "1"}));
    }

    /// The same as a space.
    pub fn space(&self, room_id: &str, creator: &str) {
        self.create(room_id, creator, &json!({"creator": creator, "room_version": "10", "type": "m.space"}));
    }

    fn create(&self, room_id: &str, creator: &str, create: &Value) {
        let version = RoomVersion::get(create["room_version"].as_str().unwrap()).unwrap();
        self.act(|tx| {
            let mut room = RoomCtx::create(tx, room_id, version)?;
            put(tx, &mut room, creator, "m.room.create", Some(""), create.clone(), None)?;
            room.save(tx);
            Ok(())
        })
        .unwrap();
        self.join(room_id, creator);
        self.state(room_id, creator, "m.room.join_rules", "", json!({"join_rule": "public"}));
    }

    /// Sends an event, which the room's rules may refuse.
    pub fn try_send(
        &self,
        room_id: &str,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
        redacts: Option<&str>,
    ) -> Result<String> {
        self.pass_ms(1);
        self.act(|tx| {
            let mut room = RoomCtx::load(tx, room_id)?;
            let event_id = put(tx, &mut room, sender, kind, state_key, content.clone(), redacts)?;
            room.save(tx);
            Ok(event_id)
        })
    }

    pub fn send(&self, room_id: &str, sender: &str, kind: &str, content: Value) -> String {
        self.try_send(room_id, sender, kind, None, &content, None).unwrap()
    }

    pub fn state(&self, room_id: &str, sender: &str, kind: &str, state_key: &str, content: Value) -> String {
        self.try_send(room_id, sender, kind, Some(state_key), &content, None).unwrap()
    }

    pub fn message(&self, room_id: &str, sender: &str, body: &str) -> String {
        self.send(room_id, sender, "m.room.message", json!({"msgtype": "m.text", "body": body}))
    }

    /// A message that relates to another event.
    pub fn relate(
        &self,
        room_id: &str,
        sender: &str,
        rel_type: &str,
        target: &str,
        content: Value,
    ) -> String {
        let mut content = content;
        content["m.relates_to"] = json!({"rel_type": rel_type, "event_id": target});
        self.send(room_id, sender, "m.room.message", content)
    }

    pub fn redact(&self, room_id: &str, sender: &str, target: &str) -> String {
        self.try_send(room_id, sender, "m.room.redaction", None, &json!({}), Some(target)).unwrap()
    }

    /// Sets a membership.
    pub fn member(&self, room_id: &str, sender: &str, user: &str, membership: &str) -> Result<String> {
        let content = json!({"membership": membership});
        self.try_send(room_id, sender, "m.room.member", Some(user), &content, None)
    }

    pub fn join(&self, room_id: &str, user: &str) -> String {
        self.member(room_id, user, user, "join").unwrap()
    }

    pub fn leave(&self, room_id: &str, user: &str) -> String {
        self.member(room_id, user, user, "leave").unwrap()
    }

    /// What another server is sent until nothing is left, all of which it takes.
    pub fn deliver(&self, server: &str) -> Vec<Transaction> {
        // The first look after the start only begins to listen.
        for _ in 0..2 {
            self.engine.read(&DueDestinations { limit: 100, laggards_max: 100 }).unwrap();
        }
        let (mut sent, mut acknowledged) = (Vec::new(), None);
        loop {
            let next =
                NextTransaction { destination: server.into(), acknowledged, took_brief: false, begins: true };
            let Some(transaction) = self.engine.write(next).wait().unwrap().transaction else { return sent };
            acknowledged = Some(transaction.id.clone());
            sent.push(transaction);
        }
    }
}

/// Appends an event in a transaction.
pub(crate) fn put(
    tx: &mut Tx,
    room: &mut RoomCtx,
    sender: &str,
    kind: &str,
    state_key: Option<&str>,
    content: Value,
    redacts: Option<&str>,
) -> Result<String> {
    let content = content.as_object().cloned().unwrap_or_default();
    let origin_server_ts = tx.shared.clock.now_ms();
    let new = NewEvent { sender, kind, state_key, content, redacts, origin_server_ts, transaction: None };
    Ok(append(tx, room, new)?.event_id.to_string())
}
