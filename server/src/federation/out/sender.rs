//! Deliveries to other servers: one transaction in flight for each, many servers at once.
//!
//! What is sent to whom, and when again after a failure, the engine decides and remembers; here it is carried. The engine
//! tells when there is news, so nothing is polled; after a start it tells of everything that was left.
//! Specification: server-server API, "Transactions".

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use metrics::{counter, gauge};
use ruma_common::ServerName;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};
use warren_engine::command::{DeliveryShelved, HeardFromServer, Transaction};
use warren_engine::delivery::{Delivery, Next, STORE_FAILED_WAIT_MS, Sent};
use warren_engine::view::federation::{Due, DueDestinations, IsSlow, LeaveDestination, MakeDue, MayBeBack};

use super::RemoteError;
use super::transaction::send;
use crate::context::Context;
use crate::federation::limits::{DELIVERIES_GATHERED_TIME, DELIVERY_PROMPT_TIME, LAGGARDS_PART};
use crate::worker::{ended, guarded};

/// Delivers until the server stops. What is in flight then is sent again after the next start.
pub async fn run(ctx: Arc<Context>) {
    let mut deliveries = JoinSet::new();
    let deliveries_max = ctx.federation.places.deliveries;
    loop {
        let due = look(&ctx, deliveries_max - deliveries.len());
        for destination in due.destinations {
            deliveries.spawn(ctx.under_way.counted(deliver(ctx.clone(), destination)));
        }
        gauge!("warren_federation_deliveries_in_flight").set(deliveries.len() as f64);
        let has_room = deliveries.len() < deliveries_max;
        let next = due.next_ms.map(|next_ms| next_ms.saturating_sub(ctx.engine.now_ms()));
        tokio::select! {
            biased;
            () = ctx.shutdown.cancelled() => break,
            Some(delivered) = deliveries.join_next() => {
                ended("a delivery", delivered);
                if !has_room {
                    // More may wait, and a look goes through all of them: one for all deliveries that end within a moment.
                    sleep(DELIVERIES_GATHERED_TIME).await;
                }
                while let Some(delivered) = deliveries.try_join_next() {
                    ended("a delivery", delivered);
                }
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

fn laggards_max(ctx: &Context) -> usize {
    ctx.federation.places.deliveries / LAGGARDS_PART
}

/// Who is due. The first look goes through all servers that are known.
fn look(ctx: &Context, limit: usize) -> Due {
    let due = DueDestinations { limit, laggards_max: laggards_max(ctx) };
    match tokio::task::block_in_place(|| ctx.engine.read(&due)) {
        Ok(due) => due,
        Err(error) => {
            warn!(%error, "it cannot be told who is to be sent something");
            let next_ms = Some(ctx.engine.now_ms() + STORE_FAILED_WAIT_MS);
            Due { next_ms, ..Due::default() }
        }
    }
}

/// Sends a server what there is for it, one transaction after the other. Where this server does not deal with that one, it all
/// waits for a start with other lists, and nothing has failed.
async fn deliver(ctx: Arc<Context>, destination: Arc<str>) {
    let left = Left { due_ms: 0, was_prompt: None };
    let visit = Visit { ctx: &ctx, destination: &destination, left };
    if ctx.config.federation_access.admits(&destination) {
        visit.until(deliver_all(&ctx, &destination)).await;
    } else {
        visit.until(shelve(&ctx, &destination)).await;
    }
}

/// One write a day, so that what waits does not grow for ever.
async fn shelve(ctx: &Context, destination: &str) -> warren_engine::Result<Left> {
    let due_ms = ctx.engine.write(DeliveryShelved { destination: destination.to_owned() }).await?;
    Ok(Left { due_ms, was_prompt: None })
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
            biased;
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

/// A server that is slow is left after each transaction, so that it waits for its turn among its like before the next is begun. So is
/// one that is prompt once it was sent things for as long, for there may always be more for it.
async fn deliver_all(ctx: &Context, destination: &Arc<str>) -> warren_engine::Result<Left> {
    let mut delivery = Delivery::new(destination.clone());
    let (begun, mut was_prompt) = (Instant::now(), None);
    loop {
        match delivery.next_step() {
            Next::Begin(next) => {
                let next = ctx.engine.write(next).await?;
                // What was sent before is noted with it.
                ctx.federation.taken.notify_waiters();
                delivery.begun(&ctx.engine, next)?;
            }
            Next::Send(transaction) => {
                let sent = send_in_time(ctx, destination, transaction).await?;
                was_prompt = Some(sent == Sent::Done);
                let is_for_long = sent == Sent::Done && begun.elapsed() > DELIVERY_PROMPT_TIME;
                delivery.sent(if is_for_long { Sent::DoneForNow } else { sent });
            }
            Next::Fail(failed) => {
                let retry_ms = ctx.engine.write(failed).await?;
                delivery.failed(retry_ms);
            }
            Next::Leave(due_ms) => return Ok(Left { due_ms, was_prompt }),
        }
    }
}

/// Sends a transaction. A server that is slow is waited for if few enough are: the places of others are for those that may be
/// prompt. What is broken off goes out again, when the server has its turn.
async fn send_in_time(
    ctx: &Context,
    destination: &str,
    transaction: Transaction,
) -> warren_engine::Result<Sent> {
    let mut sending = pin!(send(ctx, destination, transaction));
    if let Ok(sent) = timeout(DELIVERY_PROMPT_TIME, &mut sending).await {
        return Ok(sent.map_or_else(|error| failed(destination, &error), |()| Sent::Done));
    }
    if !ctx.engine.read(&IsSlow { destination, laggards_max: laggards_max(ctx) })? {
        counter!("warren_federation_deliveries_broken_off_total", "reason" => "slow").increment(1);
        return Ok(failed(destination, &RemoteError::Timeout));
    }
    Ok(sending.await.map_or_else(|error| failed(destination, &error), |()| Sent::DoneForNow))
}

fn failed(destination: &str, error: &RemoteError) -> Sent {
    debug!(%destination, %error, "a server could not be sent a transaction");
    let (retry_after, is_rate_limit) = match error {
        RemoteError::Refused { status, retry_after, .. } => {
            (retry_after.unwrap_or_default(), *status == StatusCode::TOO_MANY_REQUESTS)
        }
        _ => (Duration::ZERO, false),
    };
    let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
    Sent::Failed { retry_after_ms, is_rate_limit }
}

/// The server has sent something, or has answered well: if it could not be reached, it is tried as soon as that is worth an attempt.
/// Costs a look into memory otherwise.
///
/// Errors: those of the store.
pub async fn heard_from(ctx: &Context, destination: &ServerName) -> warren_engine::Result<()> {
    if ctx.engine.read(&MayBeBack(destination.as_str()))?
        && let Some(due_ms) =
            ctx.engine.write(HeardFromServer { destination: destination.to_string() }).await?
    {
        ctx.engine.read(&MakeDue { destination: destination.as_str(), due_ms })?;
    }
    Ok(())
}
