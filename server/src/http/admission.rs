//! How many connections there may be at once over several listeners: over that, none is accepted until one ends.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Gauge, gauge};
use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::limits::FULL_TOLD_EVERY;

/// What some listeners share.
pub struct Admission {
    free: Arc<Semaphore>,
    at_most: usize,
    /// When it was last told that all are taken.
    told: Mutex<Option<Instant>>,
    open: Gauge,
}

impl Admission {
    /// Must come after the metrics' recorder, to which the count binds.
    pub fn new(at_most: usize) -> Arc<Admission> {
        Arc::new(Admission {
            free: Arc::new(Semaphore::new(at_most)),
            at_most,
            told: Mutex::default(),
            open: gauge!("warren_connections_open"),
        })
    }

    /// A place for the next connection, as soon as there is one. Who waits longest has it first, so that no listener takes
    /// all from another. Errors: none, as it is never closed.
    pub async fn place(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(place) = self.free.clone().try_acquire_owned() {
            return Ok(place);
        }
        if self.is_to_be_told() {
            warn!(
                connections = self.at_most,
                "as many connections are open as the limit of open files and memory_budget_mib allow; further ones wait"
            );
        }
        self.free.clone().acquire_owned().await
    }

    fn is_to_be_told(&self) -> bool {
        let mut told = self.told.lock();
        let is_due = told.is_none_or(|last| last.elapsed() >= FULL_TOLD_EVERY);
        if is_due {
            *told = Some(Instant::now());
        }
        is_due
    }

    /// A connection that was accepted in that place.
    pub fn admit(&self, place: OwnedSemaphorePermit) -> Admitted {
        self.open.increment(1.0);
        Admitted { _place: place, open: self.open.clone() }
    }
}

/// A connection that is open; its place is free when this is dropped.
pub struct Admitted {
    _place: OwnedSemaphorePermit,
    open: Gauge,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::{Duration, timeout};

    use super::*;

    #[tokio::test]
    async fn the_next_one_waits_until_one_ends() {
        let admission = Admission::new(2);
        let [first, second] = [admission.place().await, admission.place().await]
            .map(|place| admission.admit(place.expect("free")));
        let mut third = pin!(admission.place());
        assert!(timeout(Duration::ZERO, third.as_mut()).await.is_err(), "all are taken");
        drop(first);
        assert!(third.await.is_ok());
        drop(second);
    }

    #[tokio::test]
    async fn that_all_are_taken_is_told_once_in_a_while() {
        let admission = Admission::new(0);
        assert!(timeout(Duration::ZERO, admission.place()).await.is_err());
        assert!(!admission.is_to_be_told(), "it was told just now");
    }
}
