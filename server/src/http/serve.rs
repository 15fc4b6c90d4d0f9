//! The way of every request: route, session, rate, body, handler, headers, log line, metrics. In this order, once.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tracing::{Level, debug};

use super::answer::AnswerBody;
use super::call::{BodyStream, Call};
use super::limits::{
    APART_BODY_BYTES, BLOCKING_BODY_BYTES, BODY_TIME_MAX, BULK_BODY_BYTES_MAX, JSON_BODY_BYTES_MAX,
    PROMPT_BODY_TIME, TRANSACTION_BODY_BYTES_MAX, UNWANTED_BODY_TIME_MAX,
};
use super::peer::{Peer, client_address};
use super::query::Parameters;
use super::request_id::{OfRequest, RequestId};
use super::route::{Auth, BodyClass, Route, Router};
use super::{Answer, ApiError, Endpoint, Outcome, cors, session};
use crate::context::Context;
use crate::federation::incoming::{self, Claim};
use crate::federation::out::{sender, unreached};
use crate::federation::refusals;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What takes longer than this is told in the log as it is: people have given up by then, and what is done here alone
/// takes milliseconds.
const SLOW: Duration = Duration::from_secs(5);

/// Endpoints that take long when they are asked to.
const LONG_POLLS: &[&str] = &["/_matrix/client/v3/sync"];

/// So much is logged of a path that leads nowhere; those that were meant are shorter.
const PATH_CHARS_LOGGED_MAX: usize = 200;

/// Everything that answers requests.
pub struct Server {
    ctx: Arc<Context>,
    router: Router,
}

impl Server {
    /// Errors: the tables contradict each other.
    pub fn new(ctx: Arc<Context>, tables: &[&'static [Endpoint]]) -> Result<Server, String> {
        Ok(Server { ctx, router: Router::new(tables)? })
    }

    /// Answers one request. Never fails: whatever goes wrong is an answer too.
    pub async fn serve(
        self: Arc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let start = Instant::now();
        let _in_flight = self.ctx.metrics.enter();
        let request_id = self.ctx.request_ids.next();
        let mut answer = match request.method() {
            &Method::OPTIONS => Answer::empty().with_status(StatusCode::NO_CONTENT),
            _ => {
                let work = pin!(self.route(peer, request, request_id, start));
                OfRequest { id: request_id, work }.await
            }
        };
        if answer.status == StatusCode::NO_CONTENT {
            answer.body = AnswerBody::Full(Bytes::new());
            answer.headers.clear();
        }
        cors::add(&mut answer.headers);
        answer.headers.insert(REQUEST_ID, request_id.into());
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }

    async fn route(
        &self,
        peer: Peer,
        request: Request<Incoming>,
        request_id: RequestId,
        start: Instant,
    ) -> Answer {
        let path = request.uri().path();
        let found = if peer.apis.serve(path) {
            self.router.find(request.method(), path)
        } else {
            Err(ApiError::unrecognized("This listener does not serve that API"))
        };
        let (route, path_values) = match found {
            Ok(found) => found,
            Err(error) => {
                let method = request.method().clone();
                let is_known = error.status == StatusCode::METHOD_NOT_ALLOWED;
                let allowed =
                    is_known.then(|| HeaderValue::try_from(self.router.allowed(path)).ok()).flatten();
                let path: String = path.chars().take(PATH_CHARS_LOGGED_MAX).collect();
                drain(request.into_body()).await;
                let (status, ms) = (error.status.as_u16(), milliseconds(start.elapsed()));
                debug!(target: "warren::request", id = %request_id, %method, path, status, ms, "no endpoint");
                let mut answer = Answer::from(error);
                answer.headers.extend(allowed.map(|methods| (ALLOW, methods)));
                return answer;
            }
        };
        let (parts, incoming) = request.into_parts();
        let mut call = Call {
            client: client_address(peer, &parts.headers, &self.ctx.config.trusted_proxies),
            ctx: self.ctx.clone(),
            endpoint: route.endpoint,
            parameters: Parameters::of(parts.uri.query().unwrap_or_default()),
            parts,
            path_values,
            session: None,
            origin: None,
            body: Bytes::new(),
            place: None,
            stream: None,
        };
        let admitted = admit(&mut call, incoming).await;
        let (session, origin) = (call.session.clone(), call.origin.clone());
        let outcome = match admitted {
            Ok(()) => {
                let is_apart = call.body.len() >= APART_BODY_BYTES;
                Guarded { work: (route.endpoint.handler)(call), is_apart }.await
            }
            Err(error) => Err(error),
        };
        let (answer, fault) = match outcome {
            Ok(answer) => (answer, None),
            Err(error) => {
                refusals::request(route.endpoint, &error);
                let fault = error.status.is_server_error().then(|| error.error.clone());
                (Answer::from(error), fault)
            }
        };
        let user = session.as_deref().map(|session| session.user_id.as_str());
        let sender = user.or(origin.as_deref().map(|origin| origin.as_str())).unwrap_or("-");
        finish(route, request_id, answer.status, start.elapsed(), sender, fault.as_deref());
        answer
    }
}

/// What must hold before the handler runs: a good session, a token left in the bucket, a body within its limit.
async fn admit(call: &mut Call, incoming: Incoming) -> Result<(), ApiError> {
    let claim = match admit_sender(call).await {
        Ok(claim) => claim,
        Err(error) => {
            drain(incoming).await;
            return Err(error);
        }
    };
    read(call, incoming).await?;
    if let Some(claim) = claim {
        let origin = claim.verify(call).await?;
        call.ctx.rate_limits.take_for_server(call.endpoint.rate, origin.as_str())?;
        sender::heard_from(&call.ctx, &origin).await?;
        unreached::heard_from(&call.ctx, origin.as_str());
        call.origin = Some(origin);
    }
    Ok(())
}

/// Reads the body as the row wants it.
async fn read(call: &mut Call, incoming: Incoming) -> Result<(), ApiError> {
    let begun = Instant::now();
    let bytes_max = match call.endpoint.body {
        BodyClass::Nothing => {
            drain(incoming).await;
            return if begun.elapsed() >= PROMPT_BODY_TIME { look_again(call).await } else { Ok(()) };
        }
        BodyClass::Json => JSON_BODY_BYTES_MAX,
        BodyClass::Bulk => BULK_BODY_BYTES_MAX,
        BodyClass::Transaction => TRANSACTION_BODY_BYTES_MAX,
        BodyClass::Stream => {
            let bytes_left = call.ctx.config.upload_bytes_max;
            if content_length(call).is_some_and(|length| length > bytes_left) {
                return Err(too_large(bytes_left));
            }
            call.stream = Some(BodyStream { incoming, bytes_left });
            return Ok(());
        }
    };
    if content_length(call).is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large(bytes_max as u64));
    }
    let body = tokio::time::timeout(BODY_TIME_MAX, read_body(call, incoming, bytes_max)).await;
    let too_slow = |_| ApiError::unknown("The body came too slowly").with_status(StatusCode::REQUEST_TIMEOUT);
    let (body, in_one_piece) = body.map_err(too_slow)??;
    call.body = body;
    if in_one_piece && begun.elapsed() < PROMPT_BODY_TIME { Ok(()) } else { look_again(call).await }
}

/// Whether the session is still good, when its request has taken its time to come.
async fn look_again(call: &mut Call) -> Result<(), ApiError> {
    if call.session.is_some() {
        call.session = session::authenticate(call).await?;
    }
    Ok(())
}

/// The user or server that asks. A server's signature is over the body too, so that until that is read it is a claim.
async fn admit_sender(call: &mut Call) -> Result<Option<Claim>, ApiError> {
    if call.endpoint.auth == Auth::Server {
        return incoming::claim(call).await.map(Some);
    }
    call.session = session::authenticate(call).await?;
    call.ctx.rate_limits.take(call.endpoint.rate, call.session.as_deref(), call.client)?;
    Ok(None)
}

/// Reads a body that nobody wants, if it is short and comes at once: else the connection would have to be closed behind
/// the answer, and the client's next request on it would fail.
async fn drain(mut incoming: Incoming) {
    if incoming.is_end_stream() {
        return;
    }
    let read = async {
        let mut left = JSON_BODY_BYTES_MAX;
        while let Some(Ok(frame)) = incoming.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // Whatever comes of it, the answer is sent.
    let _ = tokio::time::timeout(UNWANTED_BODY_TIME_MAX, read).await;
}

fn content_length(call: &Call) -> Option<u64> {
    call.header(CONTENT_LENGTH)?.parse().ok()
}

fn too_large(bytes_max: u64) -> ApiError {
    ApiError::too_large(format!("The body is larger than the {bytes_max} bytes that this endpoint accepts"))
}

/// The whole body, and whether it arrived in one piece, as most do, which is not copied. A large one takes a place.
async fn read_body(
    call: &mut Call,
    mut incoming: Incoming,
    bytes_max: usize,
) -> Result<(Bytes, bool), ApiError> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| ApiError::unknown(format!("The body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let bytes = first.len() + joined.len() + data.len();
        if bytes > bytes_max {
            return Err(too_large(bytes_max as u64));
        }
        if bytes >= BLOCKING_BODY_BYTES && call.place.is_none() {
            let places = match call.endpoint.auth {
                Auth::Server => &call.ctx.federation.large_bodies,
                _ => &call.ctx.large_bodies,
            };
            call.place = Some(places.place(call.client).await?);
        }
        if joined.is_empty() && first.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                joined.reserve(
                    first.len()
                        + data.len()
                        + usize::try_from(incoming.size_hint().lower()).unwrap_or(0).min(bytes_max),
                );
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { (first, true) } else { (joined.freeze(), false) })
}

/// The log line and the metrics of an answered request. The line has the endpoint instead of the path, in which names
/// stand, and nothing of the query, in which there may be a token. `fault` is what a failed one was answered with.
fn finish(
    route: &Route,
    id: RequestId,
    status: StatusCode,
    took: Duration,
    sender: &str,
    fault: Option<&str>,
) {
    let (method, path) = (route.endpoint.method.as_str(), route.endpoint.path);
    let (ms, code) = (milliseconds(took), status.as_u16());
    macro_rules! tell {
        ($level:ident $($message:literal)?) => {
            tracing::$level!(target: "warren::request", %id, method, route = path, status = code, ms, sender, fault, $($message)?)
        };
    }
    match level(path, status, took) {
        Level::WARN => tell!(warn "failed"),
        Level::INFO => tell!(info "slow"),
        _ => tell!(debug),
    }
    route.meter.record(code, took);
}

/// How loudly an answer is told.
fn level(path: &str, status: StatusCode, took: Duration) -> Level {
    match status.is_server_error() {
        true => Level::WARN,
        false if took >= SLOW && !LONG_POLLS.contains(&path) => Level::INFO,
        false => Level::DEBUG,
    }
}

fn milliseconds(took: Duration) -> f64 {
    took.as_micros() as f64 / 1000.0
}

/// A handler whose panic becomes a 500 instead of a connection that breaks off without a word.
struct Guarded {
    work: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    /// Whether it works where it holds up no other task of its thread.
    is_apart: bool,
}

impl Future for Guarded {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<Outcome> {
        // The handler's future is never polled again after a panic, so nothing can see a broken invariant of it.
        let is_apart = self.is_apart;
        let mut poll = || std::panic::catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(task)));
        let polled = if is_apart { tokio::task::block_in_place(poll) } else { poll() };
        polled.unwrap_or_else(|_| Poll::Ready(Err(ApiError::internal("a handler panicked"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_and_slow_requests_are_told_more_loudly() {
        let (send, sync) = ("/_matrix/client/v3/createRoom", LONG_POLLS[0]);
        assert_eq!(level(send, StatusCode::OK, SLOW / 2), Level::DEBUG);
        assert_eq!(level(send, StatusCode::OK, SLOW), Level::INFO);
        assert_eq!(level(send, StatusCode::FORBIDDEN, SLOW), Level::INFO);
        assert_eq!(level(sync, StatusCode::OK, SLOW * 6), Level::DEBUG);
        assert_eq!(level(sync, StatusCode::SERVICE_UNAVAILABLE, SLOW / 2), Level::WARN);
    }

    #[test]
    fn long_polls_are_endpoints() {
        let tables = crate::tables();
        let known = |path| tables.iter().flat_map(|table| table.iter()).any(|row| row.path == path);
        assert!(LONG_POLLS.iter().all(|path| known(*path)));
    }
}
