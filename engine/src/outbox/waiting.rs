//! The servers for which something may be waiting: only in memory, made anew when the engine is opened.
//!
//! Invariant: a server that is not here has nothing to be sent, as far as the stream has been looked through
//! (`dispatched_to`); so an idle one costs nothing. What is here may have nothing after all, which the look shows.
//! News is noted before its batch is published and handed on by a reader that sees it, so that no news is looked for
//! too early and then forgotten; what could not be handed on waits for the next look, and all behind it, so that
//! `dispatched_to` passes nothing.

mod pending;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use self::pending::{Ends, Pending};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    outbox::{
        Failure, Pause,
        delivery::is_long_silent,
        ephemeral::{Ephemeral, earlier},
        missed::{Missed, Search},
    },
    stream::{Outgoing, Touch},
};

/// How much that is soon stale is kept for one server until it goes out: some 24 KiB, twice that at most. What comes beyond is
/// not told, but for receipts, which are looked for again.
const EPHEMERAL_MAX: usize = 1_000;

/// How much of that is kept in all for servers that are left alone, of which each has its share: some 12 MiB. Where this server
/// reaches nobody, and knows 50,000 others, that is 240 bytes of each.
const KEPT_MAX: usize = 500_000;

/// For how many servers the map of those for which something may be waiting keeps its memory when they are gone: half a MiB.
const ROOM_KEPT: usize = 1_000;

/// For how long a server is a laggard that failed or was slow, in milliseconds, though it is prompt again: whoever is slow at will
/// else takes everybody's places again after each answer.
const LAGGARD_MS: u64 = 10 * 60 * 1000;

/// The first events with which a server that catches up begins, and the rooms from which it fetches the rest.
pub(super) type FirstEnds = (Vec<(StreamPos, EventNum)>, Arc<BTreeSet<RoomNum>>);

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
    /// The numbers of those that somebody is at, by their names.
    visited: HashMap<Arc<str>, TextNum>,
    /// The last turn that was given.
    last_turn: u64,
    /// Servers that failed or were slow, and when they did the last time, in milliseconds since the epoch; also those for which
    /// nothing waits: sixteen bytes each.
    laggards: HashMap<TextNum, u64>,
    /// Whether something was published since somebody last waited.
    awake: bool,
    waker: Option<Waker>,
}

impl Inner {
    /// How much that is soon stale is kept for each server that is left alone.
    fn kept_max(&self) -> usize {
        (KEPT_MAX / self.laggards.len().max(1)).min(EPHEMERAL_MAX)
    }

    /// Nothing waits for the server any more. The map gives back what it grew to for many, as after a start, once few of them are
    /// left: each place is some hundreds of bytes. O(1) for each server that is removed, all together.
    fn forget(&mut self, server: TextNum) {
        self.servers.remove(&server);
        let (count, capacity) = (self.servers.len(), self.servers.capacity());
        if capacity > ROOM_KEPT && count < capacity / 8 {
            self.servers.shrink_to((2 * count).max(ROOM_KEPT / 2));
        }
    }
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

    /// Wakes who waits for news; also when there is none, and never will be.
    pub fn wake(&self) {
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
    pub fn load(&self, servers: impl IntoIterator<Item = (TextNum, Pause)>, now_ms: u64) {
        let mut inner = self.0.lock();
        inner.loaded = true;
        for (server, Pause { due_ms, failure, receipts_told_to, lacks_receipts }) in servers {
            let pending = inner.servers.entry(server).or_default();
            pending.is_unknown = true;
            pending.queued = pending.queued.max(StreamPos(1));
            (pending.due_ms, pending.said_ms, pending.failure) = (due_ms, now_ms, failure);
            pending.missed = Missed::before_start(receipts_told_to, !lacks_receipts);
            if due_ms > 0 {
                inner.laggards.insert(server, now_ms);
            }
        }
    }

    /// Takes the news that a reader at `pos` sees.
    pub fn take_news(&self, pos: StreamPos) -> Vec<(StreamPos, Outgoing)> {
        let mut inner = self.0.lock();
        let (seen, later) = std::mem::take(&mut inner.news).into_iter().partition(|(at, _)| *at <= pos);
        inner.news = later;
        seen
    }

    /// Puts back what was taken and could not be handed on, before all that came since.
    pub fn put_back_news(&self, news: impl IntoIterator<Item = (StreamPos, Outgoing)>) {
        let mut inner = self.0.lock();
        let since = std::mem::take(&mut inner.news);
        inner.news = news.into_iter().chain(since).collect();
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

    /// Something that is soon stale is for the server, and goes out with the next that does, or in `held_ms` by itself. While the
    /// server cannot be reached, what lasts is kept for it, for as long as on other servers; receipts are looked for afterwards.
    pub fn add_ephemeral(&self, server: TextNum, ephemeral: Ephemeral, now_ms: u64, held_ms: u64) {
        let mut inner = self.0.lock();
        // All that is handed on came behind that.
        let (kept_max, behind) = (inner.kept_max(), inner.dispatched_to);
        let pending = inner.servers.entry(server).or_default();
        let max = match pending.is_due(now_ms) {
            true => EPHEMERAL_MAX,
            false if ephemeral.lasts() && !is_long_silent(pending.failure.since_ms, now_ms) => kept_max,
            false => 0,
        };
        if !pending.ephemerals.add(ephemeral, behind, max, now_ms, held_ms) && ephemeral.is_receipt() {
            pending.miss(Some(behind));
        }
    }

    /// The search for receipts that the server has missed, and how many of them there is room for beside what goes out first.
    pub fn search(&self, server: TextNum, limit: usize) -> Option<(Search, usize)> {
        let mut inner = self.0.lock();
        let pending = inner.servers.get_mut(&server)?;
        let max = limit.saturating_sub(pending.ephemerals.count());
        let search = if max > 0 { pending.missed.search() } else { None };
        search.map(|search| (search, max))
    }

    /// Takes in what a search has found, and what is left of it.
    pub fn found_receipts(
        &self,
        server: TextNum,
        behind: StreamPos,
        (found, rest): (Vec<Ephemeral>, Option<Search>),
        now_ms: u64,
    ) {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return };
        if rest.is_none() && found.is_empty() && pending.missed.is_any() {
            // That it lacks nothing is noted at the next look, which is else at what it takes next.
            pending.queued = pending.queued.max(StreamPos(1));
        }
        pending.missed.goes_on(rest);
        for receipt in found {
            // What came meanwhile may have taken the last place.
            if !pending.ephemerals.add(receipt, behind, EPHEMERAL_MAX, now_ms, 0) {
                pending.miss(Some(behind));
            }
        }
    }

    /// Up to where the server was told all receipts, with those on their way if it `has_taken` them; and whether it may lack any
    /// behind that, and not the last alone, by what it `lacked` before.
    pub fn receipts_told_to(&self, server: TextNum, has_taken: bool, lacked: bool) -> (StreamPos, bool) {
        let inner = self.0.lock();
        let Some(pending) = inner.servers.get(&server) else { return (inner.dispatched_to, false) };
        let behind = earlier(pending.missed.behind(), pending.ephemerals.behind(has_taken));
        let lacks = pending.missed.is_any() || lacked && behind.is_some();
        (behind.unwrap_or(inner.dispatched_to), lacks)
    }

    /// Takes up to `limit` servers that are due and that nobody is at, first those that have been due for longest; and says when
    /// the next will be. There are never more than `laggards_max` laggards that somebody is at: the others are for later, when
    /// one of these is left.
    pub fn take_due(&self, now_ms: u64, limit: usize, laggards_max: usize) -> (Vec<TextNum>, Option<u64>) {
        let mut inner = self.0.lock();
        let Inner { servers, laggards, last_turn, .. } = &mut *inner;
        let (mut due, mut next_ms, mut laggards_taken) = (Vec::new(), None, 0);
        for (server, pending) in servers.iter() {
            if pending.taken {
                laggards_taken += usize::from(laggards.contains_key(server));
                continue;
            }
            match pending.next_ms(now_ms) {
                Some(at_ms) if at_ms > now_ms => {
                    next_ms = Some(next_ms.map_or(at_ms, |next: u64| next.min(at_ms)));
                }
                // Those that were left out before come first.
                Some(_) => due.push((pending.turn.unwrap_or(u64::MAX), pending.due_ms, *server)),
                None => {}
            }
        }
        due.sort_unstable();
        let mut taken = Vec::new();
        for (.., server) in due {
            let Some(pending) = servers.get_mut(&server) else { continue };
            if pending.turn.is_none() {
                *last_turn += 1;
                pending.turn = Some(*last_turn);
                pending.turn_ms = now_ms;
            }
            let is_laggard = laggards.contains_key(&server);
            if is_laggard && laggards_taken >= laggards_max {
                continue;
            }
            if taken.len() >= limit {
                next_ms = Some(now_ms);
                continue;
            }
            (pending.taken, pending.turn, pending.was_heard) = (true, None, false);
            laggards_taken += usize::from(is_laggard);
            taken.push(server);
        }
        taken.sort_unstable();
        (taken, next_ms)
    }

    /// When the server, which was taken, was first seen to be due, in milliseconds since the epoch; `None` if it never was.
    pub fn due_since_ms(&self, server: TextNum) -> Option<u64> {
        self.0.lock().servers.get(&server).map(|pending| pending.turn_ms).filter(|turn_ms| *turn_ms > 0)
    }

    /// The server, which was taken, has this name: whoever leaves it need not ask a store that may have failed.
    pub fn visited_as(&self, name: Arc<str>, server: TextNum) {
        self.0.lock().visited.insert(name, server);
    }

    /// The number of a server that somebody is at and is about to leave.
    pub fn end_visit(&self, name: &str) -> Option<TextNum> {
        self.0.lock().visited.remove(name)
    }

    /// The rooms in which there may be events for the server; `None` if they have to be looked for.
    pub fn rooms(&self, server: TextNum) -> Option<BTreeMap<RoomNum, StreamPos>> {
        match self.0.lock().servers.get(&server) {
            Some(pending) => (!pending.is_unknown).then(|| pending.rooms.clone()),
            None => Some(BTreeMap::new()),
        }
    }

    /// How many those are; also `None` as long as nobody has asked for what is waiting.
    pub fn rooms_waiting(&self, server: TextNum) -> Option<usize> {
        let inner = self.0.lock();
        match inner.servers.get(&server) {
            Some(pending) => (!pending.is_unknown).then_some(pending.rooms.len()),
            None => inner.loaded.then_some(0),
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

    /// Where the rooms of a server end that catches up to `until`, from `from` on, at most `limit`, with all these rooms; `None` if
    /// that has to be looked for.
    pub fn ends(
        &self,
        server: TextNum,
        until: StreamPos,
        from: StreamPos,
        limit: usize,
    ) -> Option<FirstEnds> {
        let inner = self.0.lock();
        let ends = inner.servers.get(&server)?.ends.as_ref().filter(|ends| ends.until == until)?;
        let events = ends.events.range((from, EventNum(0))..).take(limit).copied().collect();
        Some((events, ends.fetched.clone()))
    }

    /// Takes in where they end.
    pub fn found_ends(
        &self,
        server: TextNum,
        until: StreamPos,
        fetched: Arc<BTreeSet<RoomNum>>,
        events: BTreeSet<(StreamPos, EventNum)>,
    ) {
        if let Some(pending) = self.0.lock().servers.get_mut(&server) {
            pending.ends = Some(Ends { until, fetched, events });
        }
    }

    /// Takes what is soon stale, at most `limit`. To be called once the server has taken what it was sent before.
    pub fn take_ephemeral(&self, server: TextNum, limit: usize) -> Vec<Ephemeral> {
        let mut inner = self.0.lock();
        inner.servers.get_mut(&server).map_or_else(Vec::new, |pending| pending.ephemerals.take(limit))
    }

    /// Notes that all events for the server up to `pos` are delivered, and with `all` that nothing else was in its queue.
    pub fn settle(&self, server: TextNum, pos: StreamPos, all: bool) {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return };
        pending.rooms.retain(|_, last| *last > pos);
        if pending.ends.as_ref().is_some_and(|ends| ends.until <= pos) {
            pending.ends = None;
        }
        if all && pending.queued <= pos {
            pending.queued = StreamPos::ZERO;
        }
    }

    /// The server, which somebody is at, takes its time: it is a laggard from now on. Answers whether there are no more than
    /// `laggards_max` with it that somebody is at; else it is to be left, and tried later. O(servers), once for each that becomes one.
    pub fn is_slow(&self, server: TextNum, laggards_max: usize, now_ms: u64) -> bool {
        let mut inner = self.0.lock();
        if inner.laggards.insert(server, now_ms).is_some() {
            // It was taken as one.
            return true;
        }
        let Inner { servers, laggards, .. } = &*inner;
        let taken =
            servers.iter().filter(|(server, pending)| pending.taken && laggards.contains_key(*server));
        taken.count() <= laggards_max
    }

    /// Nobody is at the server any more; it may be tried again at `due_ms`, which is zero if nothing more was for it. What is soon
    /// stale waits for that unless the server was silent for long. `was_prompt` says whether it took what it was sent without
    /// failing or being slow, if it was sent anything.
    pub fn leave(&self, server: TextNum, due_ms: u64, was_prompt: Option<bool>, now_ms: u64) {
        let mut inner = self.0.lock();
        match was_prompt {
            Some(true) => {
                // If it was so later than now, the clock was set back.
                let was_ms = inner.laggards.get(&server).copied();
                if was_ms.is_some_and(|was_ms| was_ms > now_ms || was_ms + LAGGARD_MS <= now_ms) {
                    inner.laggards.remove(&server);
                }
            }
            Some(false) => {
                inner.laggards.insert(server, now_ms);
            }
            None => {}
        }
        let kept_max = inner.kept_max();
        let Some(pending) = inner.servers.get_mut(&server) else { return };
        pending.taken = false;
        // It may have been heard from after its failure was noted.
        let was_heard = was_prompt == Some(false) && pending.was_heard;
        let due_ms = if was_heard { pending.failure.hear(due_ms, now_ms) } else { due_ms };
        (pending.due_ms, pending.said_ms) = (due_ms, now_ms);
        let lost = pending.ephemerals.put_back(EPHEMERAL_MAX, now_ms);
        pending.miss(lost);
        if due_ms > now_ms {
            // It stays here, so that whatever comes waits with it.
            let is_long_silent = is_long_silent(pending.failure.since_ms, now_ms);
            let lost = pending.ephemerals.keep_lasting(if is_long_silent { 0 } else { kept_max });
            pending.miss(lost);
        } else {
            pending.failure.since_ms = 0;
            if due_ms > 0 {
                // What is next was not looked at, if there is anything.
                pending.queued = pending.queued.max(StreamPos(1));
            }
            if pending.is_idle() {
                inner.forget(server);
            }
        }
        drop(inner);
        self.wake();
    }

    /// Whether the server is left alone for now because it could not be reached.
    pub fn is_backing_off(&self, server: TextNum, now_ms: u64) -> bool {
        self.0.lock().servers.get(&server).is_some_and(|pending| !pending.taken && !pending.is_due(now_ms))
    }

    /// The server is heard from. Answers whether that may end its pause sooner: not while it asked to be left alone; or whether nothing
    /// is left by which it would show that it is well. If somebody is at it, that is kept for when they fail.
    pub fn may_be_back(&self, server: TextNum, now_ms: u64) -> bool {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return false };
        if pending.taken {
            pending.was_heard = true;
            return false;
        }
        match pending.is_due(now_ms) {
            true => pending.is_in_doubt(),
            false => pending.patience().due_if_heard_ms(pending.due_ms, now_ms) < pending.due_ms,
        }
    }

    /// Whether the server, which has failed, has nothing left whose taking would show that it is well.
    pub fn is_in_doubt(&self, server: TextNum) -> bool {
        self.0.lock().servers.get(&server).is_some_and(Pending::is_in_doubt)
    }

    /// The server has failed, and is to be tried at `due_ms`. Answers when it is, since it may have been heard from meanwhile.
    pub fn failed(&self, server: TextNum, failure: Failure, due_ms: u64, now_ms: u64) -> u64 {
        let mut inner = self.0.lock();
        let Some(pending) = inner.servers.get_mut(&server) else { return due_ms };
        pending.failure = Failure { heard_ms: pending.failure.heard_ms, ..failure };
        if pending.was_heard { pending.hear(due_ms, now_ms) } else { due_ms }
    }

    /// The server, which has failed and is to be tried at `due_ms`, is heard from. Answers when it is.
    pub fn heard(&self, server: TextNum, mut failure: Failure, due_ms: u64, now_ms: u64) -> u64 {
        match self.0.lock().servers.get_mut(&server) {
            Some(pending) => pending.hear(due_ms, now_ms),
            None => failure.hear(due_ms, now_ms),
        }
    }

    /// The server may be tried at `due_ms`, if not before.
    pub fn make_due(&self, server: TextNum, due_ms: u64) {
        if let Some(pending) = self.0.lock().servers.get_mut(&server) {
            pending.due_ms = pending.due_ms.min(due_ms);
        }
        self.wake();
    }

    /// How many servers may have something waiting, and how many of them are left alone for now, but for those with which this
    /// server does not deal.
    pub fn figures(&self, now_ms: u64) -> (usize, usize) {
        let inner = self.0.lock();
        let waiting = inner.servers.values().filter(|pending| !pending.is_idle()).count();
        let is_left_alone = |pending: &&Pending| !pending.is_due(now_ms) && !pending.failure.is_shelved();
        (waiting, inner.servers.values().filter(is_left_alone).count())
    }
}

/// Ready when there may be something to be sent that was not there before, and once when the engine is dropped, whose store
/// this keeps open. For one waiter at a time.
#[must_use = "a wait does nothing unless it is awaited"]
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

#[cfg(test)]
mod tests;
