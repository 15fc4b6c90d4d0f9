//! How many files the process may have open, and how many connections that and the memory allow.
//!
//! Invariant: connections that others open never take the descriptors that the store needs, which takes no commits any more
//! once it could not open a file.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};
use warren_engine::OPEN_FILES_MAX;

/// What the process has open beside tables, connections and files of media: standard streams, the runtime's, listeners and
/// the connections to the metrics', the store's logs, and the tables that are being written.
pub const OWN_FILES: usize = 64;

/// Of what is left, one in so many is a connection that is accepted. The other ones are for files of media that these ask for
/// or send, and for connections to other servers ([`Places`](crate::federation::out::places::Places)).
pub const FILES_PER_CONNECTION: usize = 2;

/// So many clients and servers must be able to connect for it to make sense to start: a client has some six connections
/// open, and a proxy keeps some dozens.
const CONNECTIONS_MIN: usize = 64;

/// What a connection takes before its request is there: some ten kilobytes, with TLS some thirty.
const BYTES_PER_CONNECTION: u64 = 32 * 1024;

/// The part of the memory budget, in percent, that as many connections as there may be take: 8,192 with the default of 512 MiB.
const CONNECTIONS_PERCENT: u64 = 50;

/// The least number of files that must be allowed: 704.
const FILES_MIN: usize = OPEN_FILES_MAX as usize + OWN_FILES + FILES_PER_CONNECTION * CONNECTIONS_MIN;

/// Below it, the operator is told: what is left with the usual limit of 1,024 is enough for a few dozens of people.
const FILES_USUAL: usize = 4096;

/// Raises the limit of open files as far as this process may, and says how many connections may be accepted at once with that,
/// and with so much memory.
///
/// Errors: a sentence, if the limit is too low.
pub fn raise_limit(memory_budget_bytes: u64) -> Result<usize, String> {
    let (mut allowed, at_most) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| format!("cannot read the limit of open files: {error}"))?;
    if allowed < at_most {
        match setrlimit(Resource::RLIMIT_NOFILE, at_most, at_most) {
            Ok(()) => allowed = at_most,
            Err(error) => warn!(%error, allowed, at_most, "the limit of open files cannot be raised"),
        }
    }
    let files = usize::try_from(allowed).unwrap_or(usize::MAX);
    let connections = connections(files, memory_budget_bytes)?;
    match files < FILES_USUAL {
        true => warn!(files, connections, "few open files are allowed: raise LimitNOFILE (ulimit -Hn)"),
        false => info!(files, connections, "limit of open files"),
    }
    Ok(connections)
}

/// How many connections may be accepted at once when so many files may be open and so much memory be used.
fn connections(files: usize, memory_budget_bytes: u64) -> Result<usize, String> {
    if files < FILES_MIN {
        return Err(format!(
            "only {files} open files are allowed, and {FILES_MIN} are needed at least: raise LimitNOFILE of the service, \
             or `ulimit -Hn`"
        ));
    }
    let left = files - usize::from(OPEN_FILES_MAX) - OWN_FILES;
    let affordable = memory_budget_bytes * CONNECTIONS_PERCENT / 100 / BYTES_PER_CONNECTION;
    Ok((left / FILES_PER_CONNECTION).min(usize::try_from(affordable).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST_MEMORY: u64 = 32 << 20;
    const USUAL_MEMORY: u64 = 512 << 20;

    #[test]
    fn the_store_has_its_files_whatever_the_limit() {
        let store = usize::from(OPEN_FILES_MAX);
        for files in [FILES_MIN, 1024, 4096, 65_536] {
            for memory in [LEAST_MEMORY, USUAL_MEMORY, 1 << 40] {
                let connections = connections(files, memory).expect("enough");
                assert!(
                    connections >= CONNECTIONS_MIN && store + 2 * connections < files,
                    "{files}: {connections}"
                );
            }
        }
    }

    #[test]
    fn connections_take_a_part_of_the_memory_whatever_the_limit() {
        for memory in [LEAST_MEMORY, USUAL_MEMORY, 1 << 40] {
            // No limit at all is a number, too.
            for files in [65_536, 524_288, usize::MAX] {
                let connections = connections(files, memory).expect("enough") as u64;
                assert!(connections * 30_000 < memory / 2, "{files}: {connections}");
            }
        }
        assert!(connections(524_288, 4 * USUAL_MEMORY) > connections(524_288, USUAL_MEMORY));
    }

    #[test]
    fn too_few_files_are_refused_with_what_to_raise() {
        for files in [0, 64, 512, FILES_MIN - 1] {
            let refused = connections(files, USUAL_MEMORY).expect_err("too few");
            assert!(refused.contains(&files.to_string()) && refused.contains("LimitNOFILE"), "{refused}");
        }
    }
}
