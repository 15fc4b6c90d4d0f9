//! An engine in memory that does the same again for the same input.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use warren_engine::store::Memory;
use warren_engine::{Clock, Committer, Engine, Options, Random};

/// The name of the server.
pub const SERVER: &str = "here.example";
/// The time, which stands still, in milliseconds since the epoch.
pub const NOW_MS: u64 = 1_600_000_000_000;

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&next.to_be_bytes()[..chunk.len()]);
        }
    }
}

/// An engine, and its store.
pub fn memory_engine() -> (Engine, Arc<Memory>) {
    let memory = Arc::new(Memory::new());
    let mut options = Options::new(SERVER);
    options.clock = Arc::new(Still);
    options.random = Arc::new(Counting::default());
    options.committer = Committer::Inline;
    options.cache_bytes = Some(1 << 20);
    (Engine::open(memory.clone(), options).expect("an empty store can be opened"), memory)
}
