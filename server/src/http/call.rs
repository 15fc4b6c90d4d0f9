//! One request as a handler sees it: parameters by name, the body as JSON, the session, the context.
//!
//! All reading is lazy and borrows from the request. Whatever is malformed becomes the right error by `?`.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use ruma_common::{DeviceId, OwnedServerName, ServerName, UserId};
use serde::Deserialize;

use super::limits::{BODY_SILENCE_MAX, PATH_PARAMETERS_MAX};
use super::query::{self, Parameters};
use super::route::Endpoint;
use super::session::Session;
use super::{Answer, ApiError, json};
use crate::context::Context;
use crate::federation::out::Asker;
use crate::federation::places::Place;

/// What every handler returns.
pub type Outcome = Result<Answer, ApiError>;

/// A routed, authenticated, rate-limited request.
pub struct Call {
    pub ctx: Arc<Context>,
    pub endpoint: &'static Endpoint,
    /// The client's address, taken from `X-Forwarded-For` only behind a configured proxy. `None` on a unix socket.
    pub client: Option<IpAddr>,
    pub(super) parts: Parts,
    pub(super) path_values: PathValues,
    pub(super) parameters: Parameters,
    pub(super) session: Option<Arc<Session>>,
    pub(super) origin: Option<OwnedServerName>,
    pub(super) body: Bytes,
    /// Held for a large body of another server until the request is answered.
    pub(super) place: Option<Place>,
    pub(super) stream: Option<BodyStream>,
}

/// Where in the request's path the parameters are, in the order of the endpoint's template.
pub type PathValues = [Range<u16>; PATH_PARAMETERS_MAX];

impl Call {
    /// The session; an error if the row's auth is `None` or `Optional` and nobody is logged in.
    pub fn session(&self) -> Result<&Session, ApiError> {
        self.session.as_deref().ok_or_else(|| ApiError::missing_token("This request needs an access token"))
    }

    /// The session, if there is one (rows with auth `Optional`).
    pub fn session_if_any(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// On whose behalf this server asks others.
    pub fn asker(&self) -> Asker {
        match self.session_if_any().filter(|session| !session.is_guest) {
            Some(session) => Asker::User(session.user_id.to_string()),
            None => Asker::Stranger(self.client),
        }
    }

    /// The user who asks.
    pub fn user(&self) -> Result<&UserId, ApiError> {
        Ok(&self.session()?.user_id)
    }

    /// The device that asks. Errors: 400 for an application service that has not named one.
    pub fn device(&self) -> Result<&DeviceId, ApiError> {
        let device_id = self.session()?.device_id.as_deref();
        device_id.ok_or_else(|| ApiError::unknown_device("This request must come from a device"))
    }

    /// The server that asks; an error if the row's auth is not `Server`.
    pub fn origin(&self) -> Result<&ServerName, ApiError> {
        self.origin
            .as_deref()
            .ok_or_else(|| ApiError::unauthorized("This request must be signed by a server"))
    }

    /// Refuses a suspended account (section "Account suspension").
    pub fn refuse_suspended(&self) -> Result<(), ApiError> {
        match self.session_if_any() {
            Some(session) if session.is_suspended => {
                Err(ApiError::user_suspended("You cannot do this while your account is suspended"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses if the user in the path is not the one who asks: account data, filters, tags and the like.
    pub fn own_user(&self, name: &str) -> Result<&UserId, ApiError> {
        let (user, named) = (self.user()?, self.path(name)?);
        if user.as_str() == named {
            Ok(user)
        } else {
            Err(ApiError::forbidden("This belongs to another user"))
        }
    }

    /// A path parameter by its name in the template, percent-decoded.
    pub fn path(&self, name: &str) -> Result<Cow<'_, str>, ApiError> {
        let index = self.endpoint.parameter_names().position(|known| known == name);
        let raw = index
            .and_then(|index| self.path_values.get(index))
            .and_then(|range| self.parts.uri.path().get(usize::from(range.start)..usize::from(range.end)))
            .ok_or_else(|| {
                ApiError::internal(format_args!("{} has no parameter {name}", self.endpoint.path))
            })?;
        query::percent_decode(raw, false)
            .ok_or_else(|| ApiError::invalid_param(format!("{name} in the path is not valid UTF-8")))
    }

    /// A path parameter as an identifier or number: `call.path_as::<OwnedRoomId>("roomId")?`.
    pub fn path_as<T: FromStr>(&self, name: &str) -> Result<T, ApiError>
    where
        T::Err: Display,
    {
        let text = self.path(name)?;
        text.parse().map_err(|error| ApiError::invalid_param(format!("{name} in the path: {error}")))
    }

    /// A query parameter, decoded; the first if it is repeated.
    pub fn query(&self, name: &str) -> Result<Option<Cow<'_, str>>, ApiError> {
        let raw = self.parameters.values(self.raw_query(), name).next();
        raw.map(|raw| decode_query(name, raw)).transpose()
    }

    /// All values of a query parameter that may be repeated, decoded.
    pub fn query_all(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let values = self.parameters.values(self.raw_query(), name);
        values.map(|raw| decode_query(name, raw).map(Cow::into_owned)).collect()
    }

    /// A query parameter that must be there.
    pub fn query_required(&self, name: &str) -> Result<Cow<'_, str>, ApiError> {
        self.query(name)?.ok_or_else(|| missing_query(name))
    }

    /// A query parameter that is a number without sign.
    pub fn query_u64(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.query(name)? else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            ApiError::invalid_param(format!(
                "Query parameter {name} must be a whole number from 0 to {}",
                u64::MAX
            ))
        })?;
        Ok(Some(number))
    }

    /// A query parameter that is `true` or `false`; `default` if it is absent.
    pub fn query_bool(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        Ok(self.query_enum(name, &[("true", true), ("false", false)])?.unwrap_or(default))
    }

    /// A query parameter with few values: `call.query_enum("dir", &[("b", Backwards), ("f", Forwards)])?`.
    pub fn query_enum<T: Copy>(&self, name: &str, values: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(text) = self.query(name)? else { return Ok(None) };
        match values.iter().find(|(value, _)| *value == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let known: Vec<&str> = values.iter().map(|(value, _)| *value).collect();
                Err(ApiError::invalid_param(format!(
                    "Query parameter {name} must be one of: {}",
                    known.join(", ")
                )))
            }
        }
    }

    /// The query string as sent.
    pub fn raw_query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// The body as a JSON object of the shape of `T`, which may borrow from it.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        json::parse(&self.body)
    }

    /// The same where the specification lets clients send no body at all, which then counts as `{}`.
    pub fn json_or_empty<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        json::parse(if self.body.trim_ascii().is_empty() { b"{}" } else { &self.body })
    }

    /// The text of the body, checked to be one JSON object that is fit to be kept and shown as it came: account data, profiles.
    ///
    /// Errors: 400 also for what others could not read.
    pub fn json_content(&self) -> Result<&str, ApiError> {
        json::content(&self.body)
    }

    /// The text of the body, checked to be one well-formed JSON object.
    pub fn json_object(&self) -> Result<&str, ApiError> {
        json::object(&self.body)
    }

    /// The body as it came. Empty for rows whose body class is `Nothing` or `Stream`.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Lets go of the body, with its place, which is not looked at any more: what else the request waits for may take long.
    pub fn drop_body(&mut self) {
        self.body = Bytes::new();
        self.place = None;
    }

    /// The unread body of a row whose body class is `Stream`, once.
    pub fn take_stream(&mut self) -> Result<BodyStream, ApiError> {
        self.stream.take().ok_or_else(|| ApiError::internal("the body is not a stream, or was taken"))
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A header's text; `None` if it is absent or not visible ASCII.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// What HTTP/2 has in the place of the `Host` header.
    pub fn authority(&self) -> Option<&str> {
        self.parts.uri.authority().map(|authority| authority.as_str())
    }

    pub fn version(&self) -> http::Version {
        self.parts.version
    }

    pub fn method(&self) -> &http::Method {
        &self.parts.method
    }

    /// The path as sent, undecoded.
    pub fn raw_path(&self) -> &str {
        self.parts.uri.path()
    }

    /// Path and query as sent, undecoded: what the signature of a server is over.
    pub fn raw_target(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |target| target.as_str())
    }
}

fn decode_query<'q>(name: &str, raw: &'q str) -> Result<Cow<'q, str>, ApiError> {
    query::percent_decode(raw, true)
        .ok_or_else(|| ApiError::invalid_param(format!("Query parameter {name} is not valid UTF-8")))
}

fn missing_query(name: &str) -> ApiError {
    ApiError::missing_param(format!("Query parameter {name} is missing"))
}

/// A body that is read piece by piece, with a limit on its size and on its silences.
pub struct BodyStream {
    pub(super) incoming: Incoming,
    /// How many bytes may still come.
    pub(super) bytes_left: u64,
}

impl BodyStream {
    /// The next piece; `None` at the end. Errors: 413 beyond the limit, 408 after a long silence.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let Ok(frame) = tokio::time::timeout(BODY_SILENCE_MAX, self.incoming.frame()).await else {
                return Err(ApiError::unknown("The body came too slowly")
                    .with_status(http::StatusCode::REQUEST_TIMEOUT));
            };
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| ApiError::unknown(format!("The body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let Some(left) = self.bytes_left.checked_sub(data.len() as u64) else {
                return Err(ApiError::too_large("The body is larger than this server accepts"));
            };
            self.bytes_left = left;
            return Ok(Some(data));
        }
    }
}
