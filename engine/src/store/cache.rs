//! A sharded cache of immutable things, bounded by weight.
//!
//! Invariant: what is cached under a key does not change, so that nothing is ever invalidated, only forgotten. The one
//! exception, an event that is written anew (redacted, or no longer outside of the graph), takes the place of the
//! original when its batch is staged.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::NumberHash;

/// Enough shards that two cores seldom meet in one.
const SHARDS: usize = 16;

/// A cache of `Arc<V>` by `K`, which consists of the engine's numbers; bounded by the sum of weights.
pub(crate) struct Cache<K, V: ?Sized> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: NumberHash,
    shard_weight_max: usize,
}

struct Shard<K, V: ?Sized> {
    entries: HashMap<K, Entry<V>, NumberHash>,
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
        let shard = || Mutex::new(Shard { entries: HashMap::default(), queue: VecDeque::new(), weight: 0 });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: NumberHash::default(),
            shard_weight_max: weight_max / SHARDS,
        }
    }

    /// How much it may hold.
    #[cfg(test)]
    pub fn weight_max(&self) -> usize {
        self.shard_weight_max * SHARDS
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        // Neither of the bits by which the shard's map begins to look, nor of those by which it tells entries apart.
        &self.shards[(self.hasher.hash_one(key) >> 40) as usize % SHARDS]
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
        let mut shard = self.shard(&key).lock();
        if let Some(entry) = shard.entries.get_mut(&key) {
            entry.value = value;
            let before = std::mem::replace(&mut entry.weight, weight);
            shard.weight = shard.weight - before + weight;
            shard.shrink(self.shard_weight_max);
            return;
        }
        drop(shard);
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
            *shard.lock() = Shard { entries: HashMap::default(), queue: VecDeque::new(), weight: 0 };
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
        shard.shrink(self.shard_weight_max);
    }
}

impl<K: Eq + Hash, V: ?Sized> Shard<K, V> {
    fn shrink(&mut self, weight_max: usize) {
        while self.weight > weight_max {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.give_second_chance_or_evict(oldest);
        }
    }

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

    #[test]
    fn what_is_replaced_by_something_larger_counts_as_that() {
        let cache = Cache::new(16 * 100);
        for key in 0..1_000_u64 {
            cache.insert(key, Arc::new("small"), 1);
            cache.replace(key, Arc::new("large"), 60);
        }
        let held: usize = cache.shards.iter().map(|shard| shard.lock().weight).sum();
        assert!(held <= 16 * 100);
    }
}
