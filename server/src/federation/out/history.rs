//! History that this server lacks is asked for when a client reads it.
//!
//! Invariant: a client waits a bounded time, and gets what there is then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use warren_engine::core::json::AtMost;
use warren_engine::intake::Intake;
use warren_engine::view::federation::IncomingRoom;
use warren_engine::view::{HistoryGap, OpenGap, StreamToken};

use super::ask::{Ask, escaped, path};
use super::fetch::{bytes_of, servers_to_ask, take_in};
use super::flights::Flights;
use crate::context::Context;
use crate::http::ApiError;

/// How long a client waits for other servers.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Requests for history that one page of a client leads to: each brings some hundred events.
const ROUNDS_MAX: usize = 5;

/// Events that are asked for at once, as many as other servers give.
const EVENTS_MAX: usize = 100;

/// How long a gap that nobody could fill is left alone.
const IN_VAIN: Duration = Duration::from_secs(60);

/// Gaps that this is remembered of.
const IN_VAIN_MAX: usize = 10_000;

/// Who is filling gaps, and which could not be filled.
#[derive(Default)]
pub struct Histories {
    flights: Flights,
    in_vain: Mutex<HashMap<(String, i64), Instant>>,
}

impl Histories {
    fn was_in_vain(&self, room_id: &str, gap: &OpenGap) -> bool {
        let in_vain = self.in_vain.lock();
        in_vain.get(&(room_id.to_owned(), gap.pos.0)).is_some_and(|until| *until > Instant::now())
    }

    fn note_in_vain(&self, room_id: &str, gap: &OpenGap) {
        let (now, mut in_vain) = (Instant::now(), self.in_vain.lock());
        if in_vain.len() >= IN_VAIN_MAX {
            in_vain.retain(|_, until| *until > now);
            if in_vain.len() >= IN_VAIN_MAX {
                in_vain.clear();
            }
        }
        in_vain.insert((room_id.to_owned(), gap.pos.0), now + IN_VAIN);
    }
}

/// Fills the gaps that a page runs into, as far as there is time. Returns whether anything has come. Whether the client may
/// see the room is told by the page itself, which is to be read first.
pub async fn fill(
    ctx: &Arc<Context>,
    room_id: &str,
    from: Option<StreamToken>,
    forwards: bool,
    limit: usize,
) -> Result<bool, ApiError> {
    let view = HistoryGap { room_id, from, forwards, limit };
    if ctx.engine.read(&view)?.is_none() {
        return Ok(false);
    }
    let work = async {
        // The state before what is filled in follows from that of the join, which is to be whole.
        ctx.federation.completions.ended(room_id).await;
        let _turn = ctx.federation.histories.flights.alone(room_id).await;
        let mut has_come = false;
        for _ in 0..ROUNDS_MAX {
            let Some(gap) = ctx.engine.read(&view)? else { break };
            if ctx.federation.histories.was_in_vain(room_id, &gap) {
                break;
            }
            if !fill_gap(ctx, room_id, &gap).await? {
                ctx.federation.histories.note_in_vain(room_id, &gap);
                break;
            }
            has_come = true;
        }
        Ok(has_come)
    };
    // What has come by then is there; it is looked for.
    timeout(TIME_MAX, work).await.unwrap_or(Ok(true))
}

#[derive(Deserialize)]
struct Page {
    pdus: AtMost<Box<RawValue>, EVENTS_MAX>,
}

/// Asks one server after the other for what is missing. Returns whether anything of it was taken in.
async fn fill_gap(ctx: &Arc<Context>, room_id: &str, gap: &OpenGap) -> Result<bool, ApiError> {
    let own_name = ctx.engine.server_name();
    let Ok(version) = ctx.engine.read(&IncomingRoom { room_id, server: own_name }) else { return Ok(false) };
    for server in servers_to_ask(ctx, room_id, std::iter::empty())? {
        let mut target = format!("{}?limit={EVENTS_MAX}", path("v1/backfill/{roomId}", &[room_id]));
        for event_id in &gap.missing {
            target.push_str(&format!("&v={}", escaped(event_id)));
        }
        let page: Page = match Ask::get(&server, target).for_events().read(ctx).await {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(server, room_id, %error, "a server gives no history");
                continue;
            }
        };
        let pdus: Vec<Bytes> = page.pdus.0.into_iter().map(bytes_of).collect();
        let mut intake = Intake::of_history(room_id.to_owned(), version, pdus);
        take_in(ctx, &mut intake, &[server]).await?;
        if intake.outcomes.values().any(|outcome| {
            use warren_engine::Outcome::{Accepted, Rejected};
            matches!(outcome, Accepted | Rejected(_))
        }) {
            return Ok(true);
        }
    }
    Ok(false)
}
