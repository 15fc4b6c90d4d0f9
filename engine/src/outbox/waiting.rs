//! The servers for which something may be waiting: only in memory, made anew when the engine is opened.
//!
//! Invariant: a server that is not here has nothing to be sent, as far as the stream has been looked through
//! (`dispatched_to`); so an idle one costs nothing. What is here may have nothing after all, which the look shows.
//! News is noted before its batch is published and handed on by a reader that sees it, so that no news is looked for
//! too early and then forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use crate::{
    core::num::{RoomNum, StreamPos, TextNum, UserNum},
    stream::{Outgoing, Touch},
};

/// How much that is soon stale is kept for one server until it goes out: some 100 KiB. What comes beyond is not told.
const EPHEMERAL_MAX: usize = 1_000;

/// Something that is told once, as it is when it is told, and is lost when the server cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ephemeral {
    /// Whether a user types in a room.
    Typing(RoomNum, UserNum, bool),
    /// How far a user has read a room, or a thread of it.
    Receipt(RoomNum, UserNum, TextNum),
    /// How present a user is.
    Presence(UserNum),
}

impl Ephemeral {
    /// What a later one of the same replaces.
    fn subject(self) -> Self {
        match self {
            Self::Typing(room, user, _) => Self::Typing(room, user, false),
            other => other,
        }
    }
}

/// What may be waiting for one server.
#[derive(Debug, Default)]
struct Pending {
    /// The rooms with events for it, and the position of the last.
    rooms: BTreeMap<RoomNum, StreamPos>,
    /// Whether those of before the start are still to be looked for.
    is_unknown: bool,
    /// Up to where there may be something in its queue.
    queued: StreamPos,
    /// What is soon stale, by what it is about.
    ephemeral: BTreeMap<Ephemeral, Ephemeral>,
    /// When it may be tried, in milliseconds since the epoch.
    due_ms: u64,
    /// Whether somebody is at it.
    taken: bool,
}

impl Pending {
    fn is_idle(&self) -> bool {
        !self.is_unknown
            && self.rooms.is_empty()
            && self.queued == StreamPos::ZERO
            && self.ephemeral.is_empty()
    }
}

#[derive(Default)]
struct Inner {
    /// What was noted and not handed on yet.
    news: Vec<(StreamPos, Outgoing)>,
    /// All news up to here was handed on.
    dispatched_to: StreamPos,
    /// Whether somebody asks for what is waiting. Else news is not kept.
    is_listened: bool,
    /// Whether the servers that may have had something waiting when the engine was opened are here.
    loaded: bool,
    servers: HashMap<TextNum, Pending>,
    /// Whether something was published since somebody last waited.
    awake: bool,
    waker: Option<Waker>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Inner>);

impl Waiting {
    /// Notes what a batch is to send, and whose presence it changed; `pos` is its last position. To be called before it is
    /// published. Answers whether there was anything, and so whether to call [`Waiting::published`] afterwards.
    pub fn note(&self, pos: StreamPos, touches: &[Touch], present: &[UserNum]) -> bool {
        let mut news = touches
            .iter()
            .filter_map(|touch| match touch {
                Touch::Outgoing(news) => Some(*news),
                _ => None,
            })
            .chain(present.iter().map(|user| Outgoing::Presence(*user)))
            .map(|news| (pos, news));
        let Some(first) = news.next() else { return false };
        let mut inner = self.0.lock();
        inner.news.push(first);
        inner.news.extend(news);
        true
    }

    /// What was noted up to `pos` is published. Who only begins to listen finds it in the store.
    pub fn published(&self, pos: StreamPos) {
        let mut inner = self.0.lock();
        if !inner.is_listened {
            inner.news.retain(|(at, _)| *at > pos);
        }
        drop(inner);
        self.wake();
    }

    fn wake(&self) {
        let mut inner = self.0.lock();
        inner.awake = true;
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// From now on news is kept. Answers whether it was before: only a reader that is made afterwards sees everything that
    /// was not kept.
    pub fn listen(&self) -> bool {
        std::mem::replace(&mut self.0.lock().is_listened, true)
    }

    /// Whether the servers of before the start are here.
    pub fn is_loaded(&self) -> bool {
        self.0.lock().loaded
    }

    /// Takes in the servers that may have had something waiting at the start, with the times at which they may be tried.
    pub fn load(&self, servers: impl IntoIterator<Item = (TextNum, u64)>) {
        let mut inner = self.0.lock();
        inner.loaded = true;
        for (server, due_ms) in servers {
            let pending = inner.servers.entry(server).or_default();
            pending.is_unknown = true;
            pending.queued = pending.queued.max(StreamPos(1));
            pending.due_ms = due_ms;
        }
    }

    /// Takes the news that a reader at `pos` sees.
    pub fn take_news(&self, pos: StreamPos) -> Vec<(StreamPos, Outgoing)> {
        let mut inner = self.0.lock();
        let (seen, later) = std::mem::take(&mut inner.news).into_iter().partition(|(at, _)| *at <= pos);
        inner.news = later;
        seen
    }

    /// Notes that what was taken up to `pos` has been handed on.
    pub fn dispatched(&self, pos: StreamPos) {
        let mut inner = self.0.lock();
        inner.dispatched_to = inner.dispatched_to.max(pos);
    }

    /// Up to where news was handed on.
    pub fn dispatched_to(&self) -> StreamPos {
        self.0.lock().dispatched_to
    }

    /// There is an event for the server in the room.
    pub fn add_room(&self, server: TextNum, room: RoomNum, pos: StreamPos) {
        let mut inner = self.0.lock();
        let last = inner.servers.entry(server).or_default().rooms.entry(room).or_default();
        *last = (*last).max(pos);
    }

    /// There is something in the server's queue.
    pub fn add_queued(&self, server: TextNum, pos: StreamPos) {
        let mut inner = self.0.lock();
        let pending = inner.servers.entry(server).or_default();
        pending.queued = pending.queued.max(pos);
    }

    /// Something that is soon stale is for the server. While it cannot be reached, nothing is kept for it.
    pub fn add_ephemeral(&self, server: TextNum, ephemeral: Ephemeral, now_ms: u64) {
        let mut inner = self.0.lock();
        let pending = inner.servers.entry(server).or_default();
        if pending.due_ms <= now_ms && pending.ephemeral.len() < EPHEMERAL_MAX {
            pending.ephemeral.insert(ephemeral.subject(), ephemeral);
        }
    }

    /// Takes up to `limit` servers that are due and that nobody is at; and says when the next will be.
    pub fn take_due(&self, now_ms: u64, limit: usize) -> (Vec<TextNum>, Option<u64>) {
        let mut inner = self.0.lock();
        let (mut due, mut next_ms) = (Vec::new(), None);
        for (server, pending) in &mut inner.servers {
            if pending.taken || pending.is_idle() {
                continue;
            }
            if pending.due_ms > now_ms {
                next_ms = Some(next_ms.map_or(pending.due_ms, |next: u64| next.min(pending.due_ms)));
            } else if due.len() < limit {
                pending.taken = true;
                due.push(*server);
            } else {
                next_ms = Some(now_ms);
            }
        }
        due.sort_unstable();
        (due, next_ms)
    }

    /// The rooms in which there may be events for the server; `None` if they have to be looked for.
    pub fn rooms(&self, server: TextNum) -> Option<BTreeMap<RoomNum, StreamPos>> {
        match self.0.lock().servers.get(&server) {
            Some(pending) => (!pending.is_unknown).then(|| pending.rooms.clone()),
            None => Some(BTreeMap::new()),
        }
    }

    /// Takes in what was found in the store for a server whose rooms were not known. What came meanwhile is here already.
    pub fn found_rooms(&self, server: TextNum, found: BTreeMap<RoomNum, StreamPos>) {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return };
        pending.is_unknown = false;
        for (room, pos) in found {
            let last = pending.rooms.entry(room).or_default();
            *last = (*last).max(pos);
        }
    }

    /// Takes what is soon stale, at most `limit`.
    pub fn take_ephemeral(&self, server: TextNum, limit: usize) -> Vec<Ephemeral> {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((_, ephemeral)) = pending.ephemeral.pop_first()
        {
            taken.push(ephemeral);
        }
        taken
    }

    /// Notes that all events for the server up to `pos` are delivered, and with `all` that nothing else was in its queue.
    pub fn settle(&self, server: TextNum, pos: StreamPos, all: bool) {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return };
        pending.rooms.retain(|_, last| *last > pos);
        if all && pending.queued <= pos {
            pending.queued = StreamPos::ZERO;
        }
    }

    /// Nobody is at the server any more; it may be tried again at `due_ms`. What is soon stale does not wait for that.
    pub fn leave(&self, server: TextNum, due_ms: u64, now_ms: u64) {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return };
        pending.taken = false;
        pending.due_ms = due_ms;
        if due_ms > now_ms {
            // It stays here, so that whatever comes waits with it.
            pending.ephemeral.clear();
        } else if pending.is_idle() {
            inner.servers.remove(&server);
        }
        drop(inner);
        self.wake();
    }

    /// Whether the server is left alone for now because it could not be reached.
    pub fn is_backing_off(&self, server: TextNum, now_ms: u64) -> bool {
        self.0.lock().servers.get(&server).is_some_and(|pending| !pending.taken && pending.due_ms > now_ms)
    }

    /// The server may be tried at once.
    pub fn make_due(&self, server: TextNum) {
        if let Some(pending) = self.0.lock().servers.get_mut(&server) {
            pending.due_ms = 0;
        }
        self.wake();
    }

    /// How many rooms have something for the server.
    pub fn rooms_waiting(&self, server: TextNum) -> usize {
        let inner = self.0.lock();
        inner.servers.get(&server).map_or(0, |pending| pending.rooms.len())
    }

    /// How many servers may have something waiting, and how many of them are left alone for now.
    pub fn figures(&self, now_ms: u64) -> (usize, usize) {
        let inner = self.0.lock();
        let waiting = inner.servers.values().filter(|pending| !pending.is_idle()).count();
        (waiting, inner.servers.values().filter(|pending| pending.due_ms > now_ms).count())
    }
}

/// Ready when there may be something to be sent that was not there before. For one waiter at a time.
pub struct OutgoingNews(pub(crate) Arc<crate::engine::Shared>);

impl Future for OutgoingNews {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.outbox.0.lock();
        if std::mem::take(&mut inner.awake) {
            return Poll::Ready(());
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
