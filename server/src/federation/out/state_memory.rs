//! The memory that other servers' answers with whole states take, all together.
//!
//! Invariant: what is read of such answers, and not yet stored, is never more than the budget and a little of each. An answer
//! takes its share as it grows, and holds it until what was read is dropped: so nobody can take all of it by a word.

use std::ops::Deref;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::RemoteError;
use super::client::Answer;
use crate::federation::limits::{STATE_BYTES_FREE, STATE_BYTES_MAX, STATE_MEMORY_TIME_MAX, STATES_PERCENT};

/// The steps in which it is taken, so that a semaphore can count it.
const STEP_BYTES: usize = 64 * 1024;

/// What there is for all answers.
pub struct StateMemory(Arc<Semaphore>);

impl StateMemory {
    /// As much as the server's whole budget allows.
    pub fn new(memory_budget_bytes: u64) -> StateMemory {
        let bytes = usize::try_from(memory_budget_bytes * STATES_PERCENT / 100).unwrap_or(usize::MAX);
        StateMemory::of(bytes.max(STATE_BYTES_MAX))
    }

    fn of(bytes: usize) -> StateMemory {
        StateMemory(Arc::new(Semaphore::new((bytes / STEP_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    /// The share of one answer, of which nothing has come yet.
    pub fn share(&self) -> Share {
        Share { all: self.0.clone(), held: None, bytes: 0 }
    }
}

/// What one answer takes.
pub struct Share {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Share {
    /// Takes more, when there is.
    ///
    /// Errors: `NoMemory` when there is none for a while.
    async fn grow(&mut self, bytes: usize) -> Result<(), RemoteError> {
        self.bytes += bytes;
        let wanted = self.bytes.saturating_sub(STATE_BYTES_FREE).div_ceil(STEP_BYTES);
        let lacking = wanted.saturating_sub(self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if lacking == 0 {
            return Ok(());
        }
        let lacking = u32::try_from(lacking).map_err(|_| RemoteError::NoMemory)?;
        let taken = timeout(STATE_MEMORY_TIME_MAX, self.all.clone().acquire_many_owned(lacking)).await;
        let taken = taken.ok().and_then(Result::ok).ok_or(RemoteError::NoMemory)?;
        match &mut self.held {
            Some(held) => held.merge(taken),
            held => *held = Some(taken),
        }
        Ok(())
    }
}

/// An answer with a state in it.
pub struct StateAnswer {
    body: BytesMut,
    share: Share,
}

impl StateAnswer {
    /// Tells `watch` how many bytes have come.
    ///
    /// Errors: those of [`Answer::next`]; `NoMemory`.
    pub async fn read(
        mut answer: Answer,
        mut share: Share,
        watch: impl Fn(usize),
    ) -> Result<StateAnswer, RemoteError> {
        let mut body = BytesMut::new();
        while let Some(piece) = answer.next().await? {
            share.grow(piece.len()).await?;
            body.extend_from_slice(&piece);
            watch(body.len());
        }
        Ok(StateAnswer { body, share })
    }

    /// Drops the answer, of which something else has been made by now that takes about as much.
    pub fn into_share(self) -> Share {
        self.share
    }
}

impl Deref for StateAnswer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test]
    async fn all_answers_together_take_no_more_than_there_is() {
        let memory = StateMemory::of(4 * MIB);
        let (mut first, mut second, mut small) = (memory.share(), memory.share(), memory.share());
        for _ in 0..30 {
            first.grow(MIB / 10).await.unwrap();
            second.grow(MIB / 10).await.unwrap();
        }
        // Each has three, of which one does not count.
        {
            let mut growing = pin!(first.grow(2 * MIB));
            assert!(std::future::poll_fn(|task| Poll::Ready(growing.as_mut().poll(task))).await.is_pending());
            // What is small waits for nobody.
            small.grow(MIB).await.unwrap();
            drop(second);
            growing.await.unwrap();
        }
        drop(first);
        let mut third = memory.share();
        third.grow(5 * MIB).await.unwrap();
        assert_eq!(memory.0.available_permits(), 0);
        drop(third);
        assert_eq!(memory.0.available_permits(), 4 * MIB / STEP_BYTES);
    }

    #[test]
    fn the_largest_answer_has_a_place_whatever_the_budget() {
        for (budget, expected) in [(32 << 20, STATE_BYTES_MAX), (4 << 30, 2 << 30)] {
            assert_eq!(StateMemory::new(budget).0.available_permits(), expected / STEP_BYTES);
        }
    }
}
