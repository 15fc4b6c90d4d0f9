//! Deliveries to other servers: one transaction in flight for each, many servers at once.
//!
//! What is sent to whom, and when again after a failure, the engine decides and remembers; here it is carried. The engine
//! tells when there is news, so nothing is polled; after a start it tells of everything that was left.
//! Specification: server-server API, "Transactions".

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{counter, gauge};
use ruma_common::ServerName;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};
use warren_engine::command::{DeliveryFailed, HeardFromServer, NextTransaction, Transaction};
use warren_engine::core::num::StreamPos;
use warren_engine::view::federation::{
    Due, DueDestinations, EphemeralEdus, IsBackingOff, LeaveDestination, MakeDue,
};

use super::{RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{DELIVERIES_MAX, TRANSACTION_TIME_MAX};

/// The random part of the id of a transaction that is not repeated: 96 bits.
const ID_CHARS: usize = 16;
/// How long a server is left alone when the store failed, in milliseconds: as long as after a first failure to reach it.
const STORE_FAILED_WAIT_MS: u64 = 10_000;
/// The longest that a server may ask not to be sent anything, in milliseconds: the longest pause after failures.
const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

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
            Some(_) = deliveries.join_next() => {}
            () = ctx.engine.outgoing_news(), if has_room => {}
            () = sleep(Duration::from_millis(next.unwrap_or_default())), if has_room && next.is_some() => {}
        }
    }
    // They stop by themselves.
    while deliveries.join_next().await.is_some() {}
}

/// Who is due. The first look goes through all servers that are known.
fn look(ctx: &Context, limit: usize) -> Due {
    match tokio::task::block_in_place(|| ctx.engine.read(&DueDestinations { limit })) {
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
    let due_ms = tokio::select! {
        // What was under way is in the store, and is sent again.
        () = ctx.shutdown.cancelled() => 0,
        due_ms = deliver_all(&ctx, &destination) => due_ms.unwrap_or_else(|error| {
            warn!(%destination, %error, "what is for a server cannot be read or noted");
            ctx.engine.now_ms() + STORE_FAILED_WAIT_MS
        }),
    };
    if let Err(error) = ctx.engine.read(&LeaveDestination { destination: &destination, due_ms }) {
        warn!(%destination, %error, "a server is not sent anything until the next start");
    }
}

/// Answers when the server may be tried again, in milliseconds since the epoch.
async fn deliver_all(ctx: &Context, destination: &Arc<str>) -> warren_engine::Result<u64> {
    let mut acknowledged = None;
    loop {
        let next = NextTransaction { destination: destination.to_string(), acknowledged };
        let next = ctx.engine.write(next).await?;
        let is_kept = next.transaction.is_some();
        let Some(transaction) = complete(ctx, destination, next.transaction, next.delivered_to)? else {
            return Ok(0);
        };
        match send(ctx, destination, &transaction).await {
            Ok(()) => acknowledged = is_kept.then_some(transaction.id),
            Err(error) => return failed(ctx, destination, &error).await,
        }
    }
}

/// Adds what is soon stale. `None` if there is nothing to be sent.
fn complete(
    ctx: &Context,
    destination: &str,
    kept: Option<Transaction>,
    delivered_to: StreamPos,
) -> warren_engine::Result<Option<Transaction>> {
    let is_all = kept.is_none();
    let has = kept.as_ref().map_or(0, |transaction| transaction.edus.len());
    let limit = Transaction::EDUS_MAX.saturating_sub(has);
    let edus = ctx.engine.read(&EphemeralEdus { destination, delivered_to, is_all, limit })?;
    if edus.is_empty() {
        return Ok(kept);
    }
    let mut transaction = kept.unwrap_or_else(|| Transaction {
        id: ctx.engine.random_text(ID_CHARS),
        origin_server_ts: ctx.engine.now_ms(),
        pdus: Vec::new(),
        edus: Vec::new(),
    });
    transaction.edus.extend(edus);
    Ok(Some(transaction))
}

/// Sends a transaction. What the server finds wrong with single events is theirs and for the log.
async fn send(ctx: &Context, destination: &str, transaction: &Transaction) -> Result<(), RemoteError> {
    let unusable = |error: &dyn std::fmt::Display| RemoteError::BadAnswer(error.to_string());
    let to = ServerName::parse(destination).map_err(|error| unusable(&error))?;
    let body = transaction.body(ctx.config.server_name.as_str());
    let body: &RawValue = serde_json::from_slice(&body).map_err(|error| unusable(&error))?;
    let target = format!("/_matrix/federation/v1/send/{}", transaction.id);
    let request = Request::new(Method::PUT, target).with_content(&body)?.with_time(TRANSACTION_TIME_MAX);
    let outcome = match request.open(ctx, &to).await {
        Ok(mut answer) => {
            let mut said = Vec::new();
            // Whatever follows, the status says that it was taken.
            while let Ok(Some(piece)) = answer.next().await {
                said.extend_from_slice(&piece);
            }
            debug!(%destination, answer = %String::from_utf8_lossy(&said), "a transaction was taken");
            Ok("taken")
        }
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

/// Whether the same transaction would be refused for ever: what is malformed, or too large, stays so. Everything else is
/// something of the server, and may pass.
fn is_final(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

async fn failed(ctx: &Context, destination: &Arc<str>, error: &RemoteError) -> warren_engine::Result<u64> {
    let retry_ms = ctx.engine.write(DeliveryFailed { destination: destination.to_string() }).await?;
    debug!(%destination, %error, retry_ms, "a server could not be sent a transaction");
    let asked_ms = match error {
        RemoteError::Refused { retry_after: Some(after), .. } => {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(RETRY_AFTER_MS_MAX);
            ctx.engine.now_ms() + after_ms.min(RETRY_AFTER_MS_MAX)
        }
        _ => 0,
    };
    Ok(retry_ms.max(asked_ms))
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
