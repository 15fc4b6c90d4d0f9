//! What is remembered of policy servers: who is left alone, when each has answered last, and which events they gave nothing about.

use std::time::Instant;

use dashmap::DashMap;
use http::StatusCode;
use ruma_common::{OwnedServerName, ServerName};

use super::RemoteError;
use super::silences::Silences;
use super::unanswered::Unanswered;
use crate::federation::limits::{POLICY_ANSWERS_TIME, POLICY_PAUSE, SILENT_SERVERS_MAX};

struct Answered {
    at: Instant,
    begun: Instant,
}

/// What is remembered of policy servers. All of it may be forgotten.
pub struct PolicyServers {
    silences: Silences,
    /// When each has answered last, whatever that was, and when the last request that it has answered was begun.
    answered: DashMap<OwnedServerName, Answered>,
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
    /// Whether one is not to be asked about events of other servers, since it did not answer a short time ago.
    pub fn is_left_alone(&self, name: &str) -> bool {
        ServerName::parse(name).is_ok_and(|server: OwnedServerName| self.silences.is_silent(&server))
    }

    /// Whether one has answered anything since then.
    pub fn has_answered_since(&self, name: &str, begun: Instant) -> bool {
        let answered =
            |server: OwnedServerName| self.answered.get(&server).is_some_and(|last| last.at >= begun);
        ServerName::parse(name).is_ok_and(answered)
    }

    /// Whether one has answered what was asked after a question was begun, and still did shortly before `now`, when that one was late. One
    /// that has much to do, and takes it in turn, has not.
    pub fn answers_others(&self, name: &str, begun: Instant, now: Instant) -> bool {
        let lately = now.checked_sub(POLICY_ANSWERS_TIME).unwrap_or(begun);
        let is_passed = |server: OwnedServerName| {
            self.answered.get(&server).is_some_and(|last| last.begun >= begun && last.at >= lately)
        };
        ServerName::parse(name).is_ok_and(is_passed)
    }

    /// Notes what came of a request that was begun then. One that is not answered, while others are, says nothing of the server: else one
    /// event that it takes long over would keep it from being asked about all others. So would one of which something before it says
    /// that it is out, which costs nothing to be told again.
    pub fn note(&self, server: &ServerName, begun: Instant, failure: Option<&RemoteError>) {
        match failure {
            // It was not asked.
            Some(RemoteError::NotAdmitted(_) | RemoteError::NoPlace | RemoteError::NoMemory) => {}
            Some(failure) if failure.is_silence() && !self.has_answered_since(server.as_str(), begun) => {
                self.silences.note(server, true);
            }
            // It may be about the one event.
            Some(failure) if failure.is_outage() => {}
            // It is there, and has looked at nothing.
            Some(RemoteError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }) => {
                self.silences.note(server, false);
            }
            _ => {
                if self.answered.len() >= SILENT_SERVERS_MAX {
                    self.answered.clear();
                }
                let mut last = self
                    .answered
                    .entry(server.to_owned())
                    .or_insert_with(|| Answered { at: Instant::now(), begun });
                *last = Answered { at: Instant::now(), begun: last.begun.max(begun) };
                drop(last);
                self.silences.note(server, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;

    const NAME: &str = "policy.test";

    fn answered(status: u16) -> RemoteError {
        RemoteError::of_answer(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"{}")
    }

    #[test]
    fn a_policy_server_that_does_not_answer_is_left_alone_until_it_does() {
        let server: OwnedServerName = ServerName::parse(NAME).unwrap();
        for outage in [RemoteError::Timeout, RemoteError::Unreachable(String::new())] {
            let servers = PolicyServers::default();
            let begun = Instant::now();
            assert!(!servers.is_left_alone(NAME));
            servers.note(&server, begun, Some(&outage));
            assert!(servers.is_left_alone(NAME) && !servers.is_left_alone("other.test"), "{outage}");
            assert!(!servers.has_answered_since(NAME, begun));
            servers.note(&server, begun, Some(&RemoteError::NotAdmitted(NAME.to_owned())));
            assert!(servers.is_left_alone(NAME), "it was not asked");
            servers.note(&server, begun, Some(&answered(502)));
            assert!(servers.is_left_alone(NAME), "something else answers for it");
            servers.note(&server, begun, Some(&answered(400)));
            assert!(!servers.is_left_alone(NAME) && servers.has_answered_since(NAME, begun));
        }
    }

    #[test]
    fn one_event_that_it_is_said_to_be_out_for_has_it_left_alone_for_no_other() {
        let server: OwnedServerName = ServerName::parse(NAME).unwrap();
        let (servers, begun) = (PolicyServers::default(), Instant::now());
        for status in [502, 503, 504] {
            servers.note(&server, begun, Some(&answered(status)));
            assert!(!servers.is_left_alone(NAME) && !servers.has_answered_since(NAME, begun), "{status}");
        }
    }

    #[test]
    fn one_event_that_it_hangs_on_has_it_left_alone_for_no_other() {
        let server: OwnedServerName = ServerName::parse(NAME).unwrap();
        for silence in [RemoteError::Timeout, RemoteError::Unreachable(String::new())] {
            let (servers, begun) = (PolicyServers::default(), Instant::now());
            servers.note(&server, begun, None);
            servers.note(&server, begun, Some(&silence));
            assert!(!servers.is_left_alone(NAME), "{silence}");
            // Nothing was answered since.
            let later = Instant::now() + Duration::from_secs(1);
            servers.note(&server, later, Some(&silence));
            assert!(servers.is_left_alone(NAME), "{silence}");
        }
    }

    #[test]
    fn it_answers_others_if_it_did_since_and_a_short_time_ago() {
        let server: OwnedServerName = ServerName::parse(NAME).unwrap();
        let (servers, begun) = (PolicyServers::default(), Instant::now());
        assert!(!servers.answers_others(NAME, begun, begun));
        servers.note(&server, begun, None);
        let answered = Instant::now();
        let tick = Duration::from_millis(1);
        assert!(servers.answers_others(NAME, begun, answered));
        assert!(servers.answers_others(NAME, begun, begun + POLICY_ANSWERS_TIME));
        assert!(!servers.answers_others(NAME, begun, answered + POLICY_ANSWERS_TIME + tick));
        assert!(!servers.answers_others(NAME, answered + tick, answered + tick), "it was before");
        assert!(!servers.answers_others("other.test", begun, answered));
        // It answers in turn, and has come to none that was asked later.
        assert!(!servers.answers_others(NAME, begun + tick, answered));
        servers.note(&server, begun + tick, Some(&self::answered(429)));
        assert!(!servers.answers_others(NAME, begun + tick, answered), "it has looked at nothing");
    }
}
