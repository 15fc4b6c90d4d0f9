//! Parts of the engine by themselves, on a store in memory: what the processor does for a send, for a sync with something new,
//! and for the canonical form of an event.

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use warren_engine::command::{CreateRoom, Register, SendEvent};
use warren_engine::core::filter::Filter;
use warren_engine::core::json::{Limits, Strictness, canonical, parse};
use warren_engine::store::Memory;
use warren_engine::view::{Sync, SyncToken};
use warren_engine::{Committer, Engine, Options};

/// The version of the rooms.
const ROOM_VERSION: &str = "11";
/// Sends into one room, which is then made anew: what is measured does not fill the memory.
const SENDS: u64 = 100;
/// Rooms of who syncs. What is new is in one of them.
const ROOMS: [usize; 3] = [1, 100, 1_000];
/// Members of an event's content: a message has a few, and the power levels of a large room many.
const MEMBERS: [usize; 2] = [4, 1_000];

/// An engine with one user, who is alone in some rooms.
struct Scene {
    engine: Engine,
    user_id: String,
    rooms: Vec<String>,
}

impl Scene {
    fn new(rooms: usize) -> Scene {
        let mut options = Options::new("here.example");
        options.committer = Committer::Inline;
        let engine = Engine::open(Arc::new(Memory::new()), options).expect("an empty store can be opened");
        let register = Register { localpart: "alice".to_owned(), ..Register::default() };
        let user_id = engine.write(register).wait().expect("a new account").user_id;
        let create = |_| {
            let create = CreateRoom::new(user_id.clone(), ROOM_VERSION);
            engine.write(create).wait().expect("a new room")
        };
        let rooms = (0..rooms).map(create).collect();
        Scene { engine, user_id, rooms }
    }

    /// Sends into the first room: a message or, with a state key, a topic.
    fn send(&self, state_key: Option<&str>) {
        let room_id = self.rooms.first().expect("a room");
        let mut event = SendEvent::message(room_id, &self.user_id, content(state_key));
        if let Some(state_key) = state_key {
            (event.kind, event.state_key) = ("m.room.topic".to_owned(), Some(state_key.to_owned()));
        }
        self.engine.write(event).wait().expect("the user may send");
    }

    /// The token of a client that has everything.
    fn token(&self) -> SyncToken {
        let pos = self.engine.position();
        SyncToken { pos, to_device: pos }
    }

    /// What is new since then.
    fn sync(&self, since: SyncToken) -> Vec<u8> {
        let sync = Sync {
            user_id: self.user_id.clone(),
            device_id: None,
            since: Some(since),
            filter: Arc::new(Filter::default()),
            full_state: false,
            state_after: None,
            waits: false,
        };
        self.engine.read(&sync).expect("an answer").body
    }
}

fn content(state_key: Option<&str>) -> Map<String, Value> {
    let text = "The quick brown fox jumps over the lazy dog.";
    let content = match state_key {
        Some(_) => json!({"topic": text}),
        None => json!({"msgtype": "m.text", "body": text}),
    };
    content.as_object().cloned().unwrap_or_default()
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.sample_size(10).throughput(Throughput::Elements(SENDS));
    for (name, state_key) in [("message", None), ("state", Some(""))] {
        group.bench_function(name, |bencher| {
            let sends = |scene: &mut Scene| (0..SENDS).for_each(|_| scene.send(state_key));
            bencher.iter_batched_ref(|| Scene::new(1), sends, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn incremental_sync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("incremental-sync");
    group.sample_size(10);
    for rooms in ROOMS {
        let scene = Scene::new(rooms);
        // From the first on, the engine keeps at hand what concerns the user.
        scene.sync(scene.token());
        group.bench_function(BenchmarkId::new("nothing", rooms), |bencher| {
            let since = scene.token();
            bencher.iter(|| scene.sync(since));
        });
        group.bench_function(BenchmarkId::new("message", rooms), |bencher| {
            let news = || {
                let since = scene.token();
                scene.send(None);
                since
            };
            bencher.iter_batched(news, |since| scene.sync(since), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// An event whose content has so many members, as another server may write it.
fn event(members: usize) -> Vec<u8> {
    let users: Map<String, Value> =
        (0..members).rev().map(|number| (format!("@user{number}:there.example"), json!(number))).collect();
    let event = json!({
        "type": "m.room.power_levels",
        "sender": "@alice:there.example",
        "room_id": "!room:there.example",
        "origin_server_ts": 1_600_000_000_000_u64,
        "content": {"users": users, "reason": "\u{fc}ber \"alles\"\n"},
    });
    serde_json::to_vec_pretty(&event).expect("a value is JSON")
}

fn canonical_json(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("canonical-json");
    for members in MEMBERS {
        let text = event(members);
        let limits = Limits { bytes_max: text.len(), strictness: Strictness::Strict };
        let value = parse(&text, limits).expect("canonical numbers");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("parse", members), |bencher| {
            bencher.iter(|| parse(&text, limits));
        });
        group.throughput(Throughput::Bytes(canonical(&value).len() as u64));
        group.bench_function(BenchmarkId::new("write", members), |bencher| {
            bencher.iter(|| canonical(&value));
        });
    }
    group.finish();
}

criterion_group!(benches, append, incremental_sync, canonical_json);
criterion_main!(benches);
