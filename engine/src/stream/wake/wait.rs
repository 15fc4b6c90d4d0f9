//! A wait for news of one user: a future, or a thread that stands still.
//!
//! Invariant: it is over at the latest when the engine is gone, so that nobody who holds nothing else waits for ever.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use super::Watch;
use crate::core::num::{StreamPos, UserNum};

/// Why a [`Wait`] is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Woken {
    /// The user may have something new: read again, and wait from there.
    News,
    /// The engine is gone. Nothing comes any more.
    Ended,
}

/// Ready when the user may have something new, or the engine is gone. Spurious readiness is allowed: read again, and wait from
/// there.
///
/// News is noted only for users who are active: [`Sync`](crate::view::Sync) makes its user so, and they stay it while they wait.
/// Whom nothing made active, or who was forgotten as one of very many that wait for nothing, is taken to have news: the wait is
/// ready at once, every time. So a loop has to read between two waits with a view that makes its user active, or it
/// never stands still.
///
/// Wakers are run on the thread that commits (see [`Committer`](crate::Committer)): one that blocks holds up every write, and
/// one that waits for a write waits for ever.
#[must_use = "a wait does nothing unless it is awaited, or a thread blocks on it"]
pub struct Wait {
    pub(super) watch: Arc<Watch>,
    pub(super) user: UserNum,
    pub(super) since: StreamPos,
    pub(super) id: u64,
}

impl Wait {
    /// Blocks this thread until it is ready; for programs without an async runtime.
    pub fn block(self) -> Woken {
        // Without a deadline it only ends when it is ready.
        self.block_until(None).unwrap_or(Woken::News)
    }

    /// Blocks this thread until it is ready, for at most `timeout`. `None` if that is over. For who has to look at something
    /// else now and then, such as whether the program is to end.
    pub fn block_for(self, timeout: Duration) -> Option<Woken> {
        // A time that no clock can show never comes.
        self.block_until(Instant::now().checked_add(timeout))
    }

    fn block_until(mut self, deadline: Option<Instant>) -> Option<Woken> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(woken) = Pin::new(&mut self).poll(&mut context) {
                return Some(woken);
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(Duration::ZERO) => return None,
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for Wait {
    type Output = Woken;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Woken> {
        let active = self.watch.users.get_mut(&self.user);
        // With the user's place held, so that who takes it is either woken when the engine goes, or sees that it is gone.
        if self.watch.is_closed.load(Ordering::Acquire) {
            return Poll::Ready(Woken::Ended);
        }
        let Some(mut active) = active else {
            // Forgotten in the meantime: read again, which makes the user active again.
            return Poll::Ready(Woken::News);
        };
        if active.news > self.since {
            return Poll::Ready(Woken::News);
        }
        active.wakers.retain(|(id, _)| *id != self.id);
        active.wakers.push((self.id, context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(mut active) = self.watch.users.get_mut(&self.user) {
            active.wakers.retain(|(id, _)| *id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const USER: UserNum = UserNum(1);
    const NOW: StreamPos = StreamPos(1);
    /// Longer than any machine takes for what is waited for here.
    const LONG: Duration = Duration::from_secs(60);

    fn active() -> Arc<Watch> {
        let watch = Arc::new(Watch::new(NOW));
        watch.activate(USER, Vec::new(), || (NOW, NOW));
        watch
    }

    /// Until somebody stands still there.
    fn until_awaited(watch: &Watch) {
        while watch.users.get(&USER).is_none_or(|active| active.wakers.is_empty()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_waits_for_a_time_goes_on_when_it_is_over() {
        let watch = active();
        assert_eq!(watch.wait(USER, NOW).block_for(Duration::from_millis(1)), None);
        assert_eq!(watch.wait(USER, NOW).block_for(Duration::ZERO), None);
        assert_eq!(watch.wait(USER, StreamPos::ZERO).block_for(Duration::ZERO), Some(Woken::News));
        assert!(watch.users.get(&USER).unwrap().wakers.is_empty(), "nobody is left waiting");
    }

    #[test]
    fn who_waits_is_woken_by_the_end_and_does_not_wait_after_it() {
        let watch = active();
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            for timeout in [None, Some(LONG), Some(Duration::MAX)] {
                let (watch, tell) = (&watch, tell.clone());
                scope.spawn(move || {
                    let wait = watch.wait(USER, NOW);
                    let woken = match timeout {
                        None => Some(wait.block()),
                        Some(timeout) => wait.block_for(timeout),
                    };
                    tell.send(woken).unwrap();
                });
            }
            until_awaited(&watch);
            watch.close();
            for _ in 0..3 {
                assert_eq!(told.recv_timeout(LONG), Ok(Some(Woken::Ended)));
            }
        });
        assert_eq!(watch.wait(USER, NOW).block(), Woken::Ended);
    }

    #[test]
    fn a_wait_for_whom_nothing_made_active_is_ready_every_time() {
        let watch = active();
        for _ in 0..2 {
            assert_eq!(watch.wait(UserNum(2), StreamPos::MAX).block(), Woken::News);
        }
    }
}
