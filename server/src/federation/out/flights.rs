//! One at a time for each name: whoever wants what somebody is fetching already waits for it.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

/// The names for which somebody is under way.
#[derive(Default)]
pub struct Flights(DashMap<String, Arc<Mutex<()>>>);

impl Flights {
    /// Waits until nobody else is under way for the name. What they fetched is to be looked for afterwards. If they give
    /// up, the next one goes on.
    pub async fn alone(&self, name: &str) -> Flight<'_> {
        let lock = self.0.entry(name.to_owned()).or_default().clone();
        Flight { _turn: lock.lock_owned().await, flights: self, name: name.to_owned() }
    }

    /// Waits until nobody is under way for the name, but no longer than this. Returns whether nobody is.
    pub async fn over(&self, name: &str, time_max: Duration) -> bool {
        !self.0.contains_key(name) || timeout(time_max, self.alone(name)).await.is_ok()
    }
}

/// A turn; ends when it is dropped.
pub struct Flight<'a> {
    _turn: OwnedMutexGuard<()>,
    flights: &'a Flights,
    name: String,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // Two hold the lock when nobody waits: the table and this turn. Who comes now takes it from the table, under the
        // same lock of the table that this looks under.
        self.flights.0.remove_if(&self.name, |_, lock| Arc::strong_count(lock) <= 2);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn one_after_the_other_and_nothing_stays() {
        let flights = Arc::new(Flights::default());
        let first = flights.alone("a").await;
        let other = flights.alone("b").await;
        let waiting = flights.clone();
        let mut second = tokio::task::JoinSet::new();
        second.spawn(async move { drop(waiting.alone("a").await) });
        tokio::task::yield_now().await;
        assert!(second.try_join_next().is_none());
        drop(first);
        assert!(second.join_next().await.is_some_and(|ended| ended.is_ok()), "its turn came");
        drop(other);
        assert!(flights.0.is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_waits_no_longer_than_they_want() {
        let flights = Flights::default();
        let flight = flights.alone("a").await;
        // Neither for another name, nor for ever.
        flights.over("b", Duration::MAX).await;
        flights.over("a", Duration::from_millis(1)).await;
        let has_ended = Cell::new(false);
        let end = async {
            has_ended.set(true);
            drop(flight);
        };
        let over = async {
            flights.over("a", Duration::MAX).await;
            assert!(has_ended.get());
        };
        tokio::join!(over, end);
        assert!(flights.0.is_empty());
    }
}
