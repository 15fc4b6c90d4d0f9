//! Staging and the committer: positions in commit order, one sync for all that wait, published last.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
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

/// Bytes of changes that one group takes at most; what is staged beyond waits for the next. Bounds the latency of the
/// first in a group, and stays below what a distributed engine would take.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// When nothing was written for so long, whoever writes next commits at once instead of waking the committer, which
/// saves two changes of threads. While many write, they share the committer's syncs.
const LEAD_AFTER_IDLE: Duration = Duration::from_millis(1);
/// Not when the last commit took longer than this: on a slow disk, whoever writes has other things to do meanwhile.
const LEAD_COMMIT_MAX: Duration = Duration::from_millis(1);

/// One staged batch.
struct Staged {
    changes: Vec<Change>,
    bytes: usize,
    last_pos: StreamPos,
    names: Vec<CarriedName>,
    touches: Touches,
    replaced: Vec<Arc<Event>>,
    ticket: Arc<Ticket>,
    number: u64,
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

    fn finish(&self, result: Result<(), StorageError>) {
        let mut state = self.state.lock();
        state.result = Some(result);
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
    /// Only one committer at a time, also when it is whoever writes.
    committing: Mutex<()>,
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
}

/// A batch that was staged.
pub(super) struct Stage {
    pub ticket: Arc<Ticket>,
    /// Whether whoever staged it is to commit it, which nobody else will.
    pub leads: bool,
}

impl Inner {
    /// Whether whoever stages the next batch is to commit it, too.
    fn lets_lead(&self) -> bool {
        self.staged.is_empty()
            && !self.committing
            && self
                .last_commit
                .is_some_and(|(ended, took)| took <= LEAD_COMMIT_MAX && ended.elapsed() >= LEAD_AFTER_IDLE)
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
        };
        Self {
            inner: Mutex::new(inner),
            filled: Condvar::new(),
            epoch: AtomicU64::new(0),
            committing: Mutex::new(()),
        }
    }

    /// The last position given out.
    pub fn given_out_pos(&self) -> StreamPos {
        self.inner.lock().pos
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
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
    pub(super) fn stage(&self, tx: Tx, epoch: u64) -> Option<Stage> {
        let ticket = Arc::new(Ticket::default());
        let mut inner = self.queue.inner.lock();
        if self.queue.epoch() != epoch {
            return None;
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
        for (event, index) in &tx.events {
            event.set_position(StreamPos(first.0 + i64::from(*index)));
        }
        let mut changes = tx.batch.resolve(first);
        let pos = inner.pos;
        if let Some(change) = open::reserve_more(&mut inner.reserved, pos, &self.counters) {
            changes.push(change);
        }
        self.overlay.lay(inner.number, &changes);
        let staged = Staged {
            bytes: size(&changes),
            changes,
            last_pos: inner.pos,
            names: tx.names,
            touches: tx.touches,
            replaced: tx.replaced,
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

    /// Commits all that is staged now. To be called by who leads, or by the committer.
    pub(super) fn commit_staged(self: &Arc<Self>) {
        let committing = self.queue.committing.lock();
        let begun = Instant::now();
        let group = take_group(&mut self.queue.inner.lock().staged);
        if !group.is_empty() {
            self.commit_group(group);
        }
        let mut inner = self.queue.inner.lock();
        inner.committing = false;
        inner.last_commit = Some((Instant::now(), begun.elapsed()));
        let is_awaited = inner.closed || !inner.staged.is_empty();
        drop(inner);
        drop(committing);
        if is_awaited {
            self.queue.filled.notify_one();
        }
    }

    fn commit_group(self: &Arc<Self>, mut group: Vec<Staged>) {
        let changes: Vec<Change> =
            group.iter_mut().flat_map(|staged| std::mem::take(&mut staged.changes)).collect();
        // What is only in memory (typing) takes positions, but nothing is written for it.
        let result = if changes.is_empty() { Ok(()) } else { self.backend.commit(changes, self.durability) };
        match result {
            Ok(()) => self.publish(group),
            Err(error) => self.abandon(group, &error),
        }
    }

    fn publish(self: &Arc<Self>, group: Vec<Staged>) {
        let Some(last) = group.last() else { return };
        let (pos, number) = (last.last_pos, last.number);
        let mut wakers = Vec::new();
        for staged in &group {
            self.interner.mark_on_disk(&staged.names);
            // Before publishing: whoever reads at the new position must already find the news of it.
            self.sessions.note(staged.last_pos, &staged.touches);
            self.watch.note(staged.last_pos, &staged.touches, &mut wakers);
        }
        for event in group.iter().flat_map(|staged| &staged.replaced) {
            self.events.replace(event.num, event.clone(), event.weight());
        }
        *self.published.write() = Arc::new(Published { moment: self.backend.snapshot(), pos });
        self.overlay.lift(number);
        self.queue.inner.lock().settled = number;
        for staged in &group {
            staged.ticket.finish(Ok(()));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Fails the group and everything staged since, which may build on it.
    fn abandon(&self, group: Vec<Staged>, error: &StorageError) {
        tracing::error!(%error, "a commit failed; nothing of it is acknowledged");
        let mut inner = self.queue.inner.lock();
        self.queue.epoch.fetch_add(1, Ordering::AcqRel);
        let since = std::mem::take(&mut inner.staged);
        inner.settled = inner.number;
        self.overlay.lift(inner.number);
        // Caches may hold events of the group that never came to be. Their numbers are never given out again, and no
        // index leads to them, so they are only dead weight until evicted. The reserved marks may not have been written.
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
