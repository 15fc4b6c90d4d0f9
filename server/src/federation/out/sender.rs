//! Deliveries to other servers: one transaction in flight for each, many servers at once.
//!
//! What is sent to whom, and when again after a failure, the engine decides and remembers; here it is carried. The engine
//! tells when there is news, so nothing is polled; after a start it tells of everything that was left.
//! Specification: server-server API, "Transactions".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use metrics::{counter, gauge};
use ruma_common::ServerName;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use warren_engine::command::{HeardFromServer, Transaction};
use warren_engine::core::json::canonical_text;
use warren_engine::delivery::{Delivery, Next, STORE_FAILED_WAIT_MS, Sent};
use warren_engine::view::federation::{Due, DueDestinations, IsBackingOff, LeaveDestination, MakeDue};

use super::client::Answer;
use super::{RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{
    DELIVERIES_MAX, DELIVERIES_TO_LAGGARDS_MAX, DELIVERY_PROMPT_TIME, REQUEST_BYTES_MAX,
    TRANSACTION_ANSWER_BYTES_MAX, TRANSACTION_ANSWER_TIME_MAX, TRANSACTION_TIME_MAX,
};
use crate::worker::{ended, guarded};

/// What a transaction has beside its parts: names of members, a server's name, and a time.
const ENVELOPE_BYTES: usize = 1024;

/// Delivers until the server stops. What is in flight then is sent again after the next start.
pub async fn run(ctx: Arc<Context>) {
    let mut deliveries = JoinSet::new();
    loop {
        let due = look(&ctx, DELIVERIES_MAX - deliveries.len());
        for destination in due.destinations {
            deliveries.spawn(deliver(ctx.clone(), destination));
        }
        gauge!("warren_federation_deliveries_in_flight").set(deliveries.len() as f64);
        let has_room = deliveries.len() < DELIVERIES_MAX;
        let next = due.next_ms.map(|next_ms| next_ms.saturating_sub(ctx.engine.now_ms()));
        tokio::select! {
            () = ctx.shutdown.cancelled() => break,
            Some(delivered) = deliveries.join_next() => {
                ended("a delivery", delivered);
            }
            () = ctx.engine.outgoing_news(), if has_room => {}
            () = sleep(Duration::from_millis(next.unwrap_or_default())), if has_room && next.is_some() => {}
        }
    }
    // They stop by themselves.
    while let Some(delivered) = deliveries.join_next().await {
        ended("a delivery", delivered);
    }
}

/// Who is due. The first look goes through all servers that are known.
fn look(ctx: &Context, limit: usize) -> Due {
    let due = DueDestinations { limit, laggards_max: DELIVERIES_TO_LAGGARDS_MAX };
    match tokio::task::block_in_place(|| ctx.engine.read(&due)) {
        Ok(due) => due,
        Err(error) => {
            warn!(%error, "it cannot be told who is to be sent something");
            let next_ms = Some(ctx.engine.now_ms() + STORE_FAILED_WAIT_MS);
            Due { next_ms, ..Due::default() }
        }
    }
}

/// Sends a server what there is for it, one transaction after the other.
async fn deliver(ctx: Arc<Context>, destination: Arc<str>) {
    let left = Left { due_ms: 0, was_prompt: None };
    Visit { ctx: &ctx, destination: &destination, left }.until(deliver_all(&ctx, &destination)).await;
}

/// That somebody is at a server. It ends when this is dropped, whatever became of the work: nothing is sent to the server before.
struct Visit<'a> {
    ctx: &'a Context,
    destination: &'a str,
    left: Left,
}

impl Visit<'_> {
    /// Ends with the work, which says how the server is left.
    async fn until(mut self, work: impl Future<Output = warren_engine::Result<Left>>) {
        let done = tokio::select! {
            // What was under way is in the store, and is sent again.
            () = self.ctx.shutdown.cancelled() => return,
            done = guarded("a delivery", work) => done,
        };
        self.left.due_ms = self.ctx.engine.now_ms() + STORE_FAILED_WAIT_MS;
        match done {
            Some(Ok(left)) => self.left = left,
            Some(Err(error)) => {
                warn!(destination = self.destination, %error, "what is for a server cannot be read or noted");
            }
            None => {}
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let (destination, Left { due_ms, was_prompt }) = (self.destination, self.left);
        if let Err(error) = self.ctx.engine.read(&LeaveDestination { destination, due_ms, was_prompt }) {
            warn!(destination, %error, "a server is not sent anything until the next start");
        }
    }
}

/// How a server was left.
#[derive(Clone, Copy)]
struct Left {
    /// When it may be tried again, in milliseconds since the epoch.
    due_ms: u64,
    /// Whether it took promptly what it was sent; `None` if it was not sent anything.
    was_prompt: Option<bool>,
}

/// A server that is slow is left after each transaction, so that it waits for its turn among its like.
async fn deliver_all(ctx: &Context, destination: &Arc<str>) -> warren_engine::Result<Left> {
    let mut delivery = Delivery::new(destination.clone());
    let mut was_prompt = None;
    loop {
        match delivery.next_step() {
            Next::Begin(next) => {
                let next = ctx.engine.write(next).await?;
                if was_prompt == Some(false) {
                    return Ok(Left { due_ms: ctx.engine.now_ms(), was_prompt });
                }
                delivery.begun(&ctx.engine, next)?;
            }
            Next::Send(transaction) => {
                let begun = Instant::now();
                let sent = send(ctx, destination, &transaction).await;
                was_prompt = Some(sent.is_ok() && begun.elapsed() <= DELIVERY_PROMPT_TIME);
                delivery.sent(sent.map_or_else(|error| failed(destination, &error), |()| Sent::Done));
            }
            Next::Fail(failed) => {
                let retry_ms = ctx.engine.write(failed).await?;
                delivery.failed(retry_ms, ctx.engine.now_ms());
            }
            Next::Leave(due_ms) => return Ok(Left { due_ms, was_prompt }),
        }
    }
}

/// Sends a transaction. What the server finds wrong with single events is theirs and for the log.
async fn send(ctx: &Context, destination: &str, transaction: &Transaction) -> Result<(), RemoteError> {
    let to = ServerName::parse(destination).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let answer = match request(ctx.config.server_name.as_str(), destination, transaction) {
        Some(request) => request.open(ctx, &to).await.map(Some),
        None => Ok(None),
    };
    let outcome = match answer {
        Ok(Some(answer)) => said(answer).await.map(|said| {
            debug!(%destination, answer = %String::from_utf8_lossy(&said), "a transaction was taken");
            "taken"
        }),
        Ok(None) => Ok("given_up"),
        Err(RemoteError::Refused { status, errcode, error, .. }) if is_final(status) => {
            warn!(%destination, %status, errcode, error, "a server refuses a transaction, which is given up");
            Ok("given_up")
        }
        Err(error) => Err(error),
    };
    counter!("warren_federation_transactions_sent_total", "outcome" => *outcome.as_ref().unwrap_or(&"failed"))
        .increment(1);
    outcome.map(drop)
}

/// The request that brings a transaction, without those of its parts that cannot be sent: that is no fault of the server's, and
/// would be the same for ever. Nothing if it cannot be sent without them either.
fn request(origin: &str, destination: &str, transaction: &Transaction) -> Option<Request> {
    let failed = match with_all_of(origin, transaction) {
        Ok(request) => return Some(request),
        Err(error) => error,
    };
    let rest = without_unsendable(transaction);
    let pdus = transaction.pdus.len() - rest.pdus.len();
    let edus = transaction.edus.len() - rest.edus.len();
    warn!(destination, error = %failed, pdus, edus, "parts of a transaction cannot be sent and are given up");
    let told =
        |error: &RemoteError| warn!(destination, %error, "a transaction cannot be sent and is given up");
    with_all_of(origin, &rest).inspect_err(told).ok()
}

fn with_all_of(origin: &str, transaction: &Transaction) -> Result<Request, RemoteError> {
    let body = transaction.body(origin);
    let body: &RawValue =
        serde_json::from_slice(&body).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let target = format!("/_matrix/federation/v1/send/{}", transaction.id);
    let request = Request::new(Method::PUT, target).with_content(&body)?.with_time(TRANSACTION_TIME_MAX);
    Ok(request.with_bytes_max(TRANSACTION_ANSWER_BYTES_MAX))
}

/// The transaction without what is no JSON that can be signed, or has no place in a request any more.
fn without_unsendable(transaction: &Transaction) -> Transaction {
    let mut bytes_left = REQUEST_BYTES_MAX - ENVELOPE_BYTES;
    let mut is_sendable = |part: &Bytes| {
        let is_sendable = canonical_text(part, bytes_left).is_ok();
        if is_sendable {
            // With the comma behind it.
            bytes_left = bytes_left.saturating_sub(part.len() + 1);
        }
        is_sendable
    };
    let mut rest = transaction.clone();
    rest.pdus.retain(&mut is_sendable);
    rest.edus.retain(&mut is_sendable);
    rest
}

/// What a server says of the events of a transaction that it has taken, as the status tells whatever follows. It is for the log,
/// and not worth reading if it is long or broken off.
///
/// Errors: `Timeout` if it does not come. Whoever keeps us waiting for it is to be left alone.
async fn said(mut answer: Answer) -> Result<Vec<u8>, RemoteError> {
    answer.end = answer.end.min(Instant::now() + TRANSACTION_ANSWER_TIME_MAX);
    let mut said = Vec::new();
    loop {
        match answer.next().await {
            Ok(Some(piece)) => said.extend_from_slice(&piece),
            Err(RemoteError::Timeout) => return Err(RemoteError::Timeout),
            Ok(None) | Err(_) => return Ok(said),
        }
    }
}

/// Whether the same transaction would be refused for ever: what is malformed, or too large, stays so. Everything else is
/// something of the server, and may pass.
fn is_final(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

fn failed(destination: &str, error: &RemoteError) -> Sent {
    debug!(%destination, %error, "a server could not be sent a transaction");
    let retry_after = match error {
        RemoteError::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    Sent::Failed { retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX) }
}

/// The server has sent something: if it could not be reached, it is tried at once. Costs a look into memory otherwise.
///
/// Errors: those of the store.
pub async fn heard_from(ctx: &Context, destination: &ServerName) -> warren_engine::Result<()> {
    if ctx.engine.read(&IsBackingOff(destination.as_str()))?
        && ctx.engine.write(HeardFromServer { destination: destination.to_string() }).await?
    {
        ctx.engine.read(&MakeDue(destination.as_str()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_given_up_and_nothing_else() {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let nested = |depth: usize| text(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        let long = |bytes: usize| text(&format!("\"{}\"", "x".repeat(bytes)));
        let transaction = |pdus: &[Bytes], edus: &[Bytes]| Transaction {
            id: "1".to_owned(),
            origin_server_ts: 1,
            pdus: pdus.to_vec(),
            edus: edus.to_vec(),
        };
        let good = [text(r#"{"a":1}"#), nested(1_000)];
        let whole = transaction(&good, &good);
        assert!(with_all_of("here.example", &whole).is_ok());
        assert_eq!(without_unsendable(&whole), whole);
        let half = long(REQUEST_BYTES_MAX / 2);
        for (bad, left) in [
            (transaction(&[good[0].clone(), text("{"), good[1].clone()], &good), whole.clone()),
            (
                transaction(&good, &[nested(40_000), good[0].clone(), good[1].clone(), text("")]),
                whole.clone(),
            ),
            (transaction(&[long(REQUEST_BYTES_MAX), good[0].clone(), good[1].clone()], &good), whole.clone()),
            (
                transaction(&[half.clone(), good[0].clone()], &[half.clone(), good[1].clone()]),
                transaction(&[half.clone(), good[0].clone()], &good[1..]),
            ),
        ] {
            assert!(with_all_of("here.example", &bad).is_err());
            assert!(without_unsendable(&bad) == left);
            assert!(request("here.example", "there.example", &bad).is_some());
        }
    }
}
