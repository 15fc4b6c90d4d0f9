//! How many connections to other servers there may be, by how many files the process may have open.
//!
//! Invariant: what is sent to other servers never takes the descriptors that the store needs, however many servers there are.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Semaphore;
use warren_engine::OPEN_FILES_MAX;

use crate::federation::limits::{
    DELIVERIES_MAX, IDLE_CONNECTION_TIME, IDLE_CONNECTION_TIME_SHORT, IDLE_CONNECTIONS_MAX, LAGGARDS_PART,
};
use crate::open_files::{FILES_PER_CONNECTION, OWN_FILES};

/// Of the files that are left beside accepted connections, one in so many is for deliveries. What is neither for these nor for
/// idle connections is for media, and for what other servers are asked.
const DELIVERIES_SHARE: usize = 4;

/// And one in so many for connections that are kept open.
const IDLE_SHARE: usize = 2;

/// A delivery has a connection, and where an address does not answer, others that are tried beside it: five at most, of which all
/// together have as many as there may be deliveries.
const FILES_PER_DELIVERY: usize = 2;

/// Of so many servers at most connections are kept open: the largest rooms have some thousands that answer. What is for others at
/// that time opens one for each request.
const IDLE_SERVERS: usize = 4096;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Servers that are sent something at once.
    pub deliveries: usize,
    /// Addresses that are tried beside others of the same name, by all connections together.
    pub beside: usize,
    /// Connections to each server that are kept open for what comes next, at least one: without any, requests at once share none
    /// either.
    pub idle_connections: usize,
    /// Servers whose connections are kept open at once.
    pub kept_servers: usize,
    /// For how long: with fewer than some 17,000 files, only until the next request of the same work.
    pub idle_time: Duration,
}

impl Places {
    /// As many as the limit of this process allows.
    pub fn now() -> Places {
        let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(allowed, _)| allowed);
        Places::with_files(usize::try_from(allowed).unwrap_or(usize::MAX))
    }

    fn with_files(files: usize) -> Places {
        let left = files.saturating_sub(usize::from(OPEN_FILES_MAX) + OWN_FILES);
        let unaccepted = left - left / FILES_PER_CONNECTION;
        let idle = unaccepted / IDLE_SHARE;
        let idle_connections = (idle / IDLE_SERVERS).clamp(1, IDLE_CONNECTIONS_MAX);
        let sent = unaccepted / DELIVERIES_SHARE / FILES_PER_DELIVERY;
        Places {
            // Always one for those who are slow, and one for the others.
            deliveries: sent.clamp(LAGGARDS_PART, DELIVERIES_MAX),
            beside: sent.clamp(1, Semaphore::MAX_PERMITS),
            idle_connections,
            kept_servers: (idle / idle_connections).min(IDLE_SERVERS),
            idle_time: if idle < IDLE_SERVERS { IDLE_CONNECTION_TIME_SHORT } else { IDLE_CONNECTION_TIME },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_leaves_the_store_its_files_whatever_the_limit() {
        for files in [704, 1024, 4096, 16_960, 65_536, 524_288] {
            let places = Places::with_files(files);
            let Places { deliveries, beside, idle_connections, kept_servers, .. } = places;
            let accepted = (files - usize::from(OPEN_FILES_MAX) - OWN_FILES) / FILES_PER_CONNECTION;
            // As many lookups go on that nobody waits for.
            let sent = 2 * deliveries + beside + idle_connections * kept_servers;
            assert!(usize::from(OPEN_FILES_MAX) + accepted + sent < files, "{files}: {places:?}");
            assert!(idle_connections > 0 && kept_servers > 0, "{files}: {places:?}");
            assert!(deliveries >= 8, "{files}: {deliveries}");
        }
    }

    #[test]
    fn with_files_enough_only_the_usual_limits_count() {
        for files in [524_288, usize::MAX] {
            let found = Places::with_files(files);
            let usual = Places {
                deliveries: DELIVERIES_MAX,
                beside: found.beside,
                idle_connections: IDLE_CONNECTIONS_MAX,
                kept_servers: IDLE_SERVERS,
                idle_time: IDLE_CONNECTION_TIME,
            };
            assert_eq!(found, usual);
            assert!(found.beside > 10_000 && found.beside <= Semaphore::MAX_PERMITS);
        }
        let (idle_connections, idle_time) = (1, IDLE_CONNECTION_TIME_SHORT);
        let least = Places { deliveries: 2, beside: 1, idle_connections, kept_servers: 0, idle_time };
        assert_eq!(Places::with_files(0), least);
    }
}
