//! What questions to other servers on behalf of local users have in common.
//!
//! Not here: whether what is answered may be believed, which `check` and the engine decide.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use ruma_common::ServerName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use warren_engine::core::json::canonical_text;

use super::questions::QuestionPlace;
use super::state_answer::StateAnswer;
use super::state_memory::Share;
use super::{Asker, RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{
    ANSWER_HEAD_BYTES_MAX, EVENT_BYTES_MAX, EVENTS_BYTES_MAX, LIST_BYTES_MAX, MEDIA_TIME_MAX,
    STATE_BYTES_MAX, STATE_TIME_MAX,
};
use crate::http::ApiError;

impl RemoteError {
    /// Whether the server does not know the endpoint, so that an older one may be tried.
    pub fn is_unknown_endpoint(&self) -> bool {
        match self {
            RemoteError::Refused { status, errcode, .. } => {
                errcode == "M_UNRECOGNIZED" || (*status == StatusCode::NOT_FOUND && errcode == "M_UNKNOWN")
            }
            _ => false,
        }
    }
}

/// What a user is told. Specification: "The error should be passed through to clients so that they may give better feedback
/// to users", except that what is wrong with our own request is no fault of theirs.
impl From<RemoteError> for ApiError {
    fn from(error: RemoteError) -> ApiError {
        match error {
            RemoteError::Refused { status, errcode, error, room_version, .. } => {
                let is_our_fault =
                    matches!(errcode.as_str(), "M_MISSING_PARAM" | "M_INVALID_PARAM" | "M_UNAUTHORIZED");
                let is_for_users = matches!(
                    status,
                    StatusCode::BAD_REQUEST
                        | StatusCode::FORBIDDEN
                        | StatusCode::NOT_FOUND
                        | StatusCode::PAYLOAD_TOO_LARGE
                );
                match is_for_users && !is_our_fault {
                    true => passed_on(status, &errcode, error, room_version),
                    false => ApiError::unknown(format!("The other server refused: {error}"))
                        .with_status(StatusCode::BAD_GATEWAY),
                }
            }
            // The operator's word, and no fault of anybody's.
            RemoteError::NotAdmitted(name) => {
                ApiError::forbidden(format!("The operator of this server does not let it deal with {name}"))
            }
            RemoteError::NoPlace => {
                ApiError::unknown("This server asks too much of others right now; try again in a while")
                    .with_status(StatusCode::SERVICE_UNAVAILABLE)
            }
            RemoteError::NoMemory => {
                ApiError::unknown("This server is busy with other large rooms; try again in a while")
                    .with_status(StatusCode::SERVICE_UNAVAILABLE)
            }
            error => ApiError::unknown(format!("The other server is of no help: {error}"))
                .with_status(StatusCode::BAD_GATEWAY),
        }
    }
}

/// Codes that tell a client of its own session or account, or of the endpoint that it asked: as another server's they would
/// mislead it.
const OF_THE_CLIENT_ITSELF: &[&str] = &[
    "M_UNKNOWN_TOKEN",
    "M_MISSING_TOKEN",
    "M_UNRECOGNIZED",
    "M_UNKNOWN_DEVICE",
    "M_USER_DEACTIVATED",
    "M_USER_LOCKED",
    "M_USER_SUSPENDED",
    "M_USER_LIMIT_EXCEEDED",
    "M_LIMIT_EXCEEDED",
    "M_CONSENT_NOT_GIVEN",
];

/// Whether a client that is told this code takes it for something about itself.
pub fn is_of_the_client_itself(errcode: &str) -> bool {
    OF_THE_CLIENT_ITSELF.contains(&errcode)
}

/// A refusal as the user's client is told of it, with a code of the specification's or of a namespace of its own.
fn passed_on(status: StatusCode, errcode: &str, error: String, room_version: Option<String>) -> ApiError {
    let is_code = errcode.starts_with("M_") || errcode.contains('.');
    if !is_code || is_of_the_client_itself(errcode) {
        return ApiError::verbatim(status, "M_UNKNOWN", error);
    }
    let refused = ApiError::verbatim(status, errcode, error);
    match room_version {
        // Client-server API, "Other error codes": "Inspect the `room_version` property of the error response".
        Some(version) if errcode == "M_INCOMPATIBLE_ROOM_VERSION" => refused.with("room_version", version),
        _ => refused,
    }
}

/// A signed request to another server, which is named by whoever gave us its name.
pub struct Ask<'a> {
    server: &'a str,
    request: Result<Request, RemoteError>,
}

impl<'a> Ask<'a> {
    pub fn get(server: &'a str, target: String) -> Ask<'a> {
        Ask { server, request: Ok(Request::new(Method::GET, target)) }
    }

    /// With a JSON object as the body.
    pub fn put(server: &'a str, target: String, body: &[u8]) -> Ask<'a> {
        let body: Result<&RawValue, _> = serde_json::from_slice(body);
        let body = body.map_err(|error| RemoteError::BadAnswer(format!("this request's content: {error}")));
        let request = body.and_then(|body| Request::new(Method::PUT, target).with_content(&body));
        Ask { server, request }
    }

    pub fn post(server: &'a str, target: String, body: &Value) -> Ask<'a> {
        Ask { server, request: Request::new(Method::POST, target).with_content(body) }
    }

    /// On behalf of a client, with the places that it has for what it has this server ask.
    pub fn asked_by(self, asker: &Asker) -> Ask<'a> {
        Ask { request: self.request.map(|request| request.asked_by(asker)), ..self }
    }

    /// On behalf of a client that has its place, and keeps it until the answer has been read.
    pub fn with_place(self, place: &QuestionPlace) -> Ask<'a> {
        Ask { request: self.request.map(|request| request.with_place(place)), ..self }
    }

    /// It changes nothing: it may be sent again if it goes lost.
    pub fn repeatable(self) -> Ask<'a> {
        Ask { request: self.request.map(Request::repeatable), ..self }
    }

    /// With a time for finding the server and connecting to it, after which nothing is sent.
    pub fn with_connect_time(self, time_max: Duration) -> Ask<'a> {
        Ask { request: self.request.map(|request| request.with_connect_time(time_max)), ..self }
    }

    /// With another time for waiting for its turn, after which nothing is sent.
    pub fn with_wait(self, wait_max: Duration) -> Ask<'a> {
        Ask { request: self.request.map(|request| request.with_wait(wait_max)), ..self }
    }

    /// With another time for all but that.
    pub fn with_time(self, time_max: Duration) -> Ask<'a> {
        Ask { request: self.request.map(|request| request.with_time(time_max)), ..self }
    }

    /// Without a signature: where nothing is known of servers.
    pub fn unsigned(self) -> Ask<'a> {
        Ask { request: self.request.map(Request::unsigned), ..self }
    }

    /// Takes as large an answer as one event makes, or a few small things.
    pub fn for_event(self) -> Ask<'a> {
        self.with_bytes_max(EVENT_BYTES_MAX)
    }

    /// Takes as large an answer as a hundred events make.
    pub fn for_events(self) -> Ask<'a> {
        self.with_bytes_max(EVENTS_BYTES_MAX)
    }

    /// Takes as large an answer as a list makes.
    pub fn for_list(self) -> Ask<'a> {
        self.with_bytes_max(LIST_BYTES_MAX)
    }

    /// Takes an answer of this size.
    pub fn with_bytes_max(self, bytes_max: usize) -> Ask<'a> {
        Ask { request: self.request.map(|request| request.with_bytes_max(bytes_max)), ..self }
    }

    /// Takes a file of this size.
    pub fn for_media(self, bytes_max: u64) -> Ask<'a> {
        let bytes_max =
            usize::try_from(bytes_max).unwrap_or(usize::MAX).saturating_add(ANSWER_HEAD_BYTES_MAX);
        self.with_bytes_max(bytes_max).with_time(MEDIA_TIME_MAX)
    }

    /// The answer, read into `T`.
    pub async fn read<T: DeserializeOwned>(self, ctx: &Context) -> Result<T, RemoteError> {
        read_answer(&self.bytes(ctx).await?)
    }

    /// The answer, which may be as large, and take as long, as a room's state makes it. Tells `watch` how many bytes of it have
    /// come.
    pub async fn state(self, ctx: &Context, watch: impl Fn(usize)) -> Result<StateAnswer, RemoteError> {
        let server = server(self.server)?;
        let request = self.request?.with_bytes_max(STATE_BYTES_MAX).with_time(STATE_TIME_MAX);
        let answer = request.open(ctx, &server).await?;
        StateAnswer::read(answer, ctx.federation.state_memory.share(self.server), watch).await
    }

    /// The same, read into `T`, and its share of the memory, to be kept for as long as what was read.
    pub async fn read_state<T: DeserializeOwned>(
        self,
        ctx: &Context,
        watch: impl Fn(usize),
    ) -> Result<(T, Share), RemoteError> {
        self.state(ctx, watch).await?.parse()
    }

    /// The answer as it is.
    pub async fn bytes(self, ctx: &Context) -> Result<Bytes, RemoteError> {
        let server = server(self.server)?;
        self.request?.bytes(ctx, &server).await
    }

    /// The answer piece by piece.
    pub async fn open(self, ctx: &Context) -> Result<super::client::Answer, RemoteError> {
        let server = server(self.server)?;
        self.request?.open(ctx, &server).await
    }
}

fn server(name: &str) -> Result<ruma_common::OwnedServerName, RemoteError> {
    ServerName::parse(name).map_err(|error| RemoteError::Unreachable(format!("{name}: {error}")))
}

/// Reads an answer.
pub fn read_answer<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(body).map_err(|error| RemoteError::bad_answer("unreadable", error.to_string()))
}

/// An answer in its canonical form, of which the entries are judged by themselves.
pub fn canonical_answer(body: &[u8]) -> Result<Bytes, RemoteError> {
    let text = canonical_text(body, body.len());
    Ok(text.map_err(|error| RemoteError::bad_answer("unreadable", error.to_string()))?.into())
}

/// Text as one segment of a path, or as the value of a parameter: everything is escaped that is not unreserved (RFC 3986,
/// 2.3).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A path below `/_matrix/federation/`: what stands between braces is replaced, in order, by the values, escaped.
pub fn path(template: &str, values: &[&str]) -> String {
    let mut out = String::from("/_matrix/federation");
    let mut values = values.iter();
    for segment in template.split('/') {
        let value = if segment.starts_with('{') { values.next() } else { None };
        out.push('/');
        out.push_str(&value.map_or(Cow::Borrowed(segment), |value| Cow::Owned(escaped(value))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_stays_one_segment() {
        let path = path("v1/make_join/{roomId}/{userId}", &["!a/b:c", "@ü:d?e"]);
        assert_eq!(path, "/_matrix/federation/v1/make_join/%21a%2Fb%3Ac/%40%C3%BC%3Ad%3Fe");
    }

    #[test]
    fn what_is_our_fault_is_not_the_users() {
        let refused = |status, errcode: &str| {
            let (status, body) = told(status, errcode);
            (status, body["errcode"].as_str().unwrap().to_owned())
        };
        let expect = |status: u16, errcode: &str| (status, errcode.to_owned());
        assert_eq!(refused(StatusCode::FORBIDDEN, "M_FORBIDDEN"), expect(403, "M_FORBIDDEN"));
        assert_eq!(refused(StatusCode::BAD_REQUEST, "M_INVALID_PARAM"), expect(502, "M_UNKNOWN"));
        assert_eq!(refused(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"), expect(502, "M_UNKNOWN"));
        // Codes that are passed on, though this server never says such a thing itself.
        for code in ["M_RESOURCE_LIMIT_EXCEEDED", "ORG.EXAMPLE.BURROW_FULL"] {
            assert_eq!(refused(StatusCode::FORBIDDEN, code), expect(403, code));
        }
        // And what says something of the client itself, or is no code.
        for code in OF_THE_CLIENT_ITSELF.iter().chain(&["FORBIDDEN", "m_forbidden", ""]) {
            assert_eq!(refused(StatusCode::NOT_FOUND, code), expect(404, "M_UNKNOWN"), "{code}");
        }
    }

    #[test]
    fn whom_the_operator_shuts_out_is_forbidden() {
        let error = ApiError::from(RemoteError::NotAdmitted("there.example".to_owned()));
        assert_eq!((error.status.as_u16(), error.errcode), (403, "M_FORBIDDEN"));
        assert!(error.error.contains("there.example"), "{}", error.error);
        let unreachable = ApiError::from(RemoteError::Unreachable("no route".to_owned()));
        assert_eq!((unreachable.status.as_u16(), unreachable.errcode), (502, "M_UNKNOWN"));
        let not_asked = ApiError::from(RemoteError::NoPlace);
        assert_eq!((not_asked.status.as_u16(), not_asked.errcode), (503, "M_UNKNOWN"));
    }

    #[test]
    fn a_client_is_told_which_room_version_keeps_it_out() {
        let (status, body) = told(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION");
        assert_eq!((status, &body["room_version"]), (400, &Value::from("org.example.13")));
        assert_eq!(told(StatusCode::FORBIDDEN, "M_FORBIDDEN").1.get("room_version"), None);
    }

    /// Status and body of what a client is told of a refusal that names a room version.
    fn told(status: StatusCode, errcode: &str) -> (u16, Value) {
        let (errcode, error) = (errcode.to_owned(), "no".to_owned());
        let room_version = Some("org.example.13".to_owned());
        let refused =
            RemoteError::Refused { status, errcode, error, retry_after: None, room_version, has_code: true };
        let error = ApiError::from(refused);
        (error.status.as_u16(), serde_json::from_slice(&error.body()).unwrap())
    }

    #[test]
    fn nobody_is_refused_without_a_sentence() {
        for status in [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            for body in
                ["<html>", "{}", r#"{"errcode":"M_UNRECOGNIZED"}"#, r#"{"errcode":"M_NOT_FOUND","error":""}"#]
            {
                let said = RemoteError::of_answer(status, &http::HeaderMap::new(), body.as_bytes());
                assert!(!ApiError::from(said).error.is_empty(), "{status} {body}");
            }
        }
    }
}
