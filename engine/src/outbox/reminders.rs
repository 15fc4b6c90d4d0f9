//! When a server that goes on sending events of a room which this one has left was last told again how that came about.
//!
//! Invariant: of one room a server is reminded once in some time, whatever it sends. It is known in memory only, so that it may
//! be reminded once more after a start.

use std::sync::Arc;

use crate::{
    core::num::{EventNum, RoomNum, TextNum},
    store::{Cache, HOUR_MS},
};

/// How long a server is not reminded again, in milliseconds: while the room's access list denies this server it refuses what it is
/// told, and whoever sends what they like has this one write no more than a row in that time.
const PAUSE_MS: u64 = HOUR_MS;

/// How long the servers of a room are not told the same again since this one is let in by another access list, in milliseconds. Whoever may change the
/// list at will has this server send to all of them each time.
const ADMISSION_PAUSE_MS: u64 = 60 * 1000;

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

/// What the servers of a room were told again that users of this one did last, since the room lets it in again.
struct Admission {
    /// The access list by which it does.
    list: Arc<str>,
    /// The newest of that.
    newest: EventNum,
    /// When, in milliseconds since the epoch.
    told_ms: u64,
}

/// The last admissions of rooms.
pub(crate) struct Admissions(Cache<RoomNum, Admission>);

impl Default for Admissions {
    fn default() -> Self {
        Self(Cache::new(BYTES_MAX))
    }
}

impl Admissions {
    /// Whether they are to be told, which is then noted: not of the same again so soon by another list. They are if the same command is
    /// run once more.
    pub fn begin(&self, room: RoomNum, list: &Arc<str>, newest: EventNum, now_ms: u64) -> bool {
        let is_soon = self.0.get(&room).is_some_and(|last| {
            let is_recent = now_ms.abs_diff(last.told_ms) < ADMISSION_PAUSE_MS;
            last.newest == newest && last.list != *list && is_recent
        });
        if !is_soon {
            let admission = Admission { list: list.clone(), newest, told_ms: now_ms };
            self.0.replace(room, Arc::new(admission), WEIGHT);
        }
        !is_soon
    }
}
