//! `event_context.yaml`: an event with what came before and after it.

use serde::Deserialize;
use warren_engine::view::{CONTEXT_LIMIT_DEFAULT, EventContext, StreamToken};

use super::message_pagination::{limit, room_event_filter};
use super::rooms::one_event;
use crate::federation::out::history;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/rooms/{roomId}/context/{eventId}" ["r0"] Guest Read Nothing get_event_context;
}

async fn get_event_context(call: Call) -> Outcome {
    let context =
        EventContext { event: one_event(&call)?, limit: limit(&call)?, filter: room_event_filter(&call)? };
    let answer = call.ctx.engine.read(&context)?;
    let Edge { end } = serde_json::from_slice(&answer).map_err(ApiError::internal)?;
    let from = Some(StreamToken::decode(&end)?);
    let limit = context.limit.unwrap_or(CONTEXT_LIMIT_DEFAULT) as usize;
    let has_come = history::fill(&call.ctx, &context.event.room_id, from, false, limit).await?;
    let answer = if has_come { call.ctx.engine.read(&context)? } else { answer };
    Ok(Answer::json_bytes(answer.into()))
}

/// Where the answer ends: what is before it is looked through for gaps.
#[derive(Deserialize)]
struct Edge {
    end: String,
}
