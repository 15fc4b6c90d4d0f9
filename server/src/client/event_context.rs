//! `event_context.yaml`: an event with what came before and after it.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use warren_engine::core::filter::LIMIT_MAX;
use warren_engine::view::{BeforeGap, CONTEXT_LIMIT_DEFAULT, EventContext, HistoryGap, StreamToken};

use super::message_pagination::{limit, room_event_filter};
use super::rooms::one_event;
use crate::context::Context;
use crate::federation::out::history::{self, Filled};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/rooms/{roomId}/context/{eventId}" ["r0"] Guest Read Nothing get_event_context;
}

async fn get_event_context(call: Call) -> Outcome {
    let context =
        EventContext { event: one_event(&call)?, limit: limit(&call)?, filter: room_event_filter(&call)? };
    let answer = call.ctx.engine.read(&BeforeGap(&context))?;
    let answer = match fill(&call.ctx, &context, &answer).await? {
        Filled::Whole => answer,
        Filled::Going => call.ctx.engine.read(&BeforeGap(&context))?,
        Filled::Ended => call.ctx.engine.read(&context)?,
    };
    Ok(Answer::json_bytes(answer.into()))
}

/// Fills the gaps at which the answer ends on either side, if it has fewer events there than are wanted.
async fn fill(ctx: &Arc<Context>, context: &EventContext, answer: &[u8]) -> Result<Filled, ApiError> {
    let sides: Sides = serde_json::from_slice(answer).map_err(ApiError::internal)?;
    let limit = context.limit.unwrap_or(CONTEXT_LIMIT_DEFAULT).min(LIMIT_MAX) as usize;
    let (start, end) = (StreamToken::decode(&sides.start)?, StreamToken::decode(&sides.end)?);
    let before = (limit / 2).saturating_sub(sides.events_before.len());
    let after = (limit - limit / 2).saturating_sub(sides.events_after.len());
    let room_id = &context.event.room_id;
    let side = |from, forwards, limit| HistoryGap { room_id, from: Some(from), to: None, forwards, limit };
    let (before, after) = tokio::join!(
        history::fill(ctx, side(start, false, before)),
        history::fill(ctx, side(end, true, after)),
    );
    Ok(before?.max(after?))
}

/// Where the answer begins and ends, and how much there is on either side of the event.
#[derive(Deserialize)]
struct Sides {
    start: String,
    end: String,
    events_before: Vec<IgnoredAny>,
    events_after: Vec<IgnoredAny>,
}
