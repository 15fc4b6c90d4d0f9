//! Pages of history as a server tells them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use warren_engine::core::json::AtMost;

use super::super::RemoteError;
use super::super::ask::{Ask, escaped, path};
use super::super::fetch::bytes_of;
use super::{ANSWER_TIME_MAX, Asked, EVENTS_MAX};
use crate::context::Context;

#[derive(Deserialize)]
struct Page {
    pdus: AtMost<Box<RawValue>, EVENTS_MAX>,
}

/// A page of history of a server, if it tells one in time; of one that does not that is remembered.
pub async fn page_in_time(
    ctx: &Context,
    server: &str,
    room_id: &str,
    event_ids: &[Arc<str>],
    time_max: Duration,
) -> Result<Vec<Bytes>, Asked> {
    let (histories, begun) = (&ctx.federation.histories, Instant::now());
    let answer = timeout(time_max, page_before(ctx, server, room_id, event_ids)).await;
    let is_unreachable = matches!(answer, Ok(Err(RemoteError::Unreachable(_) | RemoteError::Timeout)));
    histories.note_silence(server, is_unreachable || begun.elapsed() >= ANSWER_TIME_MAX);
    match answer {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => {
            tracing::debug!(server, room_id, %error, "a server gives no history");
            Err(Asked::InVain)
        }
        Err(_) => Err(Asked::Late),
    }
}

/// A page of history: these events and what is before them.
async fn page_before(
    ctx: &Context,
    server: &str,
    room_id: &str,
    event_ids: &[Arc<str>],
) -> Result<Vec<Bytes>, RemoteError> {
    let mut target = format!("{}?limit={EVENTS_MAX}", path("v1/backfill/{roomId}", &[room_id]));
    for event_id in event_ids {
        target.push_str(&format!("&v={}", escaped(event_id)));
    }
    let page: Page = Ask::get(server, target).for_events().read(ctx).await?;
    Ok(page.pdus.0.into_iter().map(bytes_of).collect())
}
