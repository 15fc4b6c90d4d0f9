//! How long a server that cannot be reached is left alone.
//!
//! The first pause is short, since most failures are restarts; each is twice the one before, up to a day, at which a dead
//! server costs one attempt a day. Other servers begin with ten minutes and go up to a day (Synapse before version 1.74)
//! or a week (since then); what a shorter beginning costs is six attempts more, and what it gains are minutes after every
//! restart of a peer. Any sign of life ends the pause at once, though no two within some seconds do, and none ends one for
//! which the server itself asked, by its limit on requests.

use crate::{
    core::num::StreamPos,
    store::{Reader, schema::Destination},
};

/// The first pause, in milliseconds.
pub(crate) const FIRST_WAIT_MS: u64 = 10_000;
/// The longest, in milliseconds, also if a server asks for more: a day.
pub(crate) const WAIT_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The longest for which a server is left alone, in milliseconds, because something said so that was not its limit on requests:
/// what stands before a server that is down speaks for it, and knows little of when it will be back.
pub(crate) const OUTAGE_WAIT_MS_MAX: u64 = 10 * 60 * 1000;
/// By how much a pause varies, in percent of it, so that those that went away together do not come back together.
const JITTER_PERCENT: u64 = 20;

/// How long after an attempt that a sign of life from the server made for another makes one, in milliseconds. One that can reach
/// this server, but cannot be reached, must not cost an attempt with each of its requests.
const HEARD_EVERY_MS: u64 = 10_000;

/// How long after its pause a failure after which nothing was tried is past, in milliseconds, and no sooner than after as long as
/// the pause was: what comes sooner may well fail by the same.
const PAST_AFTER_MS: u64 = 10 * 60 * 1000;

/// The last of a server's failures in a row, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    /// When it was.
    pub at_ms: u64,
    /// Since when the server cannot be reached; zero if it can, or if that is not known.
    pub since_ms: u64,
    /// Until when no sign of life ends the pause, because the server asked for it; zero if it did not.
    pub asked_ms: u64,
    /// When a sign of life last had it tried; zero for never. That is in memory alone: a start costs an attempt.
    pub heard_ms: u64,
}

/// For how long a server is left alone, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pause {
    /// When it may be tried.
    pub due_ms: u64,
    /// Why.
    pub failure: Failure,
    /// Up to where it was told receipts.
    pub receipts_told_to: StreamPos,
    /// Whether it may lack any behind that, and not the last alone.
    pub lacks_receipts: bool,
}

/// Since when nothing is sent to a server with which this one does not deal: for so long that nothing soon stale is kept for it.
const SHELVED_SINCE_MS: u64 = 1;

impl Failure {
    /// That this server does not deal with that one.
    pub fn shelved(row: &Destination) -> Failure {
        Failure { since_ms: SHELVED_SINCE_MS, ..Failure::of(row) }
    }

    /// Whether it is no failure, but that this server does not deal with that one.
    pub fn is_shelved(&self) -> bool {
        self.since_ms == SHELVED_SINCE_MS
    }

    /// What is noted of a server.
    pub fn of(row: &Destination) -> Failure {
        Failure { at_ms: row.failed_ms, since_ms: row.failing_since_ms, asked_ms: row.asked_ms, heard_ms: 0 }
    }

    /// When the server would be tried that was to be at `due_ms`, if it were heard from now.
    pub fn due_if_heard_ms(&self, due_ms: u64, now_ms: u64) -> u64 {
        // One ahead of now was noted before the clock was set back: its pause is over.
        if self.at_ms > now_ms {
            return due_ms.min(now_ms);
        }
        let next_ms = match self.heard_ms.saturating_add(HEARD_EVERY_MS) {
            // Likewise.
            next_ms if next_ms > now_ms.saturating_add(2 * HEARD_EVERY_MS) => now_ms,
            next_ms => now_ms.max(next_ms),
        };
        if self.asked_ms > now_ms { due_ms } else { due_ms.min(next_ms) }
    }

    /// When the server is to be tried that was to be at `due_ms` and is heard from now.
    pub fn hear(&mut self, due_ms: u64, now_ms: u64) -> u64 {
        let heard_ms = self.due_if_heard_ms(due_ms, now_ms);
        if heard_ms < due_ms {
            self.heard_ms = heard_ms;
        }
        heard_ms
    }
}

/// Whether the last failure of a server, for which nothing is under way, says nothing of now: its pause ended long before `since_ms`,
/// since when something waits that it could be sent, and before that nothing did. How long that waited for its turn does not count.
/// What waits for a server with which this one does not deal has no such pause, nor has what an administrator had tried.
pub(crate) fn is_failure_past(row: &Destination, since_ms: u64) -> bool {
    let pause_ms = row.retry_ms.saturating_sub(row.failed_ms);
    row.failures > 0 && since_ms.saturating_sub(row.retry_ms) > pause_ms.max(PAST_AFTER_MS)
}

/// How long to wait after so many failures in a row.
pub(crate) fn wait_ms(reader: &Reader, failures: u32) -> u64 {
    let (least_ms, most_ms) = bounds_ms(failures);
    least_ms + reader.random_below(most_ms - least_ms + 1)
}

/// The shortest and the longest pause after so many failures in a row.
fn bounds_ms(failures: u32) -> (u64, u64) {
    let doublings = failures.saturating_sub(1).min(u64::BITS - 1);
    let wait_ms = FIRST_WAIT_MS.saturating_mul(1 << doublings).min(WAIT_MS_MAX);
    let spread = wait_ms * JITTER_PERCENT / 100;
    (wait_ms - spread, wait_ms + spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::World;

    #[test]
    fn pauses_double_up_to_a_day_and_vary() {
        let world = World::new();
        let wait = |failures| world.ask(|reader| Ok(wait_ms(reader, failures)));
        for (failures, expected_ms) in
            [(1, 10_000), (2, 20_000), (5, 160_000), (30, WAIT_MS_MAX), (400, WAIT_MS_MAX)]
        {
            let waits: Vec<u64> = (0..50).map(|_| wait(failures)).collect();
            let (least, most) = (expected_ms * 8 / 10, expected_ms * 12 / 10);
            assert!(waits.iter().all(|wait| (least..=most).contains(wait)), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{failures}: they are all the same");
        }
    }
}
