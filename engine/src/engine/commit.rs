//! Staging and the committer: positions in commit order, one sync for all that wait, published last.
//!
//! A commit that fails may have been written all the same (see `Backend::commit`). Nothing is staged or committed on a
//! guess: the committer reads back whether what the group leaves is there. If it is, the group is published as if the
//! commit had succeeded; if it is not, the group is given up, with all that was staged after it; if the store cannot be
//! read either, the group stays in doubt and is settled before the next commit is tried. Positions and numbers of a group
//! given up are not used again.
//!
//! What is left, and cannot be closed from this side of a disk that takes no more writes: a batch answered with an error
//! may be there after a restart, whole, if nothing was committed since. It is the last of all then, so that no later
//! write rests on its absence, and its transaction id, which is part of it, makes the client's retry find it.
//!
//! Where a commit falls with a fault, it is not known what it has done. Whoever waits is told so, and nothing is written from then
//! on: the engine has to be opened anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{Committer, Published, Shared, Touches};
use crate::{
    core::num::StreamPos,
    open::{self, Reserved},
    room::Event,
    store::{CarriedName, Change, StorageError, Tx},
};

mod outcome;
#[cfg(test)]
mod tests;

use outcome::is_in_effect;

/// Bytes of changes that one group takes at most; what is staged beyond waits for the next. Bounds the latency of the
/// first in a group, and stays below what a distributed engine would take.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// When nothing was written for so long, whoever writes next commits at once instead of waking the committer, which
/// saves two changes of threads. While many write, they share the committer's syncs.
const LEAD_AFTER_IDLE: Duration = Duration::from_millis(1);
/// So many commits of one write each, with nothing waiting behind them, mean that one alone is writing, who had better commit too.
/// Among many writers, which leave such commits now and then, a commit of one's own keeps a thread from the others' requests.
const LEAD_AFTER_ALONE: u32 = 8;
/// Not when the last commit took longer than this: on a slow disk, whoever writes has other things to do meanwhile.
const LEAD_COMMIT_MAX: Duration = Duration::from_millis(1);
/// What a remembered resolution costs: two roots on average, and the entry.
const RESOLVED_BYTES: usize = 128;

/// One staged batch.
struct Staged {
    changes: Vec<Change>,
    bytes: usize,
    last_pos: StreamPos,
    names: Vec<CarriedName>,
    touches: Touches,
    /// Events that it wrote.
    events: Vec<Arc<Event>>,
    /// Whether some of them were there before.
    rewrites: bool,
    ticket: Arc<Ticket>,
    number: u64,
}

impl Drop for Staged {
    /// Nobody else tells who waits for it, when whoever was to commit it has fallen.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ticket.finish(Err(StorageError::Abandoned));
        }
    }
}

/// Whoever waits for a batch holds its ticket.
#[derive(Default)]
pub(super) struct Ticket {
    state: Mutex<TicketState>,
    done: Condvar,
}

#[derive(Default)]
struct TicketState {
    result: Option<Result<(), StorageError>>,
    waker: Option<Waker>,
}

impl Ticket {
    pub fn wait(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        loop {
            if let Some(result) = &state.result {
                return result.clone();
            }
            self.done.wait(&mut state);
        }
    }

    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Result<(), StorageError>> {
        let mut state = self.state.lock();
        match &state.result {
            Some(result) => Poll::Ready(result.clone()),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Tells whoever waits; the first word counts.
    fn finish(&self, result: Result<(), StorageError>) {
        let mut state = self.state.lock();
        state.result.get_or_insert(result);
        let waker = state.waker.take();
        drop(state);
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What is staged and not yet taken by the committer.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    /// Grows with each failed commit; a decision begun in an older epoch may rest on what never came to be.
    epoch: AtomicU64,
    /// Whether the last commit with something to write succeeded, or none has come.
    takes_writes: AtomicBool,
    /// Whether a commit fell with a fault. Set under the lock of `inner`.
    has_fallen: AtomicBool,
    /// Only one committer at a time, also when it is whoever writes; with the group that is in doubt.
    committing: Mutex<Option<Doubt>>,
}

/// A group whose commit failed, and of which it could not be read whether it was written. Whoever waited for it has
/// their error.
struct Doubt {
    group: Vec<Staged>,
    changes: Vec<Change>,
}

struct Inner {
    staged: Vec<Staged>,
    /// The last position assigned.
    pos: StreamPos,
    /// The number of the last batch staged.
    number: u64,
    /// The number of the last batch that is on disk or failed.
    settled: u64,
    reserved: Reserved,
    closed: bool,
    /// Somebody commits, or is about to.
    committing: bool,
    /// When the last commit ended, and how long it took.
    last_commit: Option<(Instant, Duration)>,
    /// How many commits in a row had one write each, and nothing waited when they ended.
    alone: u32,
}

/// A batch that was staged.
pub(super) struct Stage {
    pub ticket: Arc<Ticket>,
    /// Whether whoever staged it is to commit it, which nobody else will.
    pub leads: bool,
}

impl Stage {
    /// What nobody will commit.
    fn abandoned() -> Self {
        let ticket = Arc::new(Ticket::default());
        ticket.finish(Err(StorageError::Abandoned));
        Self { ticket, leads: false }
    }
}

/// Notes, if it is dropped, that the commit under way has fallen.
struct Fall<'a>(&'a Queue);

impl Drop for Fall<'_> {
    fn drop(&mut self) {
        self.0.fall();
    }
}

impl Inner {
    /// Whether whoever stages the next batch is to commit it, too.
    fn lets_lead(&self) -> bool {
        self.staged.is_empty()
            && !self.committing
            && self.last_commit.is_some_and(|(ended, took)| {
                let is_alone = self.alone >= LEAD_AFTER_ALONE || ended.elapsed() >= LEAD_AFTER_IDLE;
                took <= LEAD_COMMIT_MAX && is_alone
            })
    }
}

impl Queue {
    pub fn new(pos: StreamPos, reserved: Reserved) -> Self {
        let inner = Inner {
            staged: Vec::new(),
            pos,
            number: 0,
            settled: 0,
            reserved,
            closed: false,
            committing: false,
            last_commit: None,
            alone: 0,
        };
        Self {
            inner: Mutex::new(inner),
            filled: Condvar::new(),
            epoch: AtomicU64::new(0),
            takes_writes: AtomicBool::new(true),
            has_fallen: AtomicBool::new(false),
            committing: Mutex::new(None),
        }
    }

    /// The last position given out.
    pub fn given_out_pos(&self) -> StreamPos {
        self.inner.lock().pos
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn takes_writes(&self) -> bool {
        self.takes_writes.load(Ordering::Relaxed)
    }

    pub fn has_fallen(&self) -> bool {
        self.has_fallen.load(Ordering::Relaxed)
    }

    /// A commit has fallen: nobody is to wait for another.
    fn fall(&self) {
        self.takes_writes.store(false, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        self.has_fallen.store(true, Ordering::Relaxed);
        inner.committing = false;
        let staged = std::mem::take(&mut inner.staged);
        drop(inner);
        for staged in &staged {
            staged.ticket.finish(Err(StorageError::Abandoned));
        }
        self.filled.notify_all();
    }

    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_all();
    }
}

fn size(changes: &[Change]) -> usize {
    changes
        .iter()
        .map(|change| match change {
            Change::Put(_, key, value) => key.len() + value.len(),
            Change::Delete(_, key) => key.len(),
            Change::DeleteRange(_, start, end) => start.len() + end.len(),
        })
        .sum()
}

impl Shared {
    /// Assigns the transaction's positions and makes it visible to the commands that come. `None` when a commit has
    /// failed since `epoch`.
    pub(super) fn stage(&self, mut tx: Tx, epoch: u64) -> Option<Stage> {
        let ticket = Arc::new(Ticket::default());
        let mut inner = self.queue.inner.lock();
        let has_fallen = self.queue.has_fallen();
        if has_fallen || self.queue.epoch() != epoch {
            drop(inner);
            self.interner.release(&tx.names);
            return has_fallen.then(Stage::abandoned);
        }
        let positions = i64::from(tx.batch.positions);
        let nothing_in_flight = inner.number == inner.settled;
        if positions == 0 && tx.batch.writes.is_empty() && nothing_in_flight {
            ticket.finish(Ok(()));
            return Some(Stage { ticket, leads: false });
        }
        let first = StreamPos(inner.pos.0 + 1);
        inner.pos = StreamPos(inner.pos.0 + positions);
        inner.number += 1;
        for (event, index) in &tx.positions {
            event.set_position(StreamPos(first.0 + i64::from(*index)));
        }
        // From here on the commands that come see these events as they are now.
        if tx.rewrites {
            self.rewrites.fetch_add(1, Ordering::AcqRel);
        }
        let events: Vec<Arc<Event>> = tx.written_events().cloned().collect();
        self.remember(&events);
        for (snapshots, resolved) in &tx.resolved {
            self.resolved.insert(snapshots.clone(), Arc::new(*resolved), RESOLVED_BYTES);
        }
        let (mut changes, laid) = tx.settle(first);
        let own = changes.len();
        let pos = inner.pos;
        changes.extend(open::reserve_more(&mut inner.reserved, pos, &self.counters));
        match laid {
            Some(laid) => {
                self.overlay.lay_large(inner.number, laid);
                self.overlay.lay(inner.number, changes.get(own..).unwrap_or_default());
            }
            None => self.overlay.lay(inner.number, &changes),
        }
        let staged = Staged {
            bytes: size(&changes),
            changes,
            last_pos: inner.pos,
            names: tx.names,
            touches: tx.touches,
            events,
            rewrites: tx.rewrites,
            ticket: ticket.clone(),
            number: inner.number,
        };
        let leads = self.committer == Committer::Inline || inner.lets_lead();
        inner.committing |= leads;
        inner.staged.push(staged);
        drop(inner);
        if !leads {
            self.queue.filled.notify_one();
        }
        Some(Stage { ticket, leads })
    }

    /// Sees to it that nothing up to these numbers is given out any more, where the reserved marks were behind what is
    /// in use. Returns whether they were; the next batch then writes them anew.
    pub(crate) fn move_ahead(&self, pos: StreamPos, event: u64, node: u64) -> bool {
        let mut inner = self.queue.inner.lock();
        let Reserved { pos: pos_mark, events, nodes } = inner.reserved;
        let is_behind = pos.0 > pos_mark || event > events || node > nodes;
        if is_behind {
            inner.pos = inner.pos.max(pos);
            self.counters.events.fetch_max(event + 1, Ordering::Relaxed);
            self.counters.nodes.fetch_max(node + 1, Ordering::Relaxed);
            inner.reserved = Reserved::default();
        }
        is_behind
    }

    /// Commits all that is staged now. To be called by who leads, or by the committer.
    pub(super) fn commit_staged(self: &Arc<Self>) {
        let begun = Instant::now();
        let fall = Fall(&self.queue);
        let count = self.commit_what_is_staged();
        std::mem::forget(fall);
        let mut inner = self.queue.inner.lock();
        inner.committing = false;
        let is_alone = count == 1 && inner.staged.is_empty();
        inner.alone = if is_alone { inner.alone.saturating_add(1) } else { 0 };
        inner.last_commit = Some((Instant::now(), begun.elapsed()));
        let is_awaited = inner.closed || !inner.staged.is_empty();
        drop(inner);
        if is_awaited {
            self.queue.filled.notify_one();
        }
    }

    /// Returns how many writes it took.
    fn commit_what_is_staged(self: &Arc<Self>) -> usize {
        let mut doubt = self.queue.committing.lock();
        let group = take_group(&mut self.queue.inner.lock().staged);
        let count = group.len();
        if count > 0 {
            match self.settle(&mut doubt) {
                Ok(()) => *doubt = self.commit_group(group),
                Err(error) => self.abandon(&group, &error),
            }
        }
        count
    }

    fn remember(&self, events: &[Arc<Event>]) {
        for event in events {
            self.events.replace(event.num, event.clone(), event.weight());
        }
    }

    /// Finds out what became of the group that is in doubt.
    fn settle(self: &Arc<Self>, doubt: &mut Option<Doubt>) -> Result<(), StorageError> {
        let Some(Doubt { changes, .. }) = doubt else { return Ok(()) };
        let written = is_in_effect(&*self.backend, changes)?;
        if let Some(Doubt { group, .. }) = doubt.take().filter(|_| written) {
            self.publish(group);
        }
        Ok(())
    }

    /// Commits a group, and returns it when it is not known what became of it.
    fn commit_group(self: &Arc<Self>, mut group: Vec<Staged>) -> Option<Doubt> {
        let changes: Vec<Change> =
            group.iter_mut().flat_map(|staged| std::mem::take(&mut staged.changes)).collect();
        // What is only in memory (typing) takes positions, but nothing is written for it.
        if changes.is_empty() {
            self.publish(group);
            return None;
        }
        let Err(error) = self.backend.commit(&changes, self.durability) else {
            self.queue.takes_writes.store(true, Ordering::Relaxed);
            self.publish(group);
            return None;
        };
        match is_in_effect(&*self.backend, &changes) {
            Ok(true) => {
                tracing::warn!(%error, "a commit was written though it seemed to fail");
                self.queue.takes_writes.store(true, Ordering::Relaxed);
                self.publish(group);
                None
            }
            Ok(false) => {
                self.abandon(&group, &error);
                None
            }
            Err(_) => {
                self.abandon(&group, &error);
                Some(Doubt { group, changes })
            }
        }
    }

    fn publish(self: &Arc<Self>, group: Vec<Staged>) {
        let Some(last) = group.last() else { return };
        let (pos, number) = (last.last_pos, last.number);
        let mut wakers = Vec::new();
        let mut is_outgoing = false;
        for staged in &group {
            self.interner.mark_on_disk(&staged.names);
            // Before publishing: whoever reads at the new position must already find the news of it.
            self.sessions.note(staged.last_pos, &staged.touches);
            self.erasures.note(staged.last_pos, &staged.touches);
            self.admissions.note(&staged.touches);
            let present = self.watch.note(staged.last_pos, &staged.touches, &mut wakers);
            is_outgoing |= self.outbox.note(staged.last_pos, &staged.touches, &present);
        }
        if group.iter().any(|staged| staged.rewrites) {
            // Whoever read an older moment meanwhile may have remembered what is no longer so.
            self.rewrites.fetch_add(1, Ordering::AcqRel);
            group.iter().filter(|staged| staged.rewrites).for_each(|staged| self.remember(&staged.events));
        }
        *self.published.write() = Arc::new(Published { moment: self.backend.snapshot(), pos });
        self.overlay.lift(number);
        let mut inner = self.queue.inner.lock();
        inner.settled = inner.settled.max(number);
        drop(inner);
        for staged in &group {
            staged.ticket.finish(Ok(()));
        }
        wakers.into_iter().for_each(Waker::wake);
        if is_outgoing {
            self.outbox.published(pos);
        }
    }

    /// Fails the group and everything staged since, which may build on it.
    fn abandon(&self, group: &[Staged], error: &StorageError) {
        tracing::error!(%error, "a commit failed; nothing of it is acknowledged");
        self.queue.takes_writes.store(false, Ordering::Relaxed);
        let mut inner = self.queue.inner.lock();
        self.queue.epoch.fetch_add(1, Ordering::AcqRel);
        let since = std::mem::take(&mut inner.staged);
        inner.settled = inner.number;
        self.overlay.lift(inner.number);
        // What never came to be is forgotten; the next reader finds what is on disk.
        for event in group.iter().chain(&since).flat_map(|staged| &staged.events) {
            self.events.forget(&event.num);
        }
        self.resolved.clear();
        // The reserved marks may not have been written.
        inner.reserved = Reserved::default();
        drop(inner);
        for staged in group {
            staged.ticket.finish(Err(error.clone()));
        }
        for staged in since {
            staged.ticket.finish(Err(StorageError::Abandoned));
        }
    }
}

fn take_group(staged: &mut Vec<Staged>) -> Vec<Staged> {
    let mut bytes = 0;
    let fits = staged.iter().take_while(|staged| {
        bytes += staged.bytes;
        bytes <= GROUP_BYTES_MAX
    });
    let count = fits.count().max(1).min(staged.len());
    staged.drain(..count).collect()
}

/// Starts the committer's thread; it ends when the queue is closed and empty.
pub(super) fn spawn(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    debug_assert_eq!(shared.committer, Committer::Thread);
    std::thread::Builder::new().name("committer".into()).spawn(move || {
        loop {
            let mut inner = shared.queue.inner.lock();
            while inner.staged.is_empty() || inner.committing {
                if inner.closed && !inner.committing {
                    return;
                }
                shared.queue.filled.wait(&mut inner);
            }
            inner.committing = true;
            drop(inner);
            shared.commit_staged();
        }
    })
}
