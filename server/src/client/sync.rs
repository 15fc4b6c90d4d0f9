//! `sync.yaml`: the long poll that tells a device everything new.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use warren_engine::PresenceState;
use warren_engine::command::{DeleteToDevice, RenewKeyStock, ShowPresence};
use warren_engine::core::filter::Filter;
use warren_engine::view::{IsPresent, StoredFilter, Sync, SyncAnswer, SyncToken};

use super::presence;
use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/sync" ["r0", "v2_alpha"] Guest Read Nothing get_sync;
}

/// The longest that a sync waits, whatever the client asks for: proxies cut what is silent longer.
const TIMEOUT_MS_MAX: u64 = 180_000;

/// The filter of who names none.
static EVERYTHING: LazyLock<Arc<Filter>> = LazyLock::new(Arc::default);

/// The name under which the state after the timeline is asked for: clients of before the specification had it know their own
/// alone.
fn state_after(call: &Call) -> Result<Option<&'static str>, ApiError> {
    if call.query_bool("use_state_after", false)? {
        return Ok(Some("state_after"));
    }
    let is_early = call.query_bool("org.matrix.msc4222.use_state_after", false)?;
    Ok(is_early.then_some("org.matrix.msc4222.state_after"))
}

async fn get_sync(call: Call) -> Outcome {
    let ctx = call.ctx.clone();
    let timeout = Duration::from_millis(call.query_u64("timeout")?.unwrap_or(0).min(TIMEOUT_MS_MAX));
    let since = call.query("since")?.map(|token| SyncToken::decode(&token)).transpose()?;
    let full_state = call.query_bool("full_state", false)?;
    let state_after = state_after(&call)?;
    let mut sync = Sync {
        user_id: call.user()?.to_string(),
        device_id: call.session()?.device_id.as_ref().map(ToString::to_string),
        since,
        filter: read_filter(&call)?,
        full_state,
        state_after,
        waits: !timeout.is_zero() && !full_state,
    };
    show_presence(&call, timeout)?;
    let user = call.session()?.user;
    // Who waits holds on to no more of the request than this.
    drop(call);
    let deadline = Instant::now() + timeout;
    let mut answer = ctx.engine.read(&sync)?;
    if answer.begins_anew && renew_keys(&ctx, &sync).await {
        // What it tells of them is as it was before.
        answer = ctx.engine.read(&sync)?;
    }
    if let (Some(since), true) = (since, answer.has_received) {
        acknowledge(&ctx, &sync, since);
    }
    loop {
        if !answer.is_empty || !sync.waits {
            return reply(answer);
        }
        sync.since = Some(answer.token);
        let news = ctx.engine.wait_for(user, answer.token.pos);
        tokio::select! {
            biased;
            _ = news => {}
            () = tokio::time::sleep_until(deadline) => sync.waits = false,
            () = ctx.shutdown.cancelled() => sync.waits = false,
        }
        answer = ctx.engine.read(&sync)?;
    }
}

fn reply(answer: SyncAnswer) -> Outcome {
    Ok(Answer::json_bytes(Bytes::from(answer.body)))
}

/// The filter: JSON in the query, or the id of one that was uploaded.
fn read_filter(call: &Call) -> Result<Arc<Filter>, ApiError> {
    let Some(filter) = call.query("filter")? else { return Ok(EVERYTHING.clone()) };
    if filter.starts_with('{') {
        let parsed = Filter::parse(filter.as_bytes());
        return parsed.map(Arc::new).map_err(|error| ApiError::invalid_param(format!("filter: {error}")));
    }
    let stored = call.ctx.engine.read(&StoredFilter { user: call.session()?.user, id: &filter })?;
    Filter::parse(&stored).map(Arc::new).map_err(ApiError::internal)
}

/// Who syncs is there, unless the device says otherwise. Written only when it is news, and nobody waits for it.
fn show_presence(call: &Call, timeout: Duration) -> Result<(), ApiError> {
    let state = match call.query("set_presence")? {
        Some(name) => presence::parse_state("set_presence", &name)?,
        None => PresenceState::Online,
    };
    // A device that says offline does not make its user present; another may.
    if state == PresenceState::Offline || !call.ctx.config.presence {
        return Ok(());
    }
    let session = call.session()?;
    let (user, device) = (session.user, session.device_id.as_ref().map(|device| device.as_str()));
    let hold_ms = timeout.as_millis() as u64;
    let engine = &call.ctx.engine;
    if !engine.read(&IsPresent { user, device, state, hold_ms })? {
        let (user_id, device) = (session.user_id.to_string(), device.map(str::to_owned));
        drop(engine.write(ShowPresence { user_id, device, state, hold_ms }));
    }
    Ok(())
}

/// Lets a device that comes with a token of a database that was lost make new one-time keys, as those here may have been given out.
/// Answers whether there were any. A disk that takes nothing keeps nobody from syncing.
async fn renew_keys(ctx: &Context, sync: &Sync) -> bool {
    let (Some(device_id), Some(since)) = (sync.device_id.clone(), sync.since) else { return false };
    let renew = RenewKeyStock { user_id: sync.user_id.clone(), device_id, before: since.pos };
    ctx.engine.write(renew).await.unwrap_or_default()
}

/// To-device messages that came with an earlier answer are done with when the client asks for what follows it. Nothing
/// depends on when that is on disk, so it is not waited for.
fn acknowledge(ctx: &Context, sync: &Sync, since: SyncToken) {
    if let Some(device_id) = sync.device_id.clone() {
        let (user_id, up_to) = (sync.user_id.clone(), since.to_device);
        drop(ctx.engine.write(DeleteToDevice { user_id, device_id, up_to }));
    }
}
