//! When a server that goes on sending events of a room which this one has left was last told again how that came about.
//!
//! Invariant: of one room a server is reminded once in some time, whatever it sends. It is known in memory only, so that it may
//! be reminded once more after a start.

use std::sync::Arc;

use crate::{
    core::num::{RoomNum, TextNum},
    store::{Cache, HOUR_MS},
};

/// How long a server is not reminded again, in milliseconds: while the room's access list denies this server it refuses what it is
/// told, and whoever sends what they like has this one write no more than a row in that time.
const PAUSE_MS: u64 = HOUR_MS;

/// How long what a server has sent may be on its way, in milliseconds: who sends something of the room within this time after a
/// leave may have been told of that meanwhile. Should it take longer, the server is told once more of what it knows.
pub(crate) const CROSSING_MS_MAX: u64 = 10_000;

/// Bytes for what is remembered: some ten thousand servers and rooms. Whoever is forgotten for want of place is reminded sooner.
const BYTES_MAX: usize = 1 << 20;

/// What one of these weighs.
const WEIGHT: usize = 100;

/// See the module.
pub(crate) struct Reminders(Cache<(TextNum, RoomNum), u64>);

impl Default for Reminders {
    fn default() -> Self {
        Self(Cache::new(BYTES_MAX))
    }
}

impl Reminders {
    /// Whether the server was reminded of the room so short a time before `now_ms`, in milliseconds since the epoch, that it is not yet
    /// again. If the room lets this server in again meanwhile, it takes now what it refused then.
    pub fn is_recent(
        &self,
        server: TextNum,
        room: RoomNum,
        now_ms: u64,
        is_let_in: impl FnOnce() -> bool,
    ) -> bool {
        let Some(reminded_ms) = self.0.get(&(server, room)) else { return false };
        // It may be of later than now: the clock was set back.
        let since_ms = now_ms.abs_diff(*reminded_ms);
        since_ms < CROSSING_MS_MAX || since_ms < PAUSE_MS && !is_let_in()
    }

    /// The server is reminded.
    pub fn note(&self, server: TextNum, room: RoomNum, now_ms: u64) {
        self.0.replace((server, room), Arc::new(now_ms), WEIGHT);
    }
}
