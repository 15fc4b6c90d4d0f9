//! What can become of a request to another server.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;
use warren_engine::core::version::RoomVersion;

use crate::federation::refusals;

/// Why there is no answer. Who asked can decide by it whether to try again, another server, or not at all.
#[derive(Debug, Clone)]
pub enum RemoteError {
    /// This server does not deal with that one, whose name it is: the operator's lists, or federation is off.
    NotAdmitted(String),
    /// It could not be reached, or the connection broke off: a sentence.
    Unreachable(String),
    /// It did not answer in time.
    Timeout,
    /// It answered with an error.
    Refused {
        status: StatusCode,
        errcode: String,
        error: String,
        /// After what time it may be asked again, where it says so.
        retry_after: Option<Duration>,
        /// The version of the room that was asked for, where it says so.
        room_version: Option<String>,
        /// Whether it said so by an error code, as servers do: what stands before one that is down may answer in its stead.
        has_code: bool,
    },
    /// Its answer is too large, or not what was asked for: a sentence.
    BadAnswer(String),
    /// It was not asked, as too much is asked on behalf of clients.
    NoPlace,
    /// Its answer has no place beside what other servers tell of large rooms.
    NoMemory,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteError::NotAdmitted(name) => write!(out, "this server does not deal with {name}"),
            RemoteError::Unreachable(cause) => write!(out, "not reachable: {cause}"),
            RemoteError::Timeout => write!(out, "no answer in time"),
            RemoteError::Refused { status, errcode, error, retry_after: None, .. } => {
                write!(out, "refused with {} {errcode}: {error}", status.as_u16())
            }
            RemoteError::Refused { status, errcode, error, retry_after: Some(after), .. } => {
                write!(out, "refused with {} {errcode} for {} s: {error}", status.as_u16(), after.as_secs())
            }
            RemoteError::BadAnswer(cause) => write!(out, "not a usable answer: {cause}"),
            RemoteError::NoPlace => write!(out, "too many questions to other servers are under way here"),
            RemoteError::NoMemory => write!(out, "no memory left for what it tells"),
        }
    }
}

impl std::error::Error for RemoteError {}

/// The specification's "standard error response".
#[derive(Deserialize, Default)]
#[serde(default)]
struct StandardError {
    errcode: String,
    error: String,
    retry_after_ms: Option<u64>,
    room_version: Value,
}

impl RemoteError {
    /// Whether there was no answer at all.
    pub fn is_silence(&self) -> bool {
        matches!(self, RemoteError::Timeout | RemoteError::Unreachable(_))
    }

    /// Whether the server itself has not answered: nothing did, or what stands before a server that is down speaks for it. One that says
    /// so of itself cannot tell for now, which comes to the same.
    pub fn is_outage(&self) -> bool {
        const OUTAGES: [StatusCode; 3] =
            [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        match self {
            RemoteError::Refused { status, .. } => OUTAGES.contains(status),
            failure => failure.is_silence(),
        }
    }

    /// An answer that is not taken, which is counted. `cause` is a sentence.
    pub fn bad_answer(reason: &'static str, cause: impl Into<String>) -> RemoteError {
        refusals::answer(reason);
        RemoteError::BadAnswer(cause.into())
    }

    /// An answer for which there is no memory, which is counted.
    pub fn no_memory() -> RemoteError {
        refusals::answer("no_memory");
        RemoteError::NoMemory
    }

    /// The error in an answer whose status is none of success. What the peer writes goes to logs and to clients, so it is
    /// cut to a length.
    pub fn of_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> RemoteError {
        let said: StandardError = serde_json::from_slice(body).unwrap_or_default();
        let seconds =
            || headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs);
        let is_errcode = |text: &str| {
            (1..=ERRCODE_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
        };
        let has_code = is_errcode(&said.errcode);
        RemoteError::Refused {
            status,
            errcode: if has_code { said.errcode } else { "M_UNKNOWN".to_owned() },
            error: said.error.chars().filter(|char| !char.is_control()).take(ERROR_CHARS_MAX).collect(),
            retry_after: said.retry_after_ms.map(Duration::from_millis).or_else(seconds),
            room_version: said.room_version.as_str().filter(|id| RoomVersion::is_id(id)).map(str::to_owned),
            has_code,
        }
    }
}

/// Error codes are names; the longest of the specification has 41 bytes.
const ERRCODE_BYTES_MAX: usize = 100;

/// A sentence or two.
const ERROR_CHARS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str, headers: &HeaderMap) -> (String, String, Option<Duration>) {
        match RemoteError::of_answer(StatusCode::FORBIDDEN, headers, body.as_bytes()) {
            RemoteError::Refused { errcode, error, retry_after, .. } => (errcode, error, retry_after),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn whatever_a_peer_writes_is_an_error() {
        let none = HeaderMap::new();
        let said = error(r#"{"errcode":"M_FORBIDDEN","error":"no","retry_after_ms":1500}"#, &none);
        assert_eq!(said, ("M_FORBIDDEN".to_owned(), "no".to_owned(), Some(Duration::from_millis(1500))));
        let unknown = ("M_UNKNOWN".to_owned(), String::new(), None);
        for body in ["", "<html>", "[]", r#"{"errcode":5}"#, r#"{"errcode":"a b\n"}"#] {
            assert_eq!(error(body, &none), unknown, "{body}");
        }
        let long = format!(r#"{{"errcode":"M_X","error":"\n{}"}}"#, "a".repeat(100_000));
        assert_eq!(error(&long, &none).1, "a".repeat(ERROR_CHARS_MAX));
        let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static("7"))]);
        assert_eq!(error("", &headers).2, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_server_is_out_where_nothing_answers_or_something_in_its_stead() {
        let answered = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            RemoteError::of_answer(status, &HeaderMap::new(), body.as_bytes()).is_outage()
        };
        for status in [502, 503, 504] {
            assert!(answered(status, "<html>Bad Gateway</html>"), "{status}");
            assert!(answered(status, r#"{"errcode":"M_UNKNOWN","error":"Not now"}"#), "{status}");
        }
        for status in [400, 403, 404, 429, 500, 501] {
            assert!(!answered(status, r#"{"errcode":"M_UNKNOWN","error":"No"}"#), "{status}");
        }
        assert!(RemoteError::Timeout.is_outage() && RemoteError::Unreachable(String::new()).is_outage());
        assert!(!RemoteError::BadAnswer(String::new()).is_outage() && !RemoteError::NoPlace.is_outage());
    }

    #[test]
    fn a_room_version_is_taken_if_it_can_be_one() {
        let told = |room_version: &str| {
            let body = format!(r#"{{"errcode":"M_X","room_version":{room_version}}}"#);
            match RemoteError::of_answer(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes()) {
                RemoteError::Refused { errcode, room_version, .. } => (errcode, room_version),
                other => panic!("{other}"),
            }
        };
        for id in ["3", "org.example.burrow-7", &"1".repeat(32)] {
            assert_eq!(told(&format!("\"{id}\"")), ("M_X".to_owned(), Some(id.to_owned())));
        }
        let too_long = format!("\"{}\"", "1".repeat(33));
        for other in ["5", "null", "{}", "\"\"", "\"V1\"", "\"a b\"", &too_long] {
            assert_eq!(told(other), ("M_X".to_owned(), None), "{other}");
        }
    }
}
