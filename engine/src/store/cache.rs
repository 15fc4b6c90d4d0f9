//! A sharded cache of immutable things, bounded by weight.
//!
//! Invariant: what is cached under a key does not change, so that nothing is ever invalidated, only forgotten. The one
//! exception, an event that is written anew (redacted, or no longer outside of the graph), takes the place of the
//! original when its batch is staged.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

/// Enough shards that two cores seldom meet in one.
const SHARDS: usize = 16;

/// A cache of `Arc<V>` by `K`, bounded by the sum of weights.
pub(crate) struct Cache<K, V: ?Sized> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: RandomState,
    shard_weight_max: usize,
}

struct Shard<K, V: ?Sized> {
    entries: HashMap<K, Entry<V>>,
    // The clock: keys in the order in which they are looked at for eviction.
    queue: VecDeque<K>,
    weight: usize,
}

struct Entry<V: ?Sized> {
    value: Arc<V>,
    weight: usize,
    used: AtomicBool,
}

impl<K: Clone + Eq + Hash, V: ?Sized> Cache<K, V> {
    /// A cache that holds about `weight_max` in total.
    pub fn new(weight_max: usize) -> Self {
        let shard = || Mutex::new(Shard { entries: HashMap::new(), queue: VecDeque::new(), weight: 0 });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            shard_weight_max: weight_max / SHARDS,
        }
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// What is cached under `key`.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        let shard = self.shard(key).lock();
        let entry = shard.entries.get(key)?;
        entry.used.store(true, Ordering::Relaxed);
        Some(entry.value.clone())
    }

    /// Caches `value` in place of what is cached under `key`.
    pub fn replace(&self, key: K, value: Arc<V>, weight: usize) {
        if let Some(entry) = self.shard(&key).lock().entries.get_mut(&key) {
            // The shard's sum keeps the old weight: the entry is evicted with it, and a redacted event only shrinks.
            entry.value = value;
            return;
        }
        self.insert(key, value, weight);
    }

    /// Forgets what is cached under `key`.
    pub fn forget(&self, key: &K) {
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.entries.remove(key) {
            shard.weight -= entry.weight;
            shard.queue.retain(|queued| queued != key);
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            *shard.lock() = Shard { entries: HashMap::new(), queue: VecDeque::new(), weight: 0 };
        }
    }

    /// Caches `value`, forgetting others that have not been used since they were last looked at.
    pub fn insert(&self, key: K, value: Arc<V>, weight: usize) {
        let mut shard = self.shard(&key).lock();
        if shard.entries.contains_key(&key) {
            return;
        }
        shard.weight += weight;
        shard.queue.push_back(key.clone());
        shard.entries.insert(key, Entry { value, weight, used: AtomicBool::new(false) });
        while shard.weight > self.shard_weight_max {
            let Some(oldest) = shard.queue.pop_front() else { break };
            shard.give_second_chance_or_evict(oldest);
        }
    }
}

impl<K: Eq + Hash, V: ?Sized> Shard<K, V> {
    fn give_second_chance_or_evict(&mut self, key: K) {
        let Some(entry) = self.entries.get(&key) else { return };
        if entry.used.swap(false, Ordering::Relaxed) {
            self.queue.push_back(key);
        } else {
            self.weight -= entry.weight;
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_weight_and_keeps_what_is_used() {
        let cache = Cache::new(16 * 100);
        cache.insert(0_u64, Arc::new("kept"), 10);
        for key in 1..10_000 {
            assert!(cache.get(&0).is_some(), "a used entry was forgotten after {key} inserts");
            cache.insert(key, Arc::new("passing"), 10);
        }
        let held: usize = cache.shards.iter().map(|shard| shard.lock().weight).sum();
        assert!(held <= 16 * 100);
    }
}
