//! Servers that could not be asked for what this one lacks, since nothing answered, or only what stands before them: when one is heard from, it is asked again, whatever is left of a pause.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{complete, fetch};
use crate::context::Context;
use crate::federation::limits::SILENT_SERVERS_MAX;

/// How long after it was asked in vain a sign of life from a server is worth another attempt. One that can reach this server, but
/// cannot be reached, must not cost an attempt with each of its requests.
const HEARD_AFTER: Duration = Duration::from_secs(10);

/// How often that time doubles where what follows a sign of life is in vain as well: to some twenty minutes.
const DOUBLINGS_MAX: u32 = 7;

/// After how long without a failure it is as short as at first.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// A server that was asked in vain.
struct Vain {
    /// When it was last.
    at: Instant,
    /// How often before, each time since it was heard from.
    before: u32,
    /// Whether it has not been heard from since.
    is_silent: bool,
}

/// Servers that were asked in vain.
#[derive(Default)]
pub struct Unreached(Mutex<HashMap<String, Vain>>);

impl Unreached {
    /// A server could not be asked.
    pub fn note(&self, server: &str, now: Instant) {
        let mut servers = self.0.lock();
        if servers.len() >= SILENT_SERVERS_MAX && !servers.contains_key(server) {
            // They are asked when their pauses are over.
            servers.clear();
        }
        let before = match servers.get(server) {
            Some(last) if now.duration_since(last.at) > FORGOTTEN_AFTER => 0,
            Some(last) if last.is_silent => last.before,
            Some(last) => last.before.saturating_add(1),
            None => 0,
        };
        servers.insert(server.to_owned(), Vain { at: now, before, is_silent: true });
    }

    /// A server is heard from. Returns whether it is to be asked for that.
    fn is_back(&self, server: &str, now: Instant) -> bool {
        let mut servers = self.0.lock();
        let Some(vain) = servers.get_mut(server).filter(|vain| vain.is_silent) else { return false };
        let is_back = now.duration_since(vain.at) >= HEARD_AFTER * 2_u32.pow(vain.before.min(DOUBLINGS_MAX));
        vain.is_silent = !is_back;
        is_back
    }
}

/// A server has sent something: what waits because it could not be asked is asked for. Costs a look into memory otherwise.
pub fn heard_from(ctx: &Arc<Context>, server: &str) {
    if ctx.federation.unreached.is_back(server, Instant::now()) {
        fetch::take_up_of(ctx, server);
        complete::take_up_of(ctx, server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_counts_once_and_some_time_after_the_failure() {
        let (unreached, begun) = (Unreached::default(), Instant::now());
        let (early, late) = (begun + HEARD_AFTER / 2, begun + HEARD_AFTER);
        assert!(!unreached.is_back("there.test", late), "it has not failed");
        unreached.note("there.test", begun);
        assert!(!unreached.is_back("there.test", early) && !unreached.is_back("other.test", late));
        assert!(unreached.is_back("there.test", late));
        assert!(!unreached.is_back("there.test", late));
        unreached.note("there.test", late);
        let later = late + HEARD_AFTER;
        assert!(!unreached.is_back("there.test", later), "it has failed again");
        assert!(unreached.is_back("there.test", later + HEARD_AFTER));
        let after = later + HEARD_AFTER + FORGOTTEN_AFTER;
        unreached.note("there.test", after);
        assert!(unreached.is_back("there.test", after + HEARD_AFTER));
    }

    #[test]
    fn no_more_servers_are_remembered_than_there_is_room_for() {
        let (unreached, now) = (Unreached::default(), Instant::now());
        (0..2 * SILENT_SERVERS_MAX).for_each(|number| unreached.note(&format!("s{number}.test"), now));
        assert!(unreached.0.lock().len() <= SILENT_SERVERS_MAX);
        assert!(unreached.is_back(&format!("s{}.test", 2 * SILENT_SERVERS_MAX - 1), now + HEARD_AFTER));
    }
}
