//! Requests to other servers: signed, sent, and their answers read within limits.
//!
//! Nothing is tried again here that somebody has answered, or could not be reached with: whether that makes sense, and when, is
//! for who asks to say. But what goes lost because a connection is closed as it is sent is sent anew at once, if it
//! may be sent twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use metrics::counter;
use ruma_common::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};
use warren_engine::core::event::SignedRequest;
use warren_engine::core::json::canonical_text;
use warren_engine::view::federation::SharesRoom;

use super::RemoteError;
use super::ask::read_answer;
use super::discover::{ToServer, host};
use super::kept::{Kept, KeptServers};
use super::places::Places;
use super::questions::{Asker, QuestionPlace};
use super::sender::heard_from;
use crate::config::Resolve;
use crate::context::Context;
use crate::federation::limits::{
    ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX, ERROR_BYTES_MAX, KEEP_ALIVE_INTERVAL, QUESTION_WAIT_MAX,
    REQUEST_BYTES_MAX, REQUEST_TIME_MAX,
};
use crate::outgoing::{ConnectError, Dial, Dialer, Outgoing, Timely, Waiting, had_answered, note_answer};

/// A connection is closed when it has been idle for so many times the time for which it is kept: it is looked for such ones that
/// often.
const IDLE_TIMES: u32 = 2;

/// What opens the connections of one kind of request.
pub type Connector<D> = Timely<HttpsConnector<Dialer<D>>>;

/// What this server calls itself; some hosts answer nobody who does not say.
pub const AGENT: HeaderValue = HeaderValue::from_static(concat!("Warren/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Open connections to other servers, by the name that requests are for.
pub struct Client {
    http: legacy::Client<Connector<ToServer>, Full<Bytes>>,
    /// Of whom `http` may have connections.
    kept: KeptServers,
    /// For what went lost on a connection that was kept, and for servers of whom none is to be kept.
    anew: legacy::Client<Connector<ToServer>, Full<Bytes>>,
    /// The same for what clients have this server ask, whose connections are bounded.
    questions: legacy::Client<Connector<ToServer>, Full<Bytes>>,
    /// For addresses that other servers name.
    urls: legacy::Client<Connector<ToUrl>, Full<Bytes>>,
}

impl Client {
    pub fn new(outgoing: &Arc<Outgoing>, resolve: &Arc<[Resolve]>, places: Places) -> Client {
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(places.idle_time)
            .pool_max_idle_per_host(places.idle_connections)
            .http1_max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .http2_max_header_list_size(ANSWER_HEAD_BYTES_MAX as u32)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .build(outgoing.connector(ToServer(resolve.clone())));
        let keeps_none = |connector: Connector<ToServer>| -> legacy::Client<_, Full<Bytes>> {
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_max_idle_per_host(0)
                .http1_max_buf_size(ANSWER_HEAD_BYTES_MAX)
                .http2_max_header_list_size(ANSWER_HEAD_BYTES_MAX as u32)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .build(connector)
        };
        let anew = keeps_none(outgoing.connector(ToServer(resolve.clone())));
        let questions = keeps_none(outgoing.connector_for_questions(ToServer(resolve.clone())));
        let urls = legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .http2_max_header_list_size(ANSWER_HEAD_BYTES_MAX as u32)
            .build(outgoing.connector_for_questions(ToUrl));
        let kept = KeptServers::new(places.kept_servers, IDLE_TIMES * places.idle_time);
        Client { http, kept, anew, questions, urls }
    }

    /// A place for a connection to a server that is kept, `name` being what requests to it are for. Anybody may make up names,
    /// and have this server ask for them; busy are those that it shares rooms with.
    fn kept(&self, ctx: &Context, to: &ServerName, name: &ServerName) -> Option<Kept> {
        // Of a server with a place it is known, which saves a look at all rooms that it has left.
        let again = self.kept.again(name);
        let is_known = || ctx.engine.read(&SharesRoom(to.as_str())).unwrap_or_default();
        again.or_else(|| if is_known() { self.kept.take(name) } else { None })
    }

    /// Sends a request to a server, and once more where [`goes_lost`] says so and it may be sent twice. Its connection is kept if
    /// it has a place for that.
    async fn request(
        &self,
        request: http::Request<Full<Bytes>>,
        is_repeatable: bool,
        is_question: bool,
        kept: Option<Kept>,
    ) -> Result<(http::Response<Incoming>, Option<Kept>), RemoteError> {
        let again = is_repeatable.then(|| request.clone());
        let anew = if is_question { &self.questions } else { &self.anew };
        let client = if kept.is_some() { &self.http } else { anew };
        let error = match client.request(request).await {
            Ok(answered) => {
                note_answer(&answered);
                return Ok((answered, kept));
            }
            Err(error) => error,
        };
        if let Some(again) = again.filter(|_| goes_lost(&error)) {
            debug!(uri = %again.uri(), %error, "a connection was closed as it was used again");
            let answered = anew.request(again).await.map_err(|error| unreachable(&error))?;
            return Ok((answered, kept));
        }
        if let Some(kept) = kept.filter(|_| error.is_connect()) {
            kept.give_back();
        }
        Err(unreachable(&error))
    }
}

/// Whether a connection that had been kept broke before there was any answer: its server may have closed it before the request
/// came (RFC 9112, 9.3.1).
fn goes_lost(error: &legacy::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    had_answered(error) && !cause.is_some_and(hyper::Error::is_parse)
}

/// Connections to whatever an address names: nothing that the operator says of servers counts there.
#[derive(Clone)]
pub struct ToUrl;

impl Dial for ToUrl {
    async fn dial(&self, outgoing: &Outgoing, uri: &Uri) -> Result<TcpStream, ConnectError> {
        outgoing.connect(host(uri), uri.port_u16().unwrap_or(443)).await
    }
}

/// Asks for what is at an address that another server names. Nothing of this server's goes along, and no redirect is
/// followed.
///
/// Errors: those of [`Request::open`].
pub async fn open_url(
    ctx: &Context,
    url: &str,
    bytes_max: usize,
    end: Instant,
) -> Result<Answer, RemoteError> {
    let unusable = || RemoteError::bad_answer("unfit", "it names an address that is none of https");
    let uri: Uri = url.parse().map_err(|_| unusable())?;
    if uri.scheme_str() != Some("https") || host(&uri).is_empty() || uri.authority().is_none_or(has_user) {
        return Err(unusable());
    }
    let mut request = http::Request::new(Full::default());
    request.headers_mut().insert(USER_AGENT, AGENT);
    *request.uri_mut() = uri;
    let waiting = Some(Waiting::on(capture_connection(&mut request)));
    let answered = timeout_at(end, ctx.federation.client.urls.request(request)).await;
    let answered = answered.map_err(|_| RemoteError::Timeout)?.map_err(|error| unreachable(&error))?;
    Ok(Answer { _waiting: waiting, ..Answer::of(answered, bytes_max, end).await? })
}

/// A name and password are nobody's to give away.
fn has_user(authority: &http::uri::Authority) -> bool {
    authority.as_str().contains('@')
}

/// A request that is to be sent: `Request::new(Method::GET, path).send(&ctx, &destination).await?`.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    /// Path and query, encoded.
    target: String,
    /// In its canonical form.
    content: Option<Bytes>,
    is_signed: bool,
    /// Whether its sender notes how the server fares.
    is_delivery: bool,
    /// Whether it changes nothing the second time.
    is_repeatable: bool,
    /// Whether a client has this server ask.
    is_question: bool,
    /// That client, unless it has its place already.
    asker: Option<Asker>,
    /// How long it waits for its turn then.
    wait_max: Duration,
    /// For finding the server and connecting to it, if that has less than all.
    connect_time_max: Option<Duration>,
    time_max: Duration,
    bytes_max: usize,
}

impl Request {
    /// A signed request without a body. `target` is path and query, encoded.
    pub fn new(method: Method, target: impl Into<String>) -> Request {
        let (time_max, bytes_max) = (REQUEST_TIME_MAX, ANSWER_BYTES_MAX);
        // What servers put rather than post has an id.
        let is_repeatable = method.is_idempotent();
        Request {
            is_repeatable,
            connect_time_max: None,
            method,
            target: target.into(),
            content: None,
            is_signed: true,
            is_delivery: false,
            is_question: false,
            asker: None,
            wait_max: QUESTION_WAIT_MAX,
            time_max,
            bytes_max,
        }
    }

    /// With a body. What is already JSON in it (`RawValue`) is sent in its canonical form, as all of it.
    ///
    /// Errors: `BadAnswer` for what cannot be JSON or is too large, which is a fault of this server.
    pub fn with_content(mut self, content: &impl Serialize) -> Result<Request, RemoteError> {
        let unusable = |error: &dyn std::fmt::Display| {
            RemoteError::BadAnswer(format!("this request's content: {error}"))
        };
        let text = serde_json::to_vec(content).map_err(|error| unusable(&error))?;
        let text = canonical_text(&text, REQUEST_BYTES_MAX).map_err(|error| unusable(&error))?;
        self.content = Some(text.into());
        Ok(self)
    }

    /// Without a signature: for what servers ask before they know each other's keys.
    pub fn unsigned(self) -> Request {
        Request { is_signed: false, ..self }
    }

    /// A transaction: whether the server is well shows when it has taken that, and not sooner.
    pub fn for_delivery(self) -> Request {
        Request { is_delivery: true, ..self }
    }

    /// On behalf of a client: it waits for its turn, and has its connection among those of others.
    pub fn asked_by(self, asker: &Asker) -> Request {
        Request { is_question: true, asker: Some(asker.clone()), ..self }
    }

    /// On behalf of a client that has its place, and keeps it until the answer has been read.
    pub fn with_place(self, _place: &QuestionPlace) -> Request {
        Request { is_question: true, asker: None, ..self }
    }

    /// With another time for waiting for its turn, after which nothing is sent.
    pub fn with_wait(self, wait_max: Duration) -> Request {
        Request { wait_max, ..self }
    }

    /// A question, though it is posted: it may be sent again if it goes lost.
    pub fn repeatable(self) -> Request {
        Request { is_repeatable: true, ..self }
    }

    /// With a time for finding the server and connecting to it, after which nothing is sent.
    pub fn with_connect_time(self, time_max: Duration) -> Request {
        Request { connect_time_max: Some(time_max), ..self }
    }

    /// With another time for all of it but waiting for its turn, the connection and the whole answer included.
    pub fn with_time(self, time_max: Duration) -> Request {
        Request { time_max, ..self }
    }

    /// With another limit on the size of the answer.
    pub fn with_bytes_max(self, bytes_max: usize) -> Request {
        Request { bytes_max, ..self }
    }

    /// Sends it and reads the answer as JSON. Errors: `BadAnswer` for another shape, and those of [`Request::open`].
    pub async fn send<T: DeserializeOwned>(self, ctx: &Context, to: &ServerName) -> Result<T, RemoteError> {
        let body = self.bytes(ctx, to).await?;
        read_answer(&body)
    }

    /// Sends it and reads the answer as it is. Errors: those of [`Request::open`].
    pub async fn bytes(self, ctx: &Context, to: &ServerName) -> Result<Bytes, RemoteError> {
        let mut answer = self.open(ctx, to).await?;
        let mut whole = BytesMut::new();
        while let Some(piece) = answer.next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Sends it; the answer comes piece by piece, for what is too large to be held. A good one is a sign of life, as anything that
    /// the server sends by itself.
    ///
    /// Errors: every [`RemoteError`]; `Refused` for any status that is none of success.
    pub async fn open(self, ctx: &Context, to: &ServerName) -> Result<Answer, RemoteError> {
        let (method, is_delivery) = (self.method.clone(), self.is_delivery);
        let opened = self.open_unmeasured(ctx, to).await;
        let outcome = match &opened {
            Ok(_) => "answered",
            Err(RemoteError::NotAdmitted(_)) => "not_admitted",
            Err(RemoteError::Unreachable(_)) => "unreachable",
            Err(RemoteError::NoPlace) => "no_place",
            Err(RemoteError::Timeout) => "timeout",
            Err(RemoteError::Refused { .. }) => "refused",
            // What lacks memory has been answered, and is counted when that is found out.
            Err(RemoteError::BadAnswer(_) | RemoteError::NoMemory) => "bad_answer",
        };
        counter!("warren_federation_requests_total", "outcome" => outcome).increment(1);
        if let Err(error) = &opened {
            debug!(%to, %method, %error, "a request to another server failed");
        }
        if opened.is_ok()
            && !is_delivery
            && let Err(error) = heard_from(ctx, to).await
        {
            warn!(%to, %error, "it cannot be noted that a server has answered");
        }
        opened
    }

    async fn open_unmeasured(self, ctx: &Context, to: &ServerName) -> Result<Answer, RemoteError> {
        if !ctx.config.federation
            || *to == *ctx.config.server_name
            || !ctx.config.federation_access.admits(to.as_str())
        {
            return Err(RemoteError::NotAdmitted(to.to_string()));
        }
        let place = match &self.asker {
            Some(asker) => Some(ctx.federation.questions.place(asker, false, self.wait_max).await?),
            None => None,
        };
        let end = Instant::now() + self.time_max;
        let bytes_left = self.bytes_max;
        // Thousands may wait for their places, and have nothing of this until then.
        let answered = timeout_at(end, Box::pin(self.answered(ctx, to))).await;
        let (answered, kept, waiting) = answered.map_err(|_| RemoteError::Timeout)??;
        let answer = Answer::of(answered, bytes_left, end).await?;
        Ok(Answer { _kept: kept, _waiting: waiting, _place: place, ..answer })
    }

    /// The answer as it begins, the place of its connection, and that it is waited for.
    async fn answered(
        self,
        ctx: &Context,
        to: &ServerName,
    ) -> Result<(http::Response<Incoming>, Option<Kept>, Option<Waiting>), RemoteError> {
        let client = &ctx.federation.client;
        let (is_repeatable, is_question) = (self.is_repeatable, self.is_question);
        let Some(connect_time_max) = self.connect_time_max else {
            let name = ctx.federation.discovery.delegated(ctx, to, is_question).await;
            let mut request = self.http_request(ctx, to, &name)?;
            let waiting = is_question.then(|| Waiting::on(capture_connection(&mut request)));
            let kept = client.kept(ctx, to, &name);
            let (answered, kept) = client.request(request, is_repeatable, is_question, kept).await?;
            return Ok((answered, kept, waiting));
        };
        let end = Instant::now() + connect_time_max;
        let name = timeout_at(end, ctx.federation.discovery.delegated(ctx, to, is_question)).await;
        let mut request = self.http_request(ctx, to, &name.map_err(|_| RemoteError::Timeout)?)?;
        let connection = capture_connection(&mut request);
        let waiting = is_question.then(|| Waiting::on(connection.clone()));
        // Who is given so little time may not be there at all, and has no place among those whose connections are kept.
        let (answered, kept) = tokio::select! {
            answered = client.request(request, is_repeatable, is_question, None) => answered?,
            () = not_connected(&connection, end) => return Err(RemoteError::Timeout),
        };
        Ok((answered, kept, waiting))
    }

    fn http_request(
        self,
        ctx: &Context,
        to: &ServerName,
        name: &ServerName,
    ) -> Result<http::Request<Full<Bytes>>, RemoteError> {
        let unusable =
            |error: &dyn std::fmt::Display| RemoteError::BadAnswer(format!("this request's target: {error}"));
        let uri: Uri = format!("https://{name}{}", self.target).parse().map_err(|error| unusable(&error))?;
        let has_default_port = uri.port_u16() == Some(443);
        let mut request = http::Request::new(Full::default());
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        if has_default_port {
            // Else the client sets the header, and leaves out the port of https.
            headers.insert(HOST, HeaderValue::from_str(name.as_str()).map_err(|error| unusable(&error))?);
        }
        if self.is_signed {
            let signed = SignedRequest {
                method: self.method.as_str(),
                // What is signed is what is sent, after the parser of the URI.
                uri: uri.path_and_query().map_or("/", |target| target.as_str()),
                origin: ctx.config.server_name.as_str(),
                destination: to.as_str(),
                content: self.content.as_deref(),
            };
            let value = signed.authorization(ctx.engine.key_pair());
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).map_err(|error| unusable(&error))?);
        }
        if let Some(content) = self.content {
            headers.insert(CONTENT_TYPE, JSON);
            *request.body_mut() = Full::new(content);
        }
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        Ok(request)
    }
}

/// An answer that is being read.
pub struct Answer {
    pub headers: HeaderMap,
    /// When it is no longer waited for.
    pub end: Instant,
    body: Incoming,
    bytes_left: usize,
    /// Its connection may be kept when it has been read.
    _kept: Option<Kept>,
    /// Its connection ends soon after this.
    _waiting: Option<Waiting>,
    /// Until it has been read, or is given up, its question is under way.
    _place: Option<QuestionPlace>,
}

impl Answer {
    /// Errors: `Refused` for any status that is none of success.
    pub async fn of(
        answered: http::Response<Incoming>,
        bytes_left: usize,
        end: Instant,
    ) -> Result<Answer, RemoteError> {
        let (head, body) = answered.into_parts();
        if head.status.is_success() {
            let (headers, _kept, _waiting, _place) = (head.headers, None, None, None);
            return Ok(Answer { headers, end, body, bytes_left, _kept, _waiting, _place });
        }
        // Whatever the error says is told as far as it can be read.
        let read = timeout_at(end, read_whole(body, ERROR_BYTES_MAX)).await;
        let said = read.ok().and_then(Result::ok).unwrap_or_default();
        Err(RemoteError::of_answer(head.status, &head.headers, &said))
    }

    /// The next piece; `None` at the end. Errors: `BadAnswer` beyond the limit of size, `Timeout`, `Unreachable`.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let piece = timeout_at(self.end, next_piece(&mut self.body)).await;
        let Some(piece) = piece.map_err(|_| RemoteError::Timeout)?? else { return Ok(None) };
        self.bytes_left = self.bytes_left.checked_sub(piece.len()).ok_or_else(too_large)?;
        Ok(Some(piece))
    }
}

/// A whole body of at most so many bytes.
async fn read_whole(mut body: Incoming, bytes_max: usize) -> Result<Bytes, RemoteError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if whole.len() + piece.len() > bytes_max {
            return Err(too_large());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, RemoteError> {
    loop {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame =
            frame.map_err(|error| RemoteError::Unreachable(format!("the answer broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

fn too_large() -> RemoteError {
    RemoteError::bad_answer("too_large", "it is larger than this server reads")
}

/// Ends at that time if there is no connection until then, and else never.
async fn not_connected(connection: &CaptureConnection, end: Instant) {
    sleep_until(end).await;
    let is_connected = connection.connection_metadata().is_some();
    if is_connected {
        std::future::pending::<()>().await;
    }
}

/// The innermost cause says what happened; those around it only where.
fn unreachable(error: &legacy::Error) -> RemoteError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    RemoteError::Unreachable(cause.to_string())
}
