//! What the engine does after commits that failed, on every backend.

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
};

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    check::Check,
    command::{SendEvent, TryStore},
    engine::{Committer, Engine, Options},
    error::{Error, Result},
    fixture::{
        Act, World,
        observed::{Observed, Observer},
    },
    store::{Backend, Change, Direction, Durability, Faults, Memory, Rocks, StorageError, Tx, schema},
};

const ROOM: &str = "!r:here.example";
const ALICE: &str = "@alice:here.example";

/// How the next commit fails.
#[derive(Clone, Copy)]
struct Failure {
    written: bool,
    /// Whether the store cannot be read from then on.
    silent: bool,
}

/// Makes one commit fail.
#[derive(Default)]
struct Failing {
    next: Mutex<Option<Failure>>,
    silent: AtomicBool,
}

impl Failing {
    fn fail_next(&self, written: bool, silent: bool) {
        *self.next.lock() = Some(Failure { written, silent });
    }

    fn answer_again(&self) {
        self.silent.store(false, Ordering::Relaxed);
    }

    fn take_again(&self) {
        *self.next.lock() = None;
        self.answer_again();
    }
}

impl Observer for Failing {
    fn reads(&self) -> Result<(), StorageError> {
        if self.silent.load(Ordering::Relaxed) { Err(StorageError::Io("silence".into())) } else { Ok(()) }
    }

    fn commit(
        &self,
        store: &dyn Backend,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StorageError> {
        self.reads()?;
        let Some(failure) = self.next.lock().take() else { return store.commit(changes, durability) };
        if failure.written {
            store.commit(changes, durability)?;
        }
        self.silent.store(failure.silent, Ordering::Relaxed);
        Err(StorageError::Io("a failure that the test asked for".into()))
    }
}

/// A room of alice's on each backend.
fn on_every_backend(test: impl Fn(&World, &Failing)) {
    let folder = tempfile::tempdir().unwrap();
    let backends: [Arc<dyn Backend>; 2] =
        [Arc::new(Memory::new()), Arc::new(Rocks::open(folder.path(), 8 << 20).unwrap())];
    for store in backends {
        let store = Arc::new(Observed { store, observer: Failing::default() });
        let world = World::on(store.clone());
        world.room(ROOM, ALICE, None);
        test(&world, &store.observer);
        let report = world.engine.read(&Check { progress: &|_, _| () }).unwrap();
        assert_eq!(report.findings, []);
    }
}

fn try_message(world: &World, body: &str) -> Result<String> {
    world.try_send(ROOM, ALICE, "m.room.message", None, &json!({"body": body}), None)
}

/// How often each body stands in the room's timeline.
fn bodies(world: &World) -> BTreeMap<String, usize> {
    world.ask(|reader| {
        let mut found = BTreeMap::new();
        let mut events = Vec::new();
        reader.scan(&schema::TIMELINE, &(), Direction::Forward, |(_, pos), event| {
            assert!(pos <= reader.pos, "an event after the published position");
            events.push(event);
            true
        })?;
        for event in events {
            let event = reader.event(event)?;
            let json: Value = serde_json::from_slice(&event.json).unwrap();
            if let Some(body) = json["content"]["body"].as_str() {
                *found.entry(body.to_owned()).or_default() += 1;
            }
        }
        Ok(found)
    })
}

fn once(names: &[&str]) -> BTreeMap<String, usize> {
    names.iter().map(|name| ((*name).to_owned(), 1)).collect()
}

#[test]
fn a_commit_that_was_written_is_acknowledged() {
    on_every_backend(|world, store| {
        let since = world.engine.position();
        store.fail_next(true, false);
        try_message(world, "one").unwrap();
        assert!(world.engine.position() > since);
        try_message(world, "two").unwrap();
        assert_eq!(bodies(world), once(&["one", "two"]));
    });
}

#[test]
fn a_commit_that_was_refused_leaves_nothing() {
    on_every_backend(|world, store| {
        let since = world.engine.position();
        store.fail_next(false, false);
        assert!(matches!(try_message(world, "one"), Err(Error::Storage(_))));
        assert_eq!(world.engine.position(), since);
        try_message(world, "two").unwrap();
        assert_eq!(bodies(world), once(&["two"]));
    });
}

#[test]
fn it_is_known_whether_writes_are_taken() {
    on_every_backend(|world, store| {
        let takes_writes = || world.engine.takes_writes();
        assert!(takes_writes());
        for silent in [false, true] {
            store.fail_next(false, silent);
            try_message(world, "lost").unwrap_err();
            assert!(!takes_writes());
            store.fail_next(false, silent);
            world.engine.write(TryStore).wait().unwrap_err();
            assert!(!takes_writes());
            store.take_again();
            world.engine.write(TryStore).wait().unwrap();
            assert!(takes_writes());
        }
        store.fail_next(true, false);
        try_message(world, "kept").unwrap();
        assert!(takes_writes());
        assert_eq!(bodies(world), once(&["kept"]));
        let failed = world.engine.figures().into_iter().find(|(name, _)| *name == "commits_failed");
        assert_eq!(failed, Some(("commits_failed", 4)));
    });
}

#[test]
fn a_commit_in_doubt_is_settled_before_the_next() {
    for written in [false, true] {
        on_every_backend(|world, store| {
            let since = world.engine.position();
            store.fail_next(written, true);
            assert!(try_message(world, "one").is_err());
            assert!(try_message(world, "two").is_err());
            assert_eq!(world.engine.position(), since);
            store.answer_again();
            try_message(world, "three").unwrap();
            assert!(world.engine.position() > since);
            let expected: &[&str] = if written { &["one", "three"] } else { &["three"] };
            assert_eq!(bodies(world), once(expected));
        });
    }
}

fn send(world: &World, number: usize) -> Result<String> {
    world.pass_ms(1);
    let send = SendEvent {
        room_id: ROOM.to_owned(),
        sender: ALICE.to_owned(),
        is_guest: false,
        kind: "m.room.message".to_owned(),
        state_key: None,
        content: json!({"body": number.to_string()}).as_object().cloned().unwrap(),
        redacts: None,
        transaction: Some(("DEVICE".to_owned(), number.to_string())),
        origin_server_ts: None,
    };
    world.engine.write(send).wait()
}

/// Notes by which thread each commit is made.
#[derive(Default)]
struct Threads(Mutex<Vec<ThreadId>>);

impl Observer for Threads {
    fn commit(
        &self,
        store: &dyn Backend,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StorageError> {
        self.0.lock().push(thread::current().id());
        store.commit(changes, durability)
    }
}

#[test]
fn who_writes_alone_comes_to_commit_too() {
    const IN_A_ROW: usize = 20;
    let store = Arc::new(Observed { store: Arc::new(Memory::new()), observer: Threads::default() });
    let engine = Engine::open(store.clone(), Options::new("here.example")).unwrap();
    let commits_itself = || {
        let threads = store.observer.0.lock();
        let own = thread::current().id();
        threads.len() >= IN_A_ROW && threads.iter().rev().take(IN_A_ROW).all(|thread| *thread == own)
    };
    // The committer may be slow to note that it has ended, and then the next write is another's for it.
    for number in 0..10_000 {
        let write = Act(|tx: &mut Tx| Ok(tx.intern_text(&number.to_string())?));
        engine.write(write).wait().unwrap();
        if commits_itself() {
            break;
        }
    }
    assert!(commits_itself());
}

/// Makes commits fall with a fault.
#[derive(Default)]
struct Falling(AtomicBool);

impl Observer for Falling {
    fn commit(
        &self,
        store: &dyn Backend,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StorageError> {
        assert!(!self.0.load(Ordering::Relaxed), "a fault that the test asked for");
        store.commit(changes, durability)
    }
}

#[test]
fn when_a_commit_falls_nobody_waits_and_nothing_is_written_any_more() {
    for committer in [Committer::Thread, Committer::Inline] {
        let store = Arc::new(Observed { store: Arc::new(Memory::new()), observer: Falling::default() });
        let options = Options { committer, ..Options::new("here.example") };
        let engine = Engine::open(store.clone(), options).unwrap();
        assert!(!engine.has_fallen());
        store.observer.0.store(true, Ordering::Relaxed);
        let write = || panic::catch_unwind(AssertUnwindSafe(|| engine.write(TryStore).wait()));
        // Whoever commits falls: the first write is the committer's, if there is one.
        match committer {
            Committer::Thread => {
                assert!(matches!(write(), Ok(Err(Error::Storage(StorageError::Abandoned)))));
            }
            Committer::Inline => assert!(write().is_err()),
        }
        store.observer.0.store(false, Ordering::Relaxed);
        assert!(matches!(write(), Ok(Err(Error::Storage(StorageError::Abandoned)))));
        // Who waited may know it before everybody does.
        while !engine.has_fallen() {
            thread::yield_now();
        }
        assert!(!engine.takes_writes());
        drop(engine);
        let engine = Engine::open(store, Options::new("here.example")).unwrap();
        engine.write(TryStore).wait().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Commits fail in every way and the power goes off now and then: what was acknowledged is there under the id that was
    /// told, nothing is there twice, and the store agrees with itself.
    #[test]
    fn what_is_acknowledged_stays_through_faults_and_crashes(
        seed in any::<u64>(),
        crash_after in proptest::collection::vec(1usize..12, 1..6),
    ) {
        let memory = Arc::new(Memory::new());
        let faults = Faults { seed, refused_one_in: 6, unknown_one_in: 6, late_one_in: 6 };
        let mut world = World::on(memory.clone());
        world.room(ROOM, ALICE, None);
        let mut told: BTreeMap<usize, String> = BTreeMap::new();
        let mut started_ms = 0;
        let mut number = 0;
        for sends in crash_after {
            memory.set_faults(faults);
            for _ in 0..sends {
                number += 1;
                // A client tries a few times, and then goes on to something else.
                let answer = (0..3).find_map(|_| send(&world, number).ok());
                told.extend(answer.map(|event_id| (number, event_id)));
            }
            drop(world);
            memory.crash();
            memory.set_faults(Faults::default());
            world = World::on(memory.clone());
            started_ms += 1_000;
            world.pass_ms(started_ms);
            let found = bodies(&world);
            prop_assert!(found.values().all(|count| *count == 1));
            for (number, event_id) in &told {
                prop_assert!(found.contains_key(&number.to_string()));
                prop_assert_eq!(&send(&world, *number).unwrap(), event_id);
            }
            let report = world.engine.read(&Check { progress: &|_, _| () }).unwrap();
            prop_assert_eq!(report.findings, []);
        }
    }
}
