//! What is remembered of policy servers: who is left alone, when each has answered last, and which events they gave nothing about.

use std::time::Instant;

use dashmap::DashMap;
use ruma_common::{OwnedServerName, ServerName};

use super::RemoteError;
use super::silences::Silences;
use super::unanswered::Unanswered;
use crate::federation::limits::{POLICY_PAUSE, SILENT_SERVERS_MAX};

/// What is remembered of policy servers. All of it may be forgotten.
pub struct PolicyServers {
    silences: Silences,
    /// When each has answered last, whatever that was.
    answered: DashMap<OwnedServerName, Instant>,
    /// Events that are sent now.
    pub live: Unanswered,
    /// Events of the past.
    pub past: Unanswered,
}

impl Default for PolicyServers {
    fn default() -> PolicyServers {
        PolicyServers {
            silences: Silences::new(POLICY_PAUSE),
            answered: DashMap::new(),
            live: Unanswered::default(),
            past: Unanswered::default(),
        }
    }
}

impl PolicyServers {
    /// Whether one is not to be asked about events of other servers, since it was out a short time ago.
    pub fn is_left_alone(&self, name: &str) -> bool {
        ServerName::parse(name).is_ok_and(|server: OwnedServerName| self.silences.is_silent(&server))
    }

    /// Whether one has answered anything since then.
    pub fn has_answered_since(&self, name: &str, begun: Instant) -> bool {
        let answered =
            |server: OwnedServerName| self.answered.get(&server).is_some_and(|last| *last >= begun);
        ServerName::parse(name).is_ok_and(answered)
    }

    /// Notes what came of a request that was begun then. One that is not answered in time, while others are, says nothing of the server:
    /// else one event that it takes long over would keep it from being asked about all others.
    pub fn note(&self, server: &ServerName, begun: Instant, failure: Option<&RemoteError>) {
        match failure {
            // It was not asked.
            Some(RemoteError::NotAdmitted(_) | RemoteError::NoPlace | RemoteError::NoMemory) => {}
            Some(RemoteError::Timeout) if self.has_answered_since(server.as_str(), begun) => {}
            Some(failure) if failure.is_outage() => self.silences.note(server, true),
            _ => {
                if self.answered.len() >= SILENT_SERVERS_MAX {
                    self.answered.clear();
                }
                self.answered.insert(server.to_owned(), Instant::now());
                self.silences.note(server, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::*;

    const NAME: &str = "policy.test";

    fn answered(status: u16) -> RemoteError {
        RemoteError::of_answer(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"{}")
    }

    #[test]
    fn a_policy_server_that_is_out_is_left_alone_until_it_answers() {
        let server: OwnedServerName = ServerName::parse(NAME).unwrap();
        for outage in [
            RemoteError::Timeout,
            RemoteError::Unreachable(String::new()),
            answered(502),
            answered(503),
            answered(504),
        ] {
            let servers = PolicyServers::default();
            let begun = Instant::now();
            assert!(!servers.is_left_alone(NAME));
            servers.note(&server, begun, Some(&outage));
            assert!(servers.is_left_alone(NAME) && !servers.is_left_alone("other.test"), "{outage}");
            assert!(!servers.has_answered_since(NAME, begun));
            servers.note(&server, begun, Some(&RemoteError::NotAdmitted(NAME.to_owned())));
            assert!(servers.is_left_alone(NAME), "it was not asked");
            servers.note(&server, begun, Some(&answered(400)));
            assert!(!servers.is_left_alone(NAME) && servers.has_answered_since(NAME, begun));
        }
    }

    #[test]
    fn one_event_that_it_hangs_on_has_it_left_alone_for_no_other() {
        let server: OwnedServerName = ServerName::parse(NAME).unwrap();
        let (servers, begun) = (PolicyServers::default(), Instant::now());
        servers.note(&server, begun, None);
        servers.note(&server, begun, Some(&RemoteError::Timeout));
        assert!(!servers.is_left_alone(NAME));
        // Nothing was answered since.
        let later = Instant::now() + Duration::from_secs(1);
        servers.note(&server, later, Some(&RemoteError::Timeout));
        assert!(servers.is_left_alone(NAME));
    }
}
