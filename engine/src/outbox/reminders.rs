//! When a server that goes on sending events of a room which this one has left was last told again how that came about.
//!
//! Invariant: of one room a server is reminded once in some time, whatever it sends. It is known in memory only, so that it may
//! be reminded once more after a start.

use std::sync::Arc;

use crate::{
    core::num::{EventNum, RoomNum, TextNum},
    store::{Cache, HOUR_MS},
    stream::Touch,
};

/// How long a server is not reminded again, in milliseconds: while the room's access list denies this server it refuses what it is
/// told, and whoever sends what they like has this one write no more than a row in that time.
const PAUSE_MS: u64 = HOUR_MS;

/// How long the servers of a room are not told the same again since this one is let in by an access list, in milliseconds. Whoever may change the
/// list at will has this server send to all of them each time.
const ADMISSION_PAUSE_MS: u64 = 60 * 1000;

/// How often they are told of what is newer in that time: a list is set right once or twice, and whoever talks on in a room does not
/// have it sent to all each time.
const ADMISSIONS_IN_PAUSE_MAX: u32 = 3;

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
#[derive(Clone, Copy, Default)]
struct Admission {
    /// The newest of that which says something.
    newest: Option<EventNum>,
    /// When they were told last, in milliseconds since the epoch.
    told_ms: u64,
    /// Since when they are counted, in milliseconds since the epoch.
    since_ms: u64,
    /// How often they were told since.
    count: u32,
}

/// What they are still to be told, as it was too soon.
struct Owed {
    /// All up to this one.
    last: EventNum,
    /// When it was put off, in milliseconds since the epoch.
    put_off_ms: u64,
}

/// The last admissions of rooms. They are known in memory only: what is put off is dropped by a start.
pub(crate) struct Admissions {
    told: Cache<RoomNum, Admission>,
    owed: Cache<RoomNum, Owed>,
}

impl Default for Admissions {
    fn default() -> Self {
        Self { told: Cache::new(BYTES_MAX), owed: Cache::new(BYTES_MAX) }
    }
}

impl Admissions {
    /// Whether it is too soon to tell them: nothing newer has been said than they were told a short time before `now_ms`, in
    /// milliseconds since the epoch, or they were told often lately. `newest` is the newest that says something.
    pub fn is_too_soon(&self, room: RoomNum, newest: Option<EventNum>, now_ms: u64) -> bool {
        let is_recent = |ms: u64| now_ms.abs_diff(ms) < ADMISSION_PAUSE_MS;
        self.told.get(&room).is_some_and(|last| {
            let is_the_same = newest <= last.newest && is_recent(last.told_ms);
            is_the_same || last.count >= ADMISSIONS_IN_PAUSE_MAX && is_recent(last.since_ms)
        })
    }

    /// Notes what a batch tells them, when it is published: one that was not, and is decided anew, is not kept from it by itself.
    pub fn note(&self, touches: &[Touch]) {
        for touch in touches {
            let Touch::ToldAgain { room, newest, now_ms } = *touch else { continue };
            let before = self.told.get(&room).map(|last| *last).unwrap_or_default();
            let goes_on = before.count > 0 && now_ms.abs_diff(before.since_ms) < ADMISSION_PAUSE_MS;
            let (since_ms, count) = if goes_on { (before.since_ms, before.count + 1) } else { (now_ms, 1) };
            let newest = newest.max(before.newest);
            let admission = Admission { newest, told_ms: now_ms, since_ms, count };
            self.told.replace(room, Arc::new(admission), WEIGHT);
            self.owed.forget(&room);
        }
    }

    /// They are to be told later of all up to `last`.
    pub fn put_off(&self, room: RoomNum, last: EventNum, now_ms: u64) {
        self.owed.replace(room, Arc::new(Owed { last, put_off_ms: now_ms }), WEIGHT);
    }

    /// What was put off, if its time has come: all up to that.
    pub fn owed(&self, room: RoomNum, now_ms: u64) -> Option<EventNum> {
        let owed = self.owed.get(&room)?;
        (now_ms.abs_diff(owed.put_off_ms) >= ADMISSION_PAUSE_MS).then_some(owed.last)
    }

    /// Nothing is to be told any more.
    pub fn settle(&self, room: RoomNum) {
        self.owed.forget(&room);
    }
}
