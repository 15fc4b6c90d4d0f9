//! Chance from a seed: the same seed throws the same numbers, on every machine.

use parking_lot::Mutex;
use warren_engine::Random;

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Self {
        // One mixing step, so that the seeds 1 and 2 have nothing in common.
        let mut dice = Self(seed);
        Self(dice.next())
    }

    /// Dice of their own for `purpose`, so that what is thrown for one purpose does not change another's.
    pub fn aside(seed: u64, purpose: u64) -> Self {
        Self::new(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Any number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; zero if that is zero.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub fn happens(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One of `choices`, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(usize, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if at < *weight {
                return *choice;
            }
            at -= weight;
        }
        choices[0].1
    }
}

/// The randomness of one server: goes on where it was when the server starts again, as a machine's does.
pub struct ServerRandom(Mutex<Dice>);

impl ServerRandom {
    /// The randomness of server number `server` in the run of `seed`.
    pub fn new(seed: u64, server: usize) -> Self {
        Self(Mutex::new(Dice::aside(seed, 1 + server as u64)))
    }
}

impl Random for ServerRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.next().to_be_bytes()[..chunk.len()]);
        }
    }
}
