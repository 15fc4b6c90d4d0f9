//! Where a server is (server-server API, "Resolving server names").
//!
//! Two steps. First the name that requests are for: the server's own, or the one that its well-known file delegates to;
//! it is what stands in `Host`, and whose certificate is wanted. What comes of the file is remembered, failures too.
//! Then, whenever a connection is opened, who is behind that name: an address, a port, services of the domain name
//! system. Steps in comments are numbered as in the specification, v1.19.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::{DashMap, Entry};
use http::header::{CACHE_CONTROL, LOCATION, USER_AGENT};
use http::{HeaderMap, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ruma_common::{OwnedServerName, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tracing::debug;

use super::client::{AGENT, Connector};
use crate::config::Resolve;
use crate::context::Context;
use crate::federation::limits::{
    LOOKUPS_OF_QUESTIONS_PART, PORT_DEFAULT, WELL_KNOWN_BYTES_MAX, WELL_KNOWN_CACHE_DEFAULT,
    WELL_KNOWN_CACHE_MAX, WELL_KNOWN_CACHE_MIN, WELL_KNOWN_FAILURE_MAX, WELL_KNOWN_FAILURE_MIN,
    WELL_KNOWN_REDIRECTS_MAX, WELL_KNOWN_SERVERS_MAX, WELL_KNOWN_TIME_MAX,
};
use crate::federation::refusals;
use crate::outgoing::{ConnectError, Dial, Outgoing, Service};
use crate::worker;

/// The services of a server, the newer one first (steps 3.3 and 3.4, 4 and 5).
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

type WellKnownClient = Client<Connector<ToWellKnown>, Empty<Bytes>>;

/// Finds the names that requests are for.
pub struct Discovery {
    client: WellKnownClient,
    /// For lookups that end with the question of a client that they are for, whose connections are bounded.
    questions: WellKnownClient,
    resolve: Arc<[Resolve]>,
    known: DashMap<OwnedServerName, Known>,
    lookups: DashMap<OwnedServerName, Lookup>,
    /// Lookups on behalf of whoever comes next, when those who came first have given up. Beyond that each goes on only as long as
    /// somebody waits for it.
    lookups_max: usize,
}

/// A lookup that is under way: the name, once it is found. Nothing comes of one that falls.
type Lookup = watch::Receiver<Option<OwnedServerName>>;

impl Discovery {
    pub fn new(outgoing: &Arc<Outgoing>, resolve: &Arc<[Resolve]>, lookups_max: usize) -> Discovery {
        let keeps_none = |connector: Connector<ToWellKnown>| -> WellKnownClient {
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
        };
        let client = keeps_none(outgoing.connector(ToWellKnown(resolve.clone())));
        let questions = keeps_none(outgoing.connector_for_questions(ToWellKnown(resolve.clone())));
        let (resolve, known, lookups) = (resolve.clone(), DashMap::new(), DashMap::new());
        Discovery { client, questions, resolve, known, lookups, lookups_max }
    }

    /// The name that requests to a server are for. Who has less patience than it takes leaves what is found to the next.
    /// `is_question` for what a client has this server ask: that leaves lookups to what it sends and asks by itself.
    pub async fn delegated(
        self: &Arc<Self>,
        ctx: &Context,
        server_name: &ServerName,
        is_question: bool,
    ) -> OwnedServerName {
        // Steps 1 and 2; and the operator's word is the last.
        let is_told = self.resolve.iter().any(|row| row.name == server_name.as_str());
        if is_told || server_name.port().is_some() || server_name.is_ip_literal() {
            return server_name.to_owned();
        }
        if let Some(known) = self.fresh(server_name) {
            return known;
        }
        let part = if is_question { LOOKUPS_OF_QUESTIONS_PART } else { 1 };
        if self.lookups.len() >= self.lookups_max / part && !self.lookups.contains_key(server_name) {
            return self.look_up(server_name, is_question).await;
        }
        let mut lookup = self.lookup(ctx, server_name);
        let found = lookup.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| server_name.to_owned())
    }

    /// The lookup for a server that is under way, or else one that begins.
    fn lookup(self: &Arc<Self>, ctx: &Context, server_name: &ServerName) -> Lookup {
        let entry = match self.lookups.entry(server_name.to_owned()) {
            Entry::Occupied(entry) => return entry.get().clone(),
            Entry::Vacant(entry) => entry,
        };
        let (sender, lookup) = watch::channel(None);
        drop(entry.insert(lookup.clone()));
        let ending = EndOfLookup { discovery: self.clone(), server_name: server_name.to_owned() };
        worker::run(ctx, "a lookup of a server", async move {
            let EndOfLookup { discovery, server_name } = &ending;
            // Another may have ended since it was last looked.
            let found = match discovery.fresh(server_name) {
                Some(known) => known,
                None => discovery.look_up(server_name, false).await,
            };
            sender.send_replace(Some(found));
        });
        lookup
    }

    async fn look_up(&self, server_name: &ServerName, is_question: bool) -> OwnedServerName {
        let client = if is_question { &self.questions } else { &self.client };
        let found = well_known(client, server_name.host()).await;
        debug!(%server_name, ?found, "well-known");
        if is_question && found == Found::NotNow {
            // It may have had no place for its connection, which says nothing of the server.
            return self.good(server_name).unwrap_or_else(|| server_name.to_owned());
        }
        let before = self.known.get(server_name).map(|known| known.clone());
        let known = Known::after(before, found, Instant::now());
        let delegated = known.delegated.clone();
        if self.known.len() >= WELL_KNOWN_SERVERS_MAX {
            self.forget();
        }
        self.known.insert(server_name.to_owned(), known);
        delegated.unwrap_or_else(|| server_name.to_owned())
    }

    fn fresh(&self, server_name: &ServerName) -> Option<OwnedServerName> {
        let known = self.known.get(server_name)?;
        let delegated = || known.delegated.clone().unwrap_or_else(|| server_name.to_owned());
        (known.ask_again > Instant::now()).then(delegated)
    }

    /// The delegation that outlives that its host is not reachable.
    fn good(&self, server_name: &ServerName) -> Option<OwnedServerName> {
        let known = self.known.get(server_name)?;
        if known.good_until > Instant::now() { known.delegated.clone() } else { None }
    }

    /// Makes room: what is to be asked for again anyway goes, or if that is not enough, all.
    fn forget(&self) {
        let now = Instant::now();
        self.known.retain(|_, known| known.ask_again > now);
        if self.known.len() >= WELL_KNOWN_SERVERS_MAX {
            self.known.clear();
        }
    }
}

/// Step 3: what the file says, and how long that is good. One that is there and of no use is counted; most servers have none.
async fn well_known(client: &WellKnownClient, host: &str) -> Found {
    let Ok(mut uri) = format!("https://{host}/.well-known/matrix/server").parse::<Uri>() else {
        return Found::Nothing;
    };
    let end = tokio::time::Instant::now() + WELL_KNOWN_TIME_MAX;
    for _ in 0..=WELL_KNOWN_REDIRECTS_MAX {
        let mut request = http::Request::new(Empty::new());
        request.headers_mut().insert(USER_AGENT, AGENT);
        *request.uri_mut() = uri.clone();
        let Ok(Ok(answer)) = timeout_at(end, client.request(request)).await else { return Found::NotNow };
        let (head, body) = answer.into_parts();
        if head.status.is_redirection() {
            let location = head.headers.get(LOCATION).and_then(|location| location.to_str().ok());
            match location.and_then(|location| redirected(&uri, location)) {
                Some(next) => uri = next,
                None => return unusable("redirect", Found::Nothing),
            }
            continue;
        }
        return match head.status {
            StatusCode::OK => read_in_time(&head.headers, body, end).await,
            StatusCode::NOT_FOUND => Found::Nothing,
            StatusCode::TOO_MANY_REQUESTS => unusable("status", Found::NotNow),
            status if status.is_server_error() => unusable("status", Found::NotNow),
            _ => unusable("status", Found::Nothing),
        };
    }
    unusable("redirect", Found::Nothing)
}

/// What a file says that is being sent.
async fn read_in_time(headers: &HeaderMap, body: Incoming, end: tokio::time::Instant) -> Found {
    match timeout_at(end, Limited::new(body, WELL_KNOWN_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => match read_file(&body.to_bytes()) {
            Some(name) => Found::Delegated(name, cache_time(headers)),
            None => unusable("unreadable", Found::Nothing),
        },
        Ok(Err(error)) if error.is::<LengthLimitError>() => unusable("too_large", Found::Nothing),
        // It broke off.
        Ok(Err(_)) => Found::NotNow,
        Err(_) => unusable("too_slow", Found::NotNow),
    }
}

fn unusable(reason: &'static str, found: Found) -> Found {
    refusals::well_known(reason);
    found
}

/// Ends a lookup when it is dropped, whatever became of it.
struct EndOfLookup {
    discovery: Arc<Discovery>,
    server_name: OwnedServerName,
}

impl Drop for EndOfLookup {
    fn drop(&mut self) {
        self.discovery.lookups.remove(&self.server_name);
    }
}

/// What asking for a file came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// It delegates, for so long.
    Delegated(OwnedServerName, Duration),
    /// There is no valid file.
    Nothing,
    /// It cannot be told: the host is not reachable, or has a fault.
    NotNow,
}

/// What is known of a server.
#[derive(Debug, Clone)]
struct Known {
    delegated: Option<OwnedServerName>,
    ask_again: Instant,
    /// Since when there has been no valid file, how often it was asked for.
    failures: u32,
    /// Until when a delegation outlives that its host is not reachable.
    good_until: Instant,
}

impl Known {
    fn after(before: Option<Known>, found: Found, now: Instant) -> Known {
        if let Found::Delegated(name, time) = found {
            let (ask_again, good_until) = (now + time, now + WELL_KNOWN_CACHE_MAX);
            return Known { delegated: Some(name), ask_again, failures: 0, good_until };
        }
        let failures = before.as_ref().map_or(0, |before| before.failures);
        let doubled = WELL_KNOWN_FAILURE_MIN.saturating_mul(1 << failures.min(16));
        let kept = before.filter(|before| found == Found::NotNow && before.good_until > now);
        Known {
            good_until: kept.as_ref().map_or(now, |before| before.good_until),
            delegated: kept.and_then(|before| before.delegated),
            ask_again: now + doubled.min(WELL_KNOWN_FAILURE_MAX),
            failures: failures.saturating_add(1),
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "m.server")]
    server: String,
}

/// The name in a file; whatever its content type. `None` for anything that is not valid.
fn read_file(body: &[u8]) -> Option<OwnedServerName> {
    let file: File = serde_json::from_slice(body).ok()?;
    warren_engine::core::identifiers::is_server_name(&file.server)
        .then(|| ServerName::parse(&file.server).ok())
        .flatten()
}

/// How long an answer is good, by its `Cache-Control`.
fn cache_time(headers: &HeaderMap) -> Duration {
    let mut time = WELL_KNOWN_CACHE_DEFAULT;
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    for directive in lines.flat_map(|line| line.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return WELL_KNOWN_CACHE_MIN,
            "max-age" => {
                // A number too large to read is longer than any bound (RFC 9111, 1.2.2).
                let value = value.trim().trim_matches('"');
                let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                if is_number {
                    time = Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX)));
                }
            }
            _ => {}
        }
    }
    time.clamp(WELL_KNOWN_CACHE_MIN, WELL_KNOWN_CACHE_MAX)
}

/// Where a redirect leads (RFC 3986, 5.2, as far as servers use it). `None` if it is not https.
fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let (host, path) = (from.authority()?, from.path());
    let location = location.split('#').next()?;
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("https:{location}")
    } else if location.starts_with('/') {
        format!("https://{host}{location}")
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("https://{host}{folder}/{location}")
    };
    let uri: Uri = absolute.parse().ok()?;
    (uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// Connections for the file: port 443, or the one in a redirect.
#[derive(Clone)]
pub struct ToWellKnown(Arc<[Resolve]>);

impl Dial for ToWellKnown {
    async fn dial(&self, outgoing: &Outgoing, uri: &Uri) -> Result<TcpStream, ConnectError> {
        open(outgoing, &self.0, host(uri), uri.port_u16().unwrap_or(443)).await
    }
}

/// Connections for requests.
#[derive(Clone)]
pub struct ToServer(pub Arc<[Resolve]>);

impl Dial for ToServer {
    async fn dial(&self, outgoing: &Outgoing, uri: &Uri) -> Result<TcpStream, ConnectError> {
        let host = host(uri);
        let name = uri.authority().map_or("", |authority| authority.as_str());
        if let Some(row) = self.0.iter().find(|row| row.name == name) {
            return outgoing.connect_trusted(&row.host, row.port).await;
        }
        // Steps 1, 2, 3.1 and 3.2.
        if let Some(port) = uri.port_u16() {
            return open(outgoing, &self.0, host, port).await;
        }
        if host.parse::<std::net::IpAddr>().is_ok() {
            return open(outgoing, &self.0, host, PORT_DEFAULT).await;
        }
        let mut last = None;
        for found in services(outgoing, host).await {
            match open(outgoing, &self.0, &found.host, found.port).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last {
            return Err(error);
        }
        // Steps 3.5 and 6.
        open(outgoing, &self.0, host, PORT_DEFAULT).await
    }
}

/// The services of a host: the newer ones if there are any. Both are asked for at once, as nobody may answer for them.
async fn services(outgoing: &Outgoing, host: &str) -> Vec<Service> {
    let [newer, older] = SERVICES.map(|service| format!("{service}.{host}."));
    let mut newer = pin!(outgoing.services(&newer));
    let mut older = pin!(outgoing.services(&older));
    tokio::select! {
        found = &mut newer => match found.is_empty() {
            true => older.await,
            false => found,
        },
        found = &mut older => {
            let newer = newer.await;
            if newer.is_empty() { found } else { newer }
        }
    }
}

/// Without the brackets of an IPv6 address.
pub fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// Connects to a host and port, or to where the operator says that they are.
async fn open(
    outgoing: &Outgoing,
    resolve: &[Resolve],
    host: &str,
    port: u16,
) -> Result<TcpStream, ConnectError> {
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match resolve.iter().find(|row| row.name == name) {
        Some(row) => outgoing.connect_trusted(&row.host, row.port).await,
        None => outgoing.connect(host, port).await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn name(text: &str) -> OwnedServerName {
        ServerName::parse(text).expect("a server name")
    }

    #[test]
    fn what_a_file_says() {
        assert_eq!(read_file(br#"{"m.server": "a.example:443"}"#), Some(name("a.example:443")));
        assert_eq!(read_file(br#"{"m.server": "[::1]", "more": 1}"#), Some(name("[::1]")));
        for invalid in ["", "[]", "{}", r#"{"m.server": 1}"#, r#"{"m.server": "https://a.example"}"#] {
            assert_eq!(read_file(invalid.as_bytes()), None, "{invalid}");
        }
        for invalid in ["a b", "", "a.example:99999", "a.example/x", "a.example:+1"] {
            assert_eq!(read_file(format!(r#"{{"m.server": "{invalid}"}}"#).as_bytes()), None, "{invalid}");
        }
    }

    #[test]
    fn how_long_it_is_good() {
        let time = |lines: &[&'static str]| {
            let header = |line: &&'static str| (CACHE_CONTROL, http::HeaderValue::from_static(line));
            cache_time(&lines.iter().map(header).collect())
        };
        assert_eq!(time(&[]), WELL_KNOWN_CACHE_DEFAULT);
        assert_eq!(time(&["public", "Max-Age=7200"]), Duration::from_secs(7200));
        assert_eq!(time(&["public, max-age=\"7200\""]), Duration::from_secs(7200));
        assert_eq!(time(&["max-age=0"]), WELL_KNOWN_CACHE_MIN);
        assert_eq!(time(&["max-age=7200, no-store"]), WELL_KNOWN_CACHE_MIN);
        assert_eq!(time(&["max-age=99999999999999999999999"]), WELL_KNOWN_CACHE_MAX);
        assert_eq!(time(&["max-age=-1"]), WELL_KNOWN_CACHE_DEFAULT);
    }

    #[test]
    fn where_redirects_lead() {
        let from: Uri = "https://a.example:8443/.well-known/matrix/server".parse().expect("a URI");
        let to = |location| redirected(&from, location).map(|uri| uri.to_string());
        assert_eq!(to("https://b.example/x#y").as_deref(), Some("https://b.example/x"));
        assert_eq!(to("//b.example/x").as_deref(), Some("https://b.example/x"));
        assert_eq!(to("/x?y").as_deref(), Some("https://a.example:8443/x?y"));
        assert_eq!(to("x").as_deref(), Some("https://a.example:8443/.well-known/matrix/x"));
        for refused in ["http://b.example/x", "file:///etc/passwd", "https://", "https:///x", ""] {
            assert!(to(refused).is_none_or(|uri| uri.starts_with("https://a.example:8443/")), "{refused}");
        }
    }

    #[tokio::test]
    async fn what_is_found_stays_though_whoever_asked_has_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let row: Resolve = format!("a.example:443=127.0.0.1:{port}").parse().expect("a row");
        let outgoing = Arc::new(Outgoing::new(&ctx.config, 1, 1).expect("it is valid"));
        let other = format!("b.example:443=127.0.0.1:{port}").parse().expect("a row");
        let discovery = Arc::new(Discovery::new(&outgoing, &Arc::from([row, other]), 1));
        let server_name = name("a.example");
        let silent = tokio::select! {
            _ = discovery.delegated(&ctx, &server_name, false) => panic!("nobody has answered"),
            _ = discovery.delegated(&ctx, &server_name, false) => panic!("nobody has answered"),
            accepted = host.accept() => accepted.expect("a connection").0,
        };
        // Both have given up.
        assert_eq!(discovery.lookups.len(), 1);
        let one_too_many = name("b.example");
        let mut cut_off = tokio::select! {
            _ = discovery.delegated(&ctx, &one_too_many, false) => panic!("nobody has answered"),
            accepted = host.accept() => accepted.expect("a connection").0,
        };
        // It has ended with the patience of who asked.
        assert!(!discovery.lookups.contains_key(&one_too_many));
        cut_off.read_to_end(&mut Vec::new()).await.expect("it is closed");
        drop(silent);
        assert_eq!(discovery.delegated(&ctx, &server_name, false).await, server_name);
        let failures = discovery.known.get(&server_name).map(|known| known.failures);
        assert_eq!(failures, Some(1), "it was the same lookup");
    }

    #[tokio::test]
    async fn questions_of_clients_leave_lookups_to_what_the_server_sends() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let row = |name: &str| -> Resolve {
            format!("{name}.example:443=127.0.0.1:{port}").parse().expect("a row")
        };
        let outgoing = Arc::new(Outgoing::new(&ctx.config, 1, 1).expect("it is valid"));
        let discovery = Arc::new(Discovery::new(&outgoing, &Arc::from(["a", "b", "c"].map(row)), 2));
        let mut silent = Vec::new();
        // What a client asks for beyond its part ends with the client's patience.
        for (server_name, is_question, goes_on) in
            [("a.example", true, true), ("b.example", true, false), ("c.example", false, true)]
        {
            let server_name = name(server_name);
            tokio::select! {
                _ = discovery.delegated(&ctx, &server_name, is_question) => panic!("nobody has answered"),
                accepted = host.accept() => silent.push(accepted.expect("a connection").0),
            }
            assert_eq!(discovery.lookups.contains_key(&server_name), goes_on, "{server_name}");
        }
    }

    #[tokio::test]
    async fn a_question_goes_where_a_server_was_while_its_host_is_not_reachable() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = host.local_addr().expect("it is bound").port();
        let row: Resolve = format!("a.example:443=127.0.0.1:{port}").parse().expect("a row");
        let outgoing = Arc::new(Outgoing::new(&ctx.config, 1, 1).expect("it is valid"));
        // No lookup goes on beside what is asked.
        let discovery = Arc::new(Discovery::new(&outgoing, &Arc::from([row]), 0));
        drop(host);
        let server_name = name("a.example");
        assert_eq!(discovery.delegated(&ctx, &server_name, true).await, server_name);
        let found = Found::Delegated(name("b.example:1"), Duration::ZERO);
        discovery.known.insert(server_name.clone(), Known::after(None, found, Instant::now()));
        assert_eq!(discovery.delegated(&ctx, &server_name, true).await, name("b.example:1"));
    }

    #[test]
    fn failures_are_remembered_longer_and_longer() {
        let now = Instant::now();
        let mut known = Known::after(None, Found::Nothing, now);
        assert_eq!(known.ask_again, now + WELL_KNOWN_FAILURE_MIN);
        known = Known::after(Some(known), Found::NotNow, now);
        assert_eq!(known.ask_again, now + WELL_KNOWN_FAILURE_MIN * 2);
        for _ in 0..100 {
            known = Known::after(Some(known), Found::NotNow, now);
        }
        assert_eq!(known.ask_again, now + WELL_KNOWN_FAILURE_MAX);
        let found = Found::Delegated(name("b.example"), Duration::from_secs(600));
        known = Known::after(Some(known), found, now);
        assert_eq!((known.ask_again, known.failures), (now + Duration::from_secs(600), 0));
    }

    #[test]
    fn a_delegation_outlives_a_fault_of_its_host_but_not_its_end() {
        let now = Instant::now();
        let delegated = || {
            let found = Found::Delegated(name("b.example"), Duration::from_secs(600));
            Some(Known::after(None, found, now))
        };
        let later = now + Duration::from_secs(3600);
        let kept = Known::after(delegated(), Found::NotNow, later);
        assert_eq!(kept.delegated, Some(name("b.example")));
        assert_eq!(Known::after(delegated(), Found::Nothing, later).delegated, None);
        let too_late = now + WELL_KNOWN_CACHE_MAX;
        assert_eq!(Known::after(Some(kept), Found::NotNow, too_late).delegated, None);
    }
}
