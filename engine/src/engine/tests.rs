//! The door itself: who waits, who is woken, what is opened.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    task::Wake,
};

use super::*;
use crate::{
    fixture::observed::{Observed, Observer},
    store::{Change, Memory},
    stream::Woken,
};

/// Longer than any machine takes for what is waited for here.
const LONG: Duration = Duration::from_secs(60);

/// How often a command had to wait for longer than a moment.
static WAITS: AtomicU64 = AtomicU64::new(0);

/// Is at it until it is told to end.
struct Long(Mutex<Receiver<()>>);

impl Command for Long {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().name("here.example")
    }

    fn run(&self, _tx: &mut Tx) -> Result<()> {
        self.0.lock().recv().expect("it is told");
        Ok(())
    }
}

#[test]
fn who_waits_for_another_command_lets_the_host_know() {
    let mut options = Options::new("here.example");
    options.wait = |work| {
        WAITS.fetch_add(1, Ordering::Relaxed);
        work();
    };
    let engine = Engine::open(Arc::new(Memory::default()), options).expect("it is empty");
    let (ends, long) = [channel(), channel()]
        .map(|(end, told)| (end, Long(Mutex::new(told))))
        .into_iter()
        .unzip::<_, _, Vec<_>, Vec<_>>();
    std::thread::scope(|scope| {
        for command in long {
            scope.spawn(|| engine.write(command).wait().expect("nothing is written"));
        }
        while WAITS.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        ends.iter().for_each(|end| end.send(()).expect("somebody is at it, or will be"));
    });
    assert_eq!(WAITS.load(Ordering::Relaxed), 1, "who found the lane free did not wait");
}

/// Commits while the gate is open.
struct Gated {
    gate: Arc<Mutex<()>>,
    /// Goes with the store.
    _store: Sender<()>,
}

impl Observer for Gated {
    fn commit(
        &self,
        store: &dyn Backend,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StorageError> {
        let _open = self.gate.lock();
        store.commit(changes, durability)
    }
}

/// Drops the engine when it is woken, and says so.
struct LastHolder {
    engine: Mutex<Option<Arc<Engine>>>,
    dropped: Mutex<Sender<std::thread::ThreadId>>,
}

impl Wake for LastHolder {
    fn wake(self: Arc<Self>) {
        drop(self.engine.lock().take());
        self.dropped.lock().send(std::thread::current().id()).expect("the test waits for it");
    }
}

#[test]
fn a_waker_that_drops_the_engine_stops_the_committer_without_waiting_for_it() {
    let (gate, (alive, gone)) = (Arc::new(Mutex::new(())), channel());
    let observer = Gated { gate: gate.clone(), _store: alive };
    let store = Arc::new(Observed { store: Arc::new(Memory::default()), observer });
    let engine = Arc::new(Engine::open(store, Options::new("here.example")).expect("it is empty"));
    let closed = gate.lock();
    let write = crate::fixture::Act(|tx: &mut Tx| Ok(tx.intern_text("a name")?));
    let mut first = engine.write(write);
    let (dropped, told) = channel();
    let holder = Arc::new(LastHolder { engine: Mutex::new(Some(engine)), dropped: Mutex::new(dropped) });
    let waker = std::task::Waker::from(holder);
    assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(closed);
    let by = told.recv_timeout(LONG).expect("the engine is dropped");
    assert_ne!(by, std::thread::current().id(), "it was the committer");
    first.wait().expect("it is on disk");
    assert_eq!(gone.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected), "the store is closed");
}

#[test]
fn who_waits_is_told_that_the_engine_is_gone() {
    let engine =
        Engine::open(Arc::new(Memory::default()), Options::new("here.example")).expect("it is empty");
    let (user, pos) = (UserNum(1), engine.position());
    engine.shared.watch.activate(user, Vec::new(), || (pos, pos));
    assert_eq!(engine.wait_for(user, pos).block_for(Duration::ZERO), None, "there is no news");
    let (wait, outgoing) = (engine.wait_for(user, pos), engine.outgoing_news());
    std::thread::scope(|scope| {
        let woken = scope.spawn(|| wait.block());
        drop(engine);
        assert_eq!(woken.join().expect("it is woken"), Woken::Ended);
    });
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(std::pin::pin!(outgoing).poll(&mut context).is_ready());
}

#[cfg(feature = "rocksdb")]
#[test]
fn the_caches_take_their_share_of_the_budget_unless_something_else_is_said() {
    const BUDGET: usize = 40 << 20;
    for (said, expected) in [(None, BUDGET / 10), (Some(1 << 20), 1 << 20)] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options::new("here.example");
        options.cache_bytes = said;
        let engine = Engine::open_embedded(folder.path(), BUDGET, options).expect("it is empty");
        assert_eq!(engine.shared.events.weight_max() + engine.shared.nodes.weight_max(), expected);
    }
}

#[cfg(feature = "rocksdb")]
#[test]
fn no_files_are_made_for_a_name_that_no_server_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let refused = Engine::open_embedded(&path, 8 << 20, Options::new("https://example.org")).err();
    assert!(matches!(refused, Some(Error::Invalid(_))));
    assert!(!path.exists());
    drop(Engine::open_embedded(&path, 8 << 20, Options::new("example.org")).expect("it is empty"));
    let other = Engine::open_embedded(&path, 8 << 20, Options::new("example.net")).err();
    assert!(matches!(other, Some(Error::Storage(StorageError::OtherServer(name))) if name == "example.org"));
}
