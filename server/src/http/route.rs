//! The endpoint tables and the router made from them.
//!
//! An endpoint is one row of its topic's table: everything that is known about it before its handler runs. Paths
//! are the specification's, parameter names included; the router matches the encoded path and decodes afterwards,
//! so that `%2F` inside an event id is not a separator. A single slash at the end of a path is ignored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;

use super::call::PathValues;
use super::limits::PATH_PARAMETERS_MAX;
use super::{ApiError, Call, Outcome};
use crate::metrics::Meter;

/// A handler: `async fn name(call: Call) -> Outcome`, boxed by the [`endpoints!`] table.
pub type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One row: an endpoint and what must hold before its handler runs.
pub struct Endpoint {
    pub method: Method,
    /// The specification's path with the newest version it knows.
    pub path: &'static str,
    /// Where else it is served: a text without slash at its start replaces the version segment (`r0`,
    /// `unstable/org.matrix.msc4321`), one with a slash is a whole path with the same parameters in the same order.
    pub also: &'static [&'static str],
    pub auth: Auth,
    pub rate: Rate,
    pub body: BodyClass,
    pub handler: Handler,
}

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Everybody; a token is not looked at.
    None,
    /// Everybody; a token, if there is one, must be good.
    Optional,
    /// Users, but not guests.
    Required,
    /// Users and guests.
    Guest,
    /// Users and guests, also of locked accounts (logout).
    Locked,
    /// Administrators of this server.
    Admin,
    /// Other servers, by the signature on the request; `call.origin()` tells which one asks.
    Server,
}

/// Which bucket a request is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rate {
    /// Not limited.
    None,
    /// Reads and other cheap requests.
    Read,
    /// Writes of account, device and key data.
    Write,
    /// Events: send, state, redact, receipts, typing.
    Send,
    /// Joins, invites, knocks, room creation.
    Join,
    /// Logins and whatever else checks a password.
    Login,
    /// Refresh tokens that are not known.
    UnknownToken,
    /// Registrations.
    Register,
    /// Media up and down.
    Media,
    /// Searches of users, rooms and messages.
    Search,
    /// Requests of other servers, counted by the server that asks.
    Federation,
    /// What makes this server ask others for their keys.
    Keys,
    /// Requests of other servers whose signatures did not hold, or have not been looked at yet.
    Unproven,
    /// Invites by a server, counted by it; also if rate limits are off.
    Inviting,
    /// Invites by other servers, counted by who is invited; also if rate limits are off.
    Invited,
}

/// How large a body may be; see [`limits`](super::limits) for the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyClass {
    /// No body is read.
    Nothing,
    /// Ordinary JSON.
    Json,
    /// JSON with many objects in it.
    Bulk,
    /// A transaction of another server.
    Transaction,
    /// Handed to the handler unread, up to the configured upload size.
    Stream,
}

/// Declares a topic's table. One row per endpoint:
///
/// ```text
/// endpoints! {
///     // method path                                    also served under   auth      rate  body     handler
///     GET "/_matrix/client/v3/rooms/{roomId}/state"     ["r0", "v1"]        Guest     Read  Nothing  get_state;
/// }
/// ```
macro_rules! endpoints {
    ($($method:ident $path:literal [$($also:literal),*] $auth:ident $rate:ident $body:ident $handler:path;)*) => {
        /// The endpoints of this topic.
        pub const ENDPOINTS: &[$crate::http::Endpoint] = &[$($crate::http::Endpoint {
            method: ::http::Method::$method,
            path: $path,
            also: &[$($also),*],
            auth: $crate::http::route::Auth::$auth,
            rate: $crate::http::route::Rate::$rate,
            body: $crate::http::route::BodyClass::$body,
            handler: |call| ::std::boxed::Box::pin($handler(call)),
        }),*];
    };
}
pub(crate) use endpoints;

impl Endpoint {
    /// The names of the path's parameters, in order.
    pub fn parameter_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// All paths that it is served under, the specification's first.
    pub fn paths(&self) -> impl Iterator<Item = Cow<'static, str>> + '_ {
        let others = self.also.iter().map(|also| match also.starts_with('/') {
            true => Cow::Borrowed(*also),
            false => Cow::Owned(with_version(self.path, also)),
        });
        std::iter::once(Cow::Borrowed(self.path)).chain(others)
    }
}

/// `/_matrix/client/v3/sync` with another version segment.
fn with_version(path: &str, version: &str) -> String {
    let mut segments: Vec<&str> = path.split('/').collect();
    if let Some(segment) = segments.get_mut(3) {
        *segment = version;
    }
    segments.join("/")
}

/// An endpoint in the router, with what is counted about it.
#[derive(Clone)]
pub struct Route {
    pub endpoint: &'static Endpoint,
    /// Shared by all paths that the endpoint is served under.
    pub meter: Arc<Meter>,
}

/// Finds the endpoint of a request.
pub struct Router {
    paths: matchit::Router<Vec<Route>>,
}

impl Router {
    /// A router of all rows of all tables. Errors: a sentence naming two rows that contradict each other, or a row
    /// with too many parameters; both are faults of the tables.
    pub fn new(tables: &[&'static [Endpoint]]) -> Result<Router, String> {
        let mut by_path: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        for endpoint in tables.iter().flat_map(|table| table.iter()) {
            if endpoint.parameter_names().count() > PATH_PARAMETERS_MAX {
                return Err(format!("{} has too many parameters", endpoint.path));
            }
            let meter = Arc::new(Meter::new(&endpoint.method, endpoint.path));
            for path in endpoint.paths() {
                let rows = by_path.entry(without_end_slash(&path).to_owned()).or_default();
                if rows.iter().any(|row| row.endpoint.method == endpoint.method) {
                    return Err(format!("two endpoints answer {} {path}", endpoint.method));
                }
                rows.push(Route { endpoint, meter: meter.clone() });
            }
        }
        let mut paths = matchit::Router::new();
        for (path, rows) in by_path {
            paths.insert(path.as_str(), rows).map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(Router { paths })
    }

    /// The endpoint for a method and an undecoded path, and where in the path its parameters are.
    ///
    /// Errors: 404 `M_UNRECOGNIZED` for an unknown path, 405 for a known path without that method.
    pub fn find(&self, method: &Method, path: &str) -> Result<(&Route, PathValues), ApiError> {
        let found = self.paths.at(without_end_slash(path));
        let found = found.map_err(|_| ApiError::unrecognized("This server does not know that endpoint"))?;
        // RFC 9110, 9.3.2: HEAD is GET without the body, which the transport leaves out.
        let answers = |method: &Method| found.value.iter().find(|row| row.endpoint.method == *method);
        let row =
            answers(method).or_else(|| if *method == Method::HEAD { answers(&Method::GET) } else { None });
        let row = row.ok_or_else(|| ApiError::wrong_method("This endpoint does not support that method"))?;
        let mut values = PathValues::default();
        for (slot, (_, value)) in values.iter_mut().zip(found.params.iter()) {
            let start = value.as_ptr() as usize - path.as_ptr() as usize;
            // A request target is shorter than 64 KiB: the transport's header limit is below that.
            *slot = u16::try_from(start).unwrap_or_default()
                ..u16::try_from(start + value.len()).unwrap_or_default();
        }
        Ok((row, values))
    }

    /// The methods of a path, as `Allow` lists them in a 405 (RFC 9110, 15.5.6).
    pub fn allowed(&self, path: &str) -> String {
        let found = self.paths.at(without_end_slash(path)).ok();
        let rows = found.iter().flat_map(|found| found.value.iter());
        let mut methods: Vec<&str> = rows.map(|row| row.endpoint.method.as_str()).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

fn without_end_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some(shorter) if !shorter.is_empty() => shorter,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Answer;

    async fn answer(_call: Call) -> Outcome {
        Ok(Answer::empty())
    }

    endpoints! {
        GET "/_matrix/client/versions"                            []                                  None  None Nothing answer;
        PUT "/_matrix/client/v3/rooms/{roomId}/state/{eventType}" ["r0", "unstable/org.example.msc1"] Guest Send Json    answer;
        GET "/_matrix/client/v3/rooms/{roomId}/event/{eventId}"   ["r0"]                              Guest Read Nothing answer;
        GET "/_matrix/client/v3/pushrules/"                       ["/old/rules"]                      Guest Read Nothing answer;
    }

    fn find(method: Method, path: &str) -> Result<(&'static str, Vec<&str>), u16> {
        let router = Router::new(&[ENDPOINTS]).expect("the table is sound");
        let (row, values) = router.find(&method, path).map_err(|error| error.status.as_u16())?;
        let values = values.into_iter().map(|range| &path[usize::from(range.start)..usize::from(range.end)]);
        Ok((row.endpoint.path, values.filter(|value| !value.is_empty()).collect()))
    }

    #[test]
    fn matches_the_encoded_path() {
        let (_, values) = find(Method::GET, "/_matrix/client/r0/rooms/!a:b/event/$x%2Fy").expect("known");
        assert_eq!(values, ["!a:b", "$x%2Fy"]);
    }

    #[test]
    fn serves_every_prefix_and_forgives_a_slash() {
        for path in
            ["/_matrix/client/v3/pushrules", "/_matrix/client/v3/pushrules/", "/old/rules", "/old/rules/"]
        {
            assert_eq!(find(Method::GET, path).expect("known").0, "/_matrix/client/v3/pushrules/");
        }
        let state = "/_matrix/client/unstable/org.example.msc1/rooms/!a:b/state/m.room.name/";
        assert_eq!(find(Method::PUT, state).expect("known").1, ["!a:b", "m.room.name"]);
    }

    #[test]
    fn unknown_paths_and_methods() {
        assert_eq!(find(Method::GET, "/_matrix/client/v9/sync"), Err(404));
        assert_eq!(find(Method::POST, "/_matrix/client/versions"), Err(405));
        assert!(find(Method::HEAD, "/_matrix/client/versions").is_ok());
    }

    #[test]
    fn tells_the_methods_of_a_path() {
        let router = Router::new(&[ENDPOINTS]).expect("the table is sound");
        assert_eq!(router.allowed("/_matrix/client/versions/"), "GET, HEAD, OPTIONS");
        assert_eq!(router.allowed("/_matrix/client/r0/rooms/!a:b/state/m.room.name"), "PUT, OPTIONS");
    }

    #[test]
    fn contradicting_tables_are_refused() {
        assert!(Router::new(&[ENDPOINTS, ENDPOINTS]).is_err());
    }
}
