//! The one door: only this file begins, commits, retries and publishes.
//!
//! A write runs a command under its lanes: reads of the latest state, pure decisions, one batch. Staging the batch
//! assigns its positions and makes it visible to the commands after it; the committer writes all that is staged with
//! one sync, publishes, and wakes. Invariant: what is published is on disk, and the published position has no holes.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

use crate::{
    account::{Erasures, SessionCache},
    command::{Command, Lanes, outsiders::Outsiders},
    core::{
        event::KeyPair,
        num::{EventNum, NodeId, StreamPos, UserNum},
    },
    error::{Error, Result},
    open::{self, Skipped},
    outbox::{Admissions, OutgoingNews, Reminders, Waiting},
    remote::{NeverTrusted, ServerKey},
    room::{Event, Freed, StateNode, purge, servers::AccessDecisions},
    store::{Backend, Base, Cache, Durability, Interner, Overlay, Read, Reader, StorageError, Tx},
    stream::{self, Touch, Wait, Watch},
    view::{View, federation::PartialRooms},
};

mod commit;

use commit::{Queue, Ticket};

/// The time, from outside.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// Randomness, from outside; must be fit for secrets in production.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}

/// The system's randomness.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness no token or key may be made; there is nothing to go on with.
        getrandom::fill(bytes).expect("the operating system has no randomness");
    }
}

/// Who runs the committer.
///
/// Whoever commits also runs the wakers of those who wait ([`Wait`], [`Pending`], [`OutgoingNews`]). A waker must neither block
/// nor wait for a write; that it drops the engine does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Committer {
    /// A thread of its own, so that writes at the same time share one sync. Where the disk is fast, whoever writes after a pause
    /// commits at once, on their own thread.
    Thread,
    /// Whoever writes commits at once: for simulation, where no thread may run by itself.
    Inline,
}

/// How an engine is opened. Made by [`Options::new`], and changed from there.
#[non_exhaustive]
pub struct Options {
    /// The server's name, the part behind the colon in user ids: `example.org`, or with a port `example.org:8448`. Fixed for the
    /// life of a database.
    pub server_name: String,
    /// Whether a database is made where there is none.
    pub create: bool,
    /// Whether an acknowledged write is on disk.
    pub durability: Durability,
    /// Bytes for the engine's own caches, beside what the backend takes. `None`: a tenth of the memory budget of
    /// [`Engine::open_embedded`]; 64 MiB for [`Engine::open`], which is told no budget.
    pub cache_bytes: Option<usize>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Who commits.
    pub committer: Committer,
    /// Signing keys that are never trusted: `server:ed25519:abc`, or of every server `ed25519:abc`.
    pub never_trust_keys: Vec<String>,
    /// Keys with which a server of this name signed before, beside those that the database has. They are old, whatever is said of that, and
    /// published.
    pub old_signing_keys: Vec<ServerKey>,
    /// Whether other servers are told what users call their devices.
    pub device_names_over_federation: bool,
    /// Whether this server signs events as the policy server of rooms that name it, with a key that is made when it first does.
    pub is_policy_server: bool,
    /// Ids of rooms whose moderation policy lists say what it does not sign. One that this server is not in says nothing.
    pub policy_lists: Vec<String>,
    /// Runs what may wait for another command for longer than a moment, long looks, and the rounds of a purge. A host whose threads have other
    /// work to do gives that away here, as `tokio::task::block_in_place` does; it must run the work once, on the same thread.
    pub wait: fn(&mut dyn FnMut()),
}

impl Options {
    /// Made if need be, durable, on the system's clock and randomness, with caches as the memory budget says and a committer thread.
    pub fn new(server_name: impl Into<String>) -> Self {
        Self {
            server_name: server_name.into(),
            create: true,
            durability: Durability::Commit,
            cache_bytes: None,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            committer: Committer::Thread,
            never_trust_keys: Vec::new(),
            old_signing_keys: Vec::new(),
            device_names_over_federation: false,
            is_policy_server: false,
            policy_lists: Vec::new(),
            wait: |work| work(),
        }
    }
}

/// A moment of the store, and the last position in it.
pub(crate) struct Published {
    pub moment: Arc<dyn Read>,
    pub pos: StreamPos,
}

/// Numbers given out so far; each starts anew from a reserved mark when the database is opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub events: AtomicU64,
    pub nodes: AtomicU64,
}

/// What commands, views and the committer share.
pub(crate) struct Shared {
    pub server_name: Arc<str>,
    pub key_pair: KeyPair,
    pub never_trusted: NeverTrusted,
    /// Keys with which this server signed before, as its operator says.
    pub old_signing_keys: Vec<ServerKey>,
    /// Whether other servers are told what users call their devices.
    pub device_names_over_federation: bool,
    /// What this server signs with as a policy server, if it is one.
    pub policy_key: Option<KeyPair>,
    /// Ids of rooms whose moderation policy lists it goes by then.
    pub policy_lists: Vec<String>,
    /// Positions that this database never gave out.
    pub skipped: Skipped,
    /// Whether a client came with one that it never gave out: it may be restored from a copy.
    pub may_be_restored: AtomicBool,
    pub backend: Arc<dyn Backend>,
    pub durability: Durability,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub interner: Interner,
    pub counters: Counters,
    pub events: Cache<EventNum, Event>,
    pub nodes: Cache<NodeId, StateNode>,
    /// What state resolution made of which snapshots.
    pub resolved: Cache<Vec<NodeId>, NodeId>,
    /// Which event of a state names the policy server.
    pub policy_events: Cache<NodeId, Option<EventNum>>,
    /// Which servers access lists let take part.
    pub access_decisions: AccessDecisions,
    pub watch: Arc<Watch>,
    pub sessions: SessionCache,
    /// Who is to be forgotten.
    pub erasures: Erasures,
    /// The servers for which something may be waiting.
    pub outbox: Waiting,
    /// Which servers were told again lately that this one has left a room.
    pub reminders: Reminders,
    /// Which rooms' servers were told again lately of what was said here while they refused it.
    pub admissions: Admissions,
    /// How much was stored that servers have sent of rooms in which they have no user.
    pub outsiders: Outsiders,
    pub memo: crate::view::Memo,
    /// How often a batch was staged that wrote events anew.
    rewrites: AtomicU64,
    overlay: Arc<Overlay>,
    published: RwLock<Arc<Published>>,
    lanes: Vec<Mutex<()>>,
    queue: Queue,
    committer: Committer,
    pub(crate) wait: fn(&mut dyn FnMut()),
}

/// Bytes for the engine's own caches where neither they nor a budget are given.
const CACHE_BYTES: usize = 64 << 20;
/// The part of a memory budget that the engine's own caches take; the store takes 40 (see `store/backend/rocks.rs`), and what is
/// left is for whoever embeds the engine and for the allocator.
#[cfg(feature = "rocksdb")]
const CACHES_SHARE_PERCENT: usize = 10;

/// Bytes for remembered resolutions: some thousands. The forks of a room's recent past come again and again, older ones
/// hardly ever.
const RESOLVED_BYTES_MAX: usize = 1 << 20;

/// Bytes for what is remembered of states: which event names a policy server. It does for ten thousand busy rooms.
const POLICY_EVENTS_BYTES_MAX: usize = 1 << 20;

/// Bytes for what is remembered of access lists: whom they let take part. It does for some ten thousand servers and rooms.
const ACCESS_DECISIONS_BYTES_MAX: usize = 1 << 20;

/// Two commands wait for each other only if they share a lane; 1,024 of them make that rare by accident.
const LANES: usize = 1024;
/// How long a lane is waited for where it was asked for: ordinary commands hold one for some tens of microseconds, for which
/// changing threads would cost more than it saves.
const LANE_WAIT_BRIEF: Duration = Duration::from_millis(2);

/// A Matrix server's rooms, state, streams and accounts on a store. Cheap to share behind an `Arc`.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Opens the engine on `backend`, and makes an empty one the database of the server that the options name. A database is never
    /// migrated: one that was written with another schema, older or newer, is refused.
    ///
    /// Errors: those that leave it untouched are [`Invalid::Identifier`](crate::Invalid::Identifier) when it is empty and the
    /// name is not a server name by the specification's grammar, [`StorageError::Foreign`] when it is not Warren's,
    /// [`StorageError::OtherSchema`], [`StorageError::OtherServer`] when it was made for another name, and
    /// [`StorageError::Absent`] when there is none and none is to be made;
    /// [`StorageError::Corrupt`] when what every database has cannot be read; [`StorageError::Io`] when the store fails or the
    /// committer's thread cannot be started.
    pub fn open(backend: Arc<dyn Backend>, options: Options) -> Result<Self> {
        let prepared = open::prepare(&*backend, &options)?;
        let moment = backend.snapshot();
        let cache_bytes = options.cache_bytes.unwrap_or(CACHE_BYTES);
        let shared = Arc::new(Shared {
            server_name: options.server_name.as_str().into(),
            key_pair: prepared.key_pair,
            never_trusted: NeverTrusted::new(options.never_trust_keys),
            old_signing_keys: options.old_signing_keys,
            device_names_over_federation: options.device_names_over_federation,
            policy_key: prepared.policy_key,
            policy_lists: options.policy_lists,
            backend: backend.clone(),
            durability: options.durability,
            clock: options.clock,
            random: options.random,
            interner: Interner::new(prepared.next_names),
            counters: prepared.counters,
            skipped: prepared.skipped,
            may_be_restored: AtomicBool::new(false),
            events: Cache::new(cache_bytes / 4 * 3),
            nodes: Cache::new(cache_bytes / 4),
            resolved: Cache::new(RESOLVED_BYTES_MAX),
            policy_events: Cache::new(POLICY_EVENTS_BYTES_MAX),
            access_decisions: Cache::new(ACCESS_DECISIONS_BYTES_MAX),
            watch: Arc::new(Watch::new(prepared.pos)),
            sessions: SessionCache::default(),
            erasures: Erasures::default(),
            outbox: Waiting::default(),
            reminders: Reminders::default(),
            admissions: Admissions::default(),
            outsiders: Outsiders::default(),
            memo: crate::view::Memo::default(),
            rewrites: AtomicU64::new(0),
            overlay: Arc::default(),
            published: RwLock::new(Arc::new(Published { moment, pos: prepared.pos })),
            lanes: (0..LANES).map(|_| Mutex::new(())).collect(),
            queue: Queue::new(prepared.pos, prepared.reserved),
            committer: options.committer,
            wait: options.wait,
        });
        shared.erasures.load(&shared.reader())?;
        stream::mark_partial_rooms(&shared.reader())?;
        let thread = match options.committer {
            Committer::Inline => None,
            Committer::Thread => Some(commit::spawn(shared.clone()).map_err(StorageError::from)?),
        };
        Ok(Self { shared, thread })
    }

    /// Opens the engine on RocksDB in `path`, which is made if it is not there and the options do not forbid it.
    ///
    /// `memory_budget` is in bytes. Caches fill half of it: the store's two fifths, with what it has not written to files yet, and
    /// the engine's own a tenth, unless [`Options::cache_bytes`] says something else. The other half is for what is under way:
    /// commands, answers, snapshots, the allocator.
    ///
    /// Errors: as [`Engine::open`]; [`StorageError::InUse`] when another process, or another engine of this one, has it open.
    /// [`StorageError::Foreign`] also when the folder holds a RocksDB database of something else. [`StorageError::Incomplete`] when a part of
    /// it is missing.
    #[cfg(feature = "rocksdb")]
    pub fn open_embedded(path: &std::path::Path, memory_budget: usize, mut options: Options) -> Result<Self> {
        use crate::store::Rocks;

        // Looked at first without writing: opening a database that must be left alone would already change its files, and a name
        // that none may be made for is to leave no files behind.
        match Rocks::peek(path)? {
            Some(database) => {
                open::is_ours(&database, &options)?;
            }
            None if Rocks::is_in(path)? => {}
            None if !options.create => return Err(StorageError::Absent.into()),
            None => open::check_name(&options.server_name)?,
        }
        let share = memory_budget * CACHES_SHARE_PERCENT / 100;
        options.cache_bytes = options.cache_bytes.or(Some(share));
        Self::open(Arc::new(Rocks::open(path, memory_budget)?), options)
    }

    /// Runs a command. The decision is made before this returns; the future is ready when it is on disk.
    ///
    /// It may block: the decision reads from the disk what is in no cache, and waits for other commands on the same room, user or
    /// name ([`Options::wait`]). It may also run the commit, sync included, on the caller's thread: always with
    /// [`Committer::Inline`]; with [`Committer::Thread`] for who writes after a pause or alone, as long as the last
    /// commit took no longer than a millisecond. An async host that must not stand still for a disk that suddenly is slow calls it where
    /// blocking is allowed: `tokio::task::block_in_place`, or `spawn_blocking`.
    ///
    /// Errors: the command's own; [`StorageError`] when it is not known to be written. It is then not there, but may be
    /// after a failing disk's restart, or once a store that could not even be read answers again: a command that is to
    /// happen once carries a transaction id, by which it is found when it is tried again.
    pub fn write<C: Command>(&self, command: C) -> Pending<C::Output> {
        let lanes = command.lanes();
        loop {
            let held = self.shared.hold(&lanes);
            let epoch = self.shared.queue.epoch();
            let mut tx = Tx::new(self.shared.latest());
            let output = match command.run(&mut tx) {
                Ok(output) => output,
                Err(error) => {
                    self.shared.interner.release(&tx.names);
                    return Pending { output: Some(Err(error)), ticket: None };
                }
            };
            let staged = self.shared.stage(tx, epoch);
            drop(held);
            match staged {
                Some(staged) => {
                    if staged.leads {
                        self.shared.commit_staged();
                    }
                    return Pending { output: Some(Ok(output)), ticket: Some(staged.ticket) };
                }
                // A write that this decision may have built on has failed meanwhile: decide anew.
                None => continue,
            }
        }
    }

    /// Answers a question from the published moment. It may block: what is in no cache is read from the disk. Most views read a few
    /// rows; those that say `O(…)` of something large belong where an async host lets work block.
    ///
    /// Errors: the view's own; [`StorageError`].
    pub fn read<V: View>(&self, view: &V) -> Result<V::Output> {
        view.read(&self.shared.reader())
    }

    /// The last published position.
    pub fn position(&self) -> StreamPos {
        self.shared.published_pos()
    }

    /// A wait for anything new for a user after `since`; see [`Wait`]. Spurious readiness is possible, and immediate for who is not
    /// known, or whom no [`Sync`](crate::view::Sync) has made active.
    pub fn wait(&self, user_id: &str, since: StreamPos) -> Wait {
        let user = self.shared.reader().user_num(user_id).ok().flatten();
        self.wait_for(user.unwrap_or_default(), since)
    }

    /// The same for who has the user's number, as a [session](crate::account::Session) does.
    pub fn wait_for(&self, user: UserNum, since: StreamPos) -> Wait {
        self.shared.watch.wait(user, since)
    }

    /// A wait until there may be something for other servers that was not there at the last look
    /// ([`crate::view::federation::DueDestinations`]). For one waiter; spurious readiness is possible.
    pub fn outgoing_news(&self) -> OutgoingNews {
        OutgoingNews(self.shared.clone())
    }

    /// The server's name.
    pub fn server_name(&self) -> &str {
        &self.shared.server_name
    }

    /// The key that this server signs with.
    pub fn key_pair(&self) -> &KeyPair {
        &self.shared.key_pair
    }

    /// The key that this server signs with as a policy server; nothing if it is none. It is in no list of its signing keys: what it signs
    /// with it neither sends nor asks.
    pub fn policy_key(&self) -> Option<&KeyPair> {
        self.shared.policy_key.as_ref()
    }

    /// Milliseconds since the Unix epoch, by the engine's clock.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// A text of `chars` random characters of the URL-safe Base64 alphabet, six bits each.
    pub fn random_text(&self, chars: usize) -> String {
        self.shared.reader().random_text(chars)
    }

    /// Gives the disk back what a purge has freed. Takes as long as it takes to write anew what else lies there; reads
    /// and writes go on meanwhile. What it does not reach, the store's own compactions free in time.
    ///
    /// Errors: [`StorageError`].
    pub fn free_disk(&self, freed: &Freed) -> Result<()> {
        for (family, start, end) in purge::ranges(freed) {
            self.shared.backend.compact(family, &start, Some(&end))?;
        }
        // The log of what was removed goes when nothing else that is in it is only in memory.
        Ok(self.shared.backend.flush()?)
    }

    /// Whether the store takes writes, as far as is known: the last one that came to it succeeded, or none has come.
    /// While it does not, [`TryStore`](crate::command::TryStore) finds out whether it does again.
    pub fn takes_writes(&self) -> bool {
        self.shared.queue.takes_writes()
    }

    /// Whether a commit fell with a fault of the engine's own: every write fails from then on, until the engine is opened anew.
    pub fn has_fallen(&self) -> bool {
        self.shared.queue.has_fallen()
    }

    /// Runs what takes longer than a moment where the host lets work wait.
    pub(crate) fn run_apart(&self, work: &mut dyn FnMut()) {
        (self.shared.wait)(work);
    }

    /// Bytes of the store's log, at least, that could not be read when it was opened: what was written from there on is lost. A
    /// power cut, the end of the process by force, and a disk or quota that is full leave some where they stopped a write, which was
    /// not acknowledged then; a damaged disk, anywhere.
    pub fn unreadable_bytes(&self) -> u64 {
        self.shared.backend.unreadable_bytes()
    }

    /// Figures for the metrics, by name.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        let mut figures = self.shared.backend.figures();
        figures.push(("commits_failed", self.shared.queue.epoch()));
        figures.push(("stream_position", self.position().0.max(0) as u64));
        let (waiting, backing_off) = self.shared.outbox.figures(self.now_ms());
        figures.push(("destinations_waiting", waiting as u64));
        figures.push(("destinations_backing_off", backing_off as u64));
        if let Ok(rooms) = self.read(&PartialRooms) {
            let lacking = rooms.iter().filter(|room| !room.is_left).map(|room| &room.room_id);
            figures.push(("rooms_with_partial_state", lacking.collect::<BTreeSet<_>>().len() as u64));
        }
        figures
    }
}

impl Drop for Engine {
    /// Commits what is staged, closes the store when nobody reads from it any more, and wakes all who wait. A waker may drop the last
    /// engine: the thread that runs it then goes on without it, and commits the rest afterwards.
    fn drop(&mut self) {
        self.shared.queue.close();
        let own = std::thread::current().id();
        // The committer cannot wait for itself. It ends when nothing is staged any more.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != own) {
            // If it has fallen, whoever waited knows.
            let _ = thread.join();
        }
        self.shared.watch.close();
        self.shared.outbox.wake();
    }
}

impl Shared {
    /// A key with which this server signed before, as its operator says.
    pub fn named_old_key(&self, key_id: &str) -> Option<&ServerKey> {
        self.old_signing_keys.iter().find(|key| key.key_id == key_id)
    }

    /// A reader of the published moment.
    pub fn reader(self: &Arc<Self>) -> Reader {
        // Before the moment: what is written anew after it must not be taken for its.
        let rewrites = self.rewrites();
        let published = self.published.read().clone();
        Reader::new(Base::Moment(published.moment.clone()), published.pos, self.clone(), rewrites)
    }

    /// How often a batch was staged that wrote events anew.
    pub fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Acquire)
    }

    /// The last published position.
    pub fn published_pos(&self) -> StreamPos {
        self.published.read().pos
    }

    /// The last position given out; it may not be published yet.
    pub fn given_out_pos(&self) -> StreamPos {
        self.queue.given_out_pos()
    }

    fn latest(self: &Arc<Self>) -> Reader {
        let base = Base::Latest(self.backend.clone(), self.overlay.clone());
        Reader::new(base, StreamPos::MAX, self.clone(), self.rewrites())
    }

    fn hold(&self, lanes: &Lanes) -> Vec<parking_lot::MutexGuard<'_, ()>> {
        // In ascending order, each once, so that no two commands can wait for each other in a circle.
        let mut wanted: Vec<usize> = lanes.hashes().map(|hash| hash as usize % LANES).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut held = Vec::with_capacity(wanted.len());
        let mut lanes = wanted.into_iter().filter_map(|lane| self.lanes.get(lane));
        while let Some(lane) = lanes.next() {
            if let Some(guard) = lane.try_lock_for(LANE_WAIT_BRIEF) {
                held.push(guard);
                continue;
            }
            let mut rest = std::iter::once(lane).chain(lanes.by_ref());
            (self.wait)(&mut || held.extend(rest.by_ref().map(Mutex::lock)));
            // Nothing is left, unless the host did not do as it was told.
            held.extend(rest.map(Mutex::lock));
        }
        held
    }
}

/// A write that is decided and on its way to the disk, or refused. It is committed whether or not somebody waits for it.
#[must_use = "a refusal or a failing disk is told only to who waits for the write: await it, `.wait()`, or `drop` it on purpose"]
pub struct Pending<T> {
    output: Option<Result<T>>,
    ticket: Option<Arc<Ticket>>,
}

impl<T> Pending<T> {
    /// Blocks until it is on disk.
    pub fn wait(mut self) -> Result<T> {
        let committed = self.ticket.as_ref().map_or(Ok(()), |ticket| ticket.wait());
        self.finish(committed)
    }

    /// Why the command was refused, if it was. Waits for nothing.
    pub fn refusal(&self) -> Option<&Error> {
        self.output.as_ref()?.as_ref().err()
    }

    fn finish(&mut self, committed: Result<(), StorageError>) -> Result<T> {
        let output = self.output.take().unwrap_or(Err(Error::Storage(StorageError::Abandoned)));
        committed?;
        output
    }
}

impl<T> Unpin for Pending<T> {}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let committed = match &self.ticket {
            None => Ok(()),
            Some(ticket) => match ticket.poll(context) {
                Poll::Ready(committed) => committed,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(self.finish(committed))
    }
}

/// What was touched by a batch that is on its way.
pub(crate) type Touches = Vec<Touch>;

/// The next number of a counter.
pub(crate) fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
