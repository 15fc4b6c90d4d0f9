//! The hash of the engine's own numbers: rooms, users, events, nodes.
//!
//! Invariant: only numbers that the engine gives out are hashed with it. Nobody outside chooses them, so they need no
//! secret; names from outside are hashed with one.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`NumberHasher`]s.
pub(crate) type NumberHash = BuildHasherDefault<NumberHasher>;

/// An odd number without pattern: 2^64 over the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// A multiplication for each number.
#[derive(Clone, Copy, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        // The maps take both ends, and the product's low bits depend on low bits alone.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(FACTOR);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        hash::{BuildHasher, Hash},
    };

    use super::*;

    fn hashes<T: Hash>(keys: impl Iterator<Item = T>) -> Vec<u64> {
        let build = NumberHash::default();
        keys.map(|key| build.hash_one(key)).collect()
    }

    #[test]
    fn dense_numbers_spread_over_both_ends() {
        for hashes in [
            hashes(0..4096_u64),
            hashes((0..4096_u64).map(|number| (1_u8, number))),
            hashes((0..4096_u64).map(|number| (number, 7_u32))),
            hashes((0..4096_u64).map(|number| (7_u64, number))),
        ] {
            assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), 4096);
            let low: HashSet<u64> = hashes.iter().map(|hash| hash % 4096).collect();
            let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 52).collect();
            // Random ones would fill some 63 in a hundred places.
            assert!(low.len() > 2_000 && high.len() > 2_000, "{} {}", low.len(), high.len());
        }
    }
}
