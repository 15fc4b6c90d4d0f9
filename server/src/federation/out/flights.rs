//! One at a time for each name: whoever wants what somebody is fetching already waits for it.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

/// The names for which somebody is under way, and what whoever was leaves to those who wait.
#[derive(Default)]
pub struct Flights<T = ()>(DashMap<String, Arc<Mutex<T>>>);

impl<T: Default> Flights<T> {
    /// Waits until nobody else is under way for the name. What they fetched is to be looked for afterwards. If they give
    /// up, the next one goes on.
    pub async fn alone(&self, name: &str) -> Flight<'_, T> {
        // Before the lock is held: who gives up while he waits may be the last.
        let end = End { flights: self, name: name.to_owned() };
        let lock = self.0.entry(name.to_owned()).or_default().clone();
        Flight { turn: lock.lock_owned().await, _end: end }
    }

    /// A turn for who fetches from a place of which each asker has few. Without the place he waits for his turn; with it he waits
    /// for nobody, and gets none while somebody else is under way. So that nobody keeps others back: who has his turn and no
    /// place gives it up before he waits for one, and who has his place and no turn gives that up.
    pub async fn turn(&self, name: &str, has_place: bool) -> Option<Flight<'_, T>> {
        if has_place { self.alone_at_once(name) } else { Some(self.alone(name).await) }
    }

    fn alone_at_once(&self, name: &str) -> Option<Flight<'_, T>> {
        let lock = self.0.entry(name.to_owned()).or_default();
        // While the table is locked: else whoever is under way, and ends, takes this for somebody who waits.
        let turn = lock.clone().try_lock_owned().ok()?;
        drop(lock);
        Some(Flight { turn, _end: End { flights: self, name: name.to_owned() } })
    }

    /// Waits until nobody is under way for the name, but no longer than this. Returns whether nobody is.
    pub async fn over(&self, name: &str, time_max: Duration) -> bool {
        !self.0.contains_key(name) || timeout(time_max, self.alone(name)).await.is_ok()
    }
}

/// A turn; ends when it is dropped.
pub struct Flight<'a, T = ()> {
    turn: OwnedMutexGuard<T>,
    // Behind the turn, which it is not to see any more.
    _end: End<'a, T>,
}

/// Takes a name off the table when nobody is under way for it, or waits, any more.
struct End<'a, T> {
    flights: &'a Flights<T>,
    name: String,
}

impl<T> Flight<'_, T> {
    /// What is left to whoever comes next, which nobody finds any more once nobody waits.
    pub fn left(&mut self) -> &mut T {
        &mut self.turn
    }
}

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        // The table alone holds the lock then. Who comes now takes it from the table, under the same lock of the table that this
        // looks under.
        self.flights.0.remove_if(&self.name, |_, lock| Arc::strong_count(lock) == 1);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn one_after_the_other_and_nothing_stays() {
        let flights = Arc::new(Flights::<()>::default());
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
    async fn nothing_stays_of_who_gives_up_with_the_turn_in_sight() {
        let flights = Flights::<()>::default();
        let first = flights.alone("a").await;
        let mut second = Box::pin(flights.alone("a"));
        assert!(timeout(Duration::ZERO, &mut second).await.is_err(), "it waits");
        drop(first);
        drop(second);
        assert!(flights.0.is_empty());
    }

    #[tokio::test]
    async fn who_has_a_place_waits_for_no_turn() {
        let flights = Flights::<()>::default();
        let first = flights.turn("a", true).await;
        assert!(first.is_some() && flights.turn("a", true).await.is_none());
        assert!(flights.turn("b", true).await.is_some());
        drop(first);
        assert!(flights.0.is_empty(), "nothing stays of who was turned away");
        assert!(flights.turn("a", true).await.is_some());
    }

    #[tokio::test]
    async fn what_is_left_is_for_those_who_wait() {
        let flights = Flights::<u8>::default();
        let mut first = flights.alone("a").await;
        *first.left() = 5;
        let ending = async { drop(first) };
        let (mut second, ()) = tokio::join!(flights.alone("a"), ending);
        assert_eq!(*second.left(), 5);
        drop(second);
        assert_eq!(*flights.alone("a").await.left(), 0);
        assert!(flights.0.is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_waits_no_longer_than_they_want() {
        let flights = Flights::<()>::default();
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
