//! Hashing of the engine's own dense numbers: one multiplication. Nobody outside chooses the numbers.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by event number or state key id.
pub(super) type NumMap<K, V> = HashMap<K, V, BuildHasherDefault<NumHasher>>;
/// A set of event numbers or state key ids.
pub(super) type NumSet<K> = HashSet<K, BuildHasherDefault<NumHasher>>;

/// 2^64 divided by the golden ratio: spreads neighbors far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Default)]
pub(super) struct NumHasher(u64);

impl Hasher for NumHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number).wrapping_mul(u128::from(SPREAD));
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }
}
