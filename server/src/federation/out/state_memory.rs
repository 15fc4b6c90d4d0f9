//! The memory that other servers' answers with whole states take, all together.
//!
//! Invariant: what is read of such answers, and not yet stored, is never more than the budget and a little of each. An answer
//! takes its share as it grows, and holds it until what was read is dropped: so nobody can take all of it by a word. Nor by
//! many bytes: what the answers of one server take together is measured by what they leave to others.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::RemoteError;
use crate::federation::limits::{
    STATE_BYTES_FREE, STATE_MEMORY_TIME_MAX, STATE_ORIGIN_PARTS, STATES_BYTES_MIN, STATES_PERCENT,
};

/// What there is for all answers.
pub struct StateMemory(Arc<Pool>);

struct Pool {
    /// What the answers of one server take at most, if there are no others.
    of_one_max: usize,
    /// How long an answer waits for it.
    time_max: Duration,
    held: Mutex<Held>,
    /// Wakes those who wait for some of it.
    freed: Notify,
}

struct Held {
    left: usize,
    by_origin: HashMap<Arc<str>, usize>,
}

impl StateMemory {
    /// As much as the server's whole budget allows.
    pub fn new(memory_budget_bytes: u64) -> StateMemory {
        let bytes = usize::try_from(memory_budget_bytes * STATES_PERCENT / 100).unwrap_or(usize::MAX);
        StateMemory::of(bytes.max(STATES_BYTES_MIN), STATE_MEMORY_TIME_MAX)
    }

    fn of(bytes: usize, time_max: Duration) -> StateMemory {
        let held = Mutex::new(Held { left: bytes, by_origin: HashMap::new() });
        let of_one_max = bytes / (STATE_ORIGIN_PARTS + 1) * STATE_ORIGIN_PARTS;
        StateMemory(Arc::new(Pool { of_one_max, time_max, held, freed: Notify::new() }))
    }

    /// The share of one answer of a server, of which nothing has come yet.
    pub fn share(&self, origin: &str) -> Share {
        Share { all: self.0.clone(), origin: origin.into(), held: 0, bytes: 0 }
    }
}

impl Pool {
    /// Waits until a server may have so much more.
    async fn take(&self, origin: &Arc<str>, bytes: usize) {
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on nothing is missed.
            freed.as_mut().enable();
            if self.held.lock().take(origin, bytes) {
                return;
            }
            freed.await;
        }
    }
}

impl Held {
    fn take(&mut self, origin: &Arc<str>, bytes: usize) -> bool {
        let of_origin = self.by_origin.get(origin).copied().unwrap_or_default() + bytes;
        match self.left.checked_sub(bytes) {
            Some(left) if of_origin <= left.saturating_mul(STATE_ORIGIN_PARTS) => {
                self.left = left;
                self.by_origin.insert(origin.clone(), of_origin);
                true
            }
            _ => false,
        }
    }

    fn give_back(&mut self, origin: &Arc<str>, bytes: usize) {
        self.left += bytes;
        if let Some(of_origin) = self.by_origin.get_mut(origin) {
            *of_origin -= bytes;
            if *of_origin == 0 {
                self.by_origin.remove(origin);
            }
        }
    }
}

/// What one answer takes.
pub struct Share {
    all: Arc<Pool>,
    origin: Arc<str>,
    held: usize,
    bytes: usize,
}

impl Share {
    /// Takes more, when there is.
    ///
    /// Errors: `NoMemory` when there is none for a while; `BadAnswer` when there never will be so much.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), RemoteError> {
        self.bytes += bytes;
        let wanted = self.bytes.saturating_sub(STATE_BYTES_FREE);
        if wanted > self.all.of_one_max {
            let why = "memory_budget_mib is too small for what it tells";
            return Err(RemoteError::bad_answer("too_large", why));
        }
        let lacking = wanted.saturating_sub(self.held);
        if lacking > 0 {
            let taken = timeout(self.all.time_max, self.all.take(&self.origin, lacking)).await;
            taken.map_err(|_| RemoteError::no_memory())?;
            self.held += lacking;
        }
        Ok(())
    }

    /// Whether others may have to wait for what it takes.
    pub fn is_counted(&self) -> bool {
        self.held > 0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.held > 0 {
            self.all.held.lock().give_back(&self.origin, self.held);
            self.all.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    const MIB: usize = 1024 * 1024;

    /// Polls once; whether it has to wait.
    async fn waits(mut work: std::pin::Pin<&mut impl Future>) -> bool {
        std::future::poll_fn(|task| Poll::Ready(work.as_mut().poll(task).is_pending())).await
    }

    #[tokio::test]
    async fn all_answers_together_take_no_more_than_there_is() {
        let memory = StateMemory::of(6 * MIB, STATE_MEMORY_TIME_MAX);
        let (mut first, mut second) = (memory.share("a.test"), memory.share("b.test"));
        for _ in 0..30 {
            first.grow(MIB / 10).await.unwrap();
            second.grow(MIB / 10).await.unwrap();
        }
        // Each has three, of which one does not count.
        {
            let mut growing = pin!(first.grow(2 * MIB));
            assert!(waits(growing.as_mut()).await);
            // What is small waits for nobody.
            memory.share("c.test").grow(MIB).await.unwrap();
            drop(second);
            growing.await.unwrap();
        }
        let counted = 30 * (MIB / 10) + 2 * MIB - STATE_BYTES_FREE;
        assert_eq!(memory.0.held.lock().left, 6 * MIB - counted);
        drop(first);
        assert_eq!(memory.0.held.lock().left, 6 * MIB);
        assert!(memory.0.held.lock().by_origin.is_empty());
    }

    #[tokio::test]
    async fn who_takes_all_that_it_gets_leaves_something_to_others() {
        let memory = StateMemory::of(9 * MIB, STATE_MEMORY_TIME_MAX);
        // In one answer or in several.
        let mut greedy = [memory.share("greedy.test"), memory.share("greedy.test")];
        greedy[0].grow(4 * MIB).await.unwrap();
        greedy[1].grow(4 * MIB).await.unwrap();
        assert!(waits(pin!(greedy[0].grow(1))).await, "two thirds");
        // The more take what they get, the less does each: what is left goes on being divided.
        let (mut left, mut shares) = (3 * MIB, Vec::new());
        for number in 0..5 {
            let mut share = memory.share(&format!("greedy{number}.test"));
            share.grow(STATE_BYTES_FREE).await.unwrap();
            share.grow(left / 3 * 2).await.unwrap();
            assert!(waits(pin!(share.grow(3))).await);
            left = memory.0.held.lock().left;
            shares.push(share);
        }
        assert!(left > MIB / 100, "{left}");
        let mut small = memory.share("honest.test");
        small.grow(STATE_BYTES_FREE + left / 2).await.unwrap();
    }

    #[tokio::test]
    async fn what_never_fits_waits_for_nothing() {
        let memory = StateMemory::of(3 * MIB, STATE_MEMORY_TIME_MAX);
        memory.share("a.test").grow(3 * MIB).await.unwrap();
        let refused = memory.share("a.test").grow(3 * MIB + 1).await;
        assert!(matches!(refused, Err(RemoteError::BadAnswer(_))), "{refused:?}");
    }

    #[test]
    fn what_finds_no_memory_is_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let memory = StateMemory::of(3 * MIB, Duration::from_millis(1));
                let mut first = memory.share("a.test");
                first.grow(3 * MIB).await.unwrap();
                let refused = memory.share("a.test").grow(2 * MIB).await;
                assert!(matches!(refused, Err(RemoteError::NoMemory)), "{refused:?}");
            });
        });
        let page = recorder.handle().render();
        assert!(
            page.contains(r#"warren_federation_refusals_total{what="answer",reason="no_memory"} 1"#),
            "{page}"
        );
    }

    #[test]
    fn a_large_room_has_a_place_whatever_the_budget() {
        for (budget, expected) in [(32 << 20, STATES_BYTES_MIN), (4 << 30, 2 << 30)] {
            assert_eq!(StateMemory::new(budget).0.held.lock().left, expected);
        }
    }
}
