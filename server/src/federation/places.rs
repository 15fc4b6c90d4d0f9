//! Places for what many want at once: so many in all, and of these so many for each who asks, so that nobody takes all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From so many on it is looked for askers of whom nothing is left.
const SWEPT_FROM: usize = 64;

/// See the module.
pub struct Places<A> {
    all: Arc<Semaphore>,
    of_each_max: usize,
    askers: Mutex<Askers<A>>,
}

/// The places of each who holds one, or waits.
struct Askers<A> {
    places: HashMap<A, Arc<Semaphore>>,
    /// When there are so many, it is looked again.
    swept_at: usize,
}

/// A place; ends when it is dropped.
pub struct Place {
    _of_asker: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl<A: Eq + Hash> Places<A> {
    /// `all_max` in all, and `of_each_max` for each who asks.
    pub fn new(all_max: usize, of_each_max: usize) -> Places<A> {
        let askers = Mutex::new(Askers { places: HashMap::new(), swept_at: SWEPT_FROM });
        Places { all: Arc::new(Semaphore::new(all_max)), of_each_max, askers }
    }

    /// Waits for a place. Who waits behind others of the same asker takes none of all. `None` for somebody who cannot be told
    /// from others, and to whom only the limit of all applies.
    pub async fn take(&self, asker: Option<A>) -> Place {
        let of_asker = match asker {
            Some(asker) => self.of(asker).acquire_owned().await.ok(),
            None => None,
        };
        // The semaphores are never closed.
        Place { _of_asker: of_asker, _of_all: self.all.clone().acquire_owned().await.ok() }
    }

    /// A place, if there is one at once.
    pub fn try_take(&self, asker: Option<A>) -> Option<Place> {
        let of_asker = match asker {
            Some(asker) => Some(self.of(asker).try_acquire_owned().ok()?),
            None => None,
        };
        let of_all = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _of_asker: of_asker, _of_all: Some(of_all) })
    }

    fn of(&self, asker: A) -> Arc<Semaphore> {
        let mut askers = self.askers.lock();
        if askers.places.len() >= askers.swept_at {
            askers.places.retain(|_, places| Arc::strong_count(places) > 1);
            askers.swept_at = SWEPT_FROM.max(askers.places.len() * 2);
        }
        askers.places.entry(asker).or_insert_with(|| Arc::new(Semaphore::new(self.of_each_max))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    async fn is_ready(taking: impl Future<Output = Place>) -> bool {
        let mut taking = pin!(taking);
        std::future::poll_fn(|task| Poll::Ready(taking.as_mut().poll(task))).await.is_ready()
    }

    #[tokio::test]
    async fn nobody_takes_all_and_who_waits_for_his_own_keeps_none_from_others() {
        let places = Places::new(3, 2);
        let held = [places.take(Some("a")).await, places.take(Some("a")).await];
        let mut third = pin!(places.take(Some("a")));
        assert!(std::future::poll_fn(|task| Poll::Ready(third.as_mut().poll(task))).await.is_pending());
        let other = places.take(Some("b")).await;
        assert!(!is_ready(places.take(Some("c"))).await, "all are taken");
        assert!(!is_ready(places.take(None)).await);
        drop(held);
        let third = third.await;
        drop((third, other));
        assert!(is_ready(places.take(None)).await);
        assert_eq!(places.all.available_permits(), 3);
    }

    #[tokio::test]
    async fn who_does_not_wait_takes_what_is_free() {
        let places = Places::new(2, 1);
        let held = places.try_take(Some("a"));
        assert!(held.is_some() && places.try_take(Some("a")).is_none());
        let other = places.try_take(Some("b"));
        assert!(other.is_some() && places.try_take(Some("c")).is_none() && places.try_take(None).is_none());
        drop(held);
        assert!(places.try_take(Some("c")).is_some() && places.try_take(None).is_some());
    }

    #[tokio::test]
    async fn askers_are_forgotten() {
        let places = Places::new(10, 1);
        let held = places.take(Some(0)).await;
        for asker in 1..10_000 {
            places.take(Some(asker)).await;
        }
        assert!(places.askers.lock().places.len() <= SWEPT_FROM);
        assert!(!is_ready(places.take(Some(0))).await, "whoever holds a place is remembered");
        drop(held);
    }
}
