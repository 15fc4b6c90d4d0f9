//! Servers that could not be asked for what this one lacks: when one is heard from, it is asked again, whatever is left of a pause.

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

/// When servers were last asked in vain that have not been heard from since.
#[derive(Default)]
pub struct Unreached(Mutex<HashMap<String, Instant>>);

impl Unreached {
    /// A server could not be asked.
    pub fn note(&self, server: &str, now: Instant) {
        let mut servers = self.0.lock();
        if servers.len() >= SILENT_SERVERS_MAX && !servers.contains_key(server) {
            // They are asked when their pauses are over.
            servers.clear();
        }
        servers.insert(server.to_owned(), now);
    }

    /// A server is heard from. Returns whether it is to be asked for that.
    fn is_back(&self, server: &str, now: Instant) -> bool {
        let mut servers = self.0.lock();
        let is_back = servers.get(server).is_some_and(|at| now.duration_since(*at) >= HEARD_AFTER);
        if is_back {
            servers.remove(server);
        }
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
        assert!(!unreached.is_back("there.test", late), "it has failed again");
    }

    #[test]
    fn no_more_servers_are_remembered_than_there_is_room_for() {
        let (unreached, now) = (Unreached::default(), Instant::now());
        (0..2 * SILENT_SERVERS_MAX).for_each(|number| unreached.note(&format!("s{number}.test"), now));
        assert!(unreached.0.lock().len() <= SILENT_SERVERS_MAX);
        assert!(unreached.is_back(&format!("s{}.test", 2 * SILENT_SERVERS_MAX - 1), now + HEARD_AFTER));
    }
}
