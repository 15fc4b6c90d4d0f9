//! How many connections to other servers there may be, by how many files the process may have open.
//!
//! Invariant: what is sent to other servers never takes the descriptors that the store needs, however many servers there are.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Semaphore;
use warren_engine::OPEN_FILES_MAX;

use crate::federation::limits::{
    DELIVERIES_MAX, IDLE_CONNECTION_TIME, IDLE_CONNECTION_TIME_SHORT, IDLE_CONNECTIONS_MAX, LAGGARDS_PART,
    QUESTION_BYTES, QUESTIONS_MAX, QUESTIONS_MIN, QUESTIONS_PERCENT,
};
use crate::open_files::{FILES_PER_CONNECTION, OWN_FILES};

/// Of the files that are left beside accepted connections, one in so many is for deliveries. What is neither for these nor for
/// idle connections is for what other servers are asked, and for media.
const DELIVERIES_SHARE: usize = 4;

/// And one in so many for connections that are kept open.
const IDLE_SHARE: usize = 2;

/// A delivery has a connection, and where an address does not answer, others that are tried beside it: five at most, of which all
/// together have as many as there may be deliveries.
const FILES_PER_DELIVERY: usize = 2;

/// Of what is left then, one in so many is for connections that clients' questions take. The others are for those to servers whose
/// connections are kept, of which one may have more while it is asked, for what this server asks by itself, and for files of media.
const QUESTIONS_SHARE: usize = 2;

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
    /// Questions to other servers that clients have this one ask at once.
    pub questions: usize,
    /// For how long: with fewer than some 17,000 files, only until the next request of the same work.
    pub idle_time: Duration,
}

impl Places {
    /// As many as the limit of this process allows, and so much memory.
    pub fn now(memory_budget_bytes: u64) -> Places {
        let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(allowed, _)| allowed);
        Places::with_files(usize::try_from(allowed).unwrap_or(usize::MAX), memory_budget_bytes)
    }

    fn with_files(files: usize, memory_budget_bytes: u64) -> Places {
        let left = files.saturating_sub(usize::from(OPEN_FILES_MAX) + OWN_FILES);
        let unaccepted = left - left / FILES_PER_CONNECTION;
        let idle = unaccepted / IDLE_SHARE;
        let idle_connections = (idle / IDLE_SERVERS).clamp(1, IDLE_CONNECTIONS_MAX);
        let kept_servers = (idle / idle_connections).min(IDLE_SERVERS);
        let sent = unaccepted / DELIVERIES_SHARE / FILES_PER_DELIVERY;
        // Always one for those who are slow, and one for the others.
        let deliveries = sent.clamp(LAGGARDS_PART, DELIVERIES_MAX);
        let beside = sent.clamp(1, Semaphore::MAX_PERMITS);
        // As many lookups go on that nobody waits for.
        let rest = unaccepted.saturating_sub(idle_connections * kept_servers + 2 * deliveries + beside);
        let affordable = memory_budget_bytes.saturating_mul(QUESTIONS_PERCENT) / 100 / QUESTION_BYTES;
        let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
        Places {
            deliveries,
            beside,
            idle_connections,
            kept_servers,
            questions: (rest / QUESTIONS_SHARE).min(affordable).clamp(QUESTIONS_MIN, QUESTIONS_MAX),
            idle_time: if idle < IDLE_SERVERS { IDLE_CONNECTION_TIME_SHORT } else { IDLE_CONNECTION_TIME },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL_MEMORY: u64 = 512 << 20;

    #[test]
    fn what_is_sent_leaves_the_store_its_files_whatever_the_limit() {
        for files in [704, 1024, 4096, 16_960, 65_536, 524_288] {
            let places = Places::with_files(files, USUAL_MEMORY);
            let Places { deliveries, beside, idle_connections, kept_servers, questions, .. } = places;
            let accepted = (files - usize::from(OPEN_FILES_MAX) - OWN_FILES) / FILES_PER_CONNECTION;
            // As many lookups go on that nobody waits for.
            let kept = idle_connections * kept_servers;
            // Of the servers whose connections are kept one may have as many more as there are questions.
            let sent = 2 * deliveries + beside + kept + 2 * questions;
            assert!(usize::from(OPEN_FILES_MAX) + accepted + sent < files, "{files}: {places:?}");
            assert!(idle_connections > 0 && kept_servers > 0, "{files}: {places:?}");
            assert!(deliveries >= 8, "{files}: {deliveries}");
            assert!(questions >= QUESTIONS_MIN, "{files}: {questions}");
        }
    }

    #[test]
    fn questions_take_a_part_of_the_memory_whatever_the_limit() {
        for memory in [32 << 20, 128 << 20, USUAL_MEMORY, 1 << 40] {
            for files in [65_536, usize::MAX] {
                let questions = Places::with_files(files, memory).questions as u64;
                assert!(questions > 100 && questions * QUESTION_BYTES < memory / 5, "{files}: {questions}");
            }
        }
        assert_eq!(Places::with_files(65_536, USUAL_MEMORY).questions, QUESTIONS_MAX);
    }

    #[test]
    fn with_files_enough_only_the_usual_limits_count() {
        for files in [524_288, usize::MAX] {
            let found = Places::with_files(files, USUAL_MEMORY);
            let usual = Places {
                deliveries: DELIVERIES_MAX,
                beside: found.beside,
                idle_connections: IDLE_CONNECTIONS_MAX,
                kept_servers: IDLE_SERVERS,
                questions: QUESTIONS_MAX,
                idle_time: IDLE_CONNECTION_TIME,
            };
            assert_eq!(found, usual);
            assert!(found.beside > 10_000 && found.beside <= Semaphore::MAX_PERMITS);
        }
        let (idle_connections, idle_time) = (1, IDLE_CONNECTION_TIME_SHORT);
        let questions = QUESTIONS_MIN;
        let least =
            Places { deliveries: 2, beside: 1, idle_connections, kept_servers: 0, questions, idle_time };
        assert_eq!(Places::with_files(0, USUAL_MEMORY), least);
    }
}
