//! `message_pagination.yaml`: a room's history, page by page.

use warren_engine::Error;
use warren_engine::core::filter::RoomEventFilter;
use warren_engine::view::{BeforeGap, HistoryGap, MESSAGES_LIMIT_DEFAULT, Messages, StreamToken};

use crate::context::Context;
use crate::federation::out::history::{self, Filled};
use crate::federation::out::pruned;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/rooms/{roomId}/messages" ["r0", "v1"] Guest Read Nothing get_room_events;
}

async fn get_room_events(call: Call) -> Outcome {
    let session = call.session()?;
    let forwards =
        is_forwards(&call)?.ok_or_else(|| ApiError::missing_param("Query parameter dir is missing"))?;
    let messages = Messages {
        room_id: call.path("roomId")?.into_owned(),
        user: session.user_id.to_string(),
        device: session.device_id.as_ref().map(ToString::to_string),
        from: token(&call, "from")?,
        to: token(&call, "to")?,
        forwards,
        limit: limit(&call)?,
        filter: room_event_filter(&call)?,
    };
    let page = call.ctx.engine.read(&messages)?;
    let limit = messages.limit.unwrap_or(MESSAGES_LIMIT_DEFAULT) as usize;
    let Messages { room_id, from, to, .. } = &messages;
    let stretch = HistoryGap { room_id, from: *from, to: *to, forwards, limit };
    let filled = history::fill(&call.ctx, stretch).await?;
    let page = match filled {
        Filled::Whole => page,
        Filled::Ended | Filled::Going => read(&call.ctx, &messages, filled)?,
    };
    let page = match pruned::mend(&call.ctx, room_id, &page).await? {
        true => read(&call.ctx, &messages, filled)?,
        false => page,
    };
    Ok(Answer::json_bytes(page.into()))
}

fn read(ctx: &Context, messages: &Messages, filled: Filled) -> Result<Vec<u8>, Error> {
    match filled {
        Filled::Whole | Filled::Ended => ctx.engine.read(messages),
        Filled::Going => ctx.engine.read(&BeforeGap(messages)),
    }
}

/// `dir`: whether towards later events.
pub(super) fn is_forwards(call: &Call) -> Result<Option<bool>, ApiError> {
    call.query_enum("dir", &[("f", true), ("b", false)])
}

/// A token that this server gave out. An empty one counts as none, as other servers have it.
pub(super) fn token(call: &Call, name: &str) -> Result<Option<StreamToken>, ApiError> {
    match call.query(name)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => Ok(Some(StreamToken::decode(&text)?)),
    }
}

/// `limit`; more than fits means the most that the view gives.
pub(super) fn limit(call: &Call) -> Result<Option<u32>, ApiError> {
    Ok(call.query_u64("limit")?.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
}

/// `filter`: a `RoomEventFilter` as JSON.
pub(super) fn room_event_filter(call: &Call) -> Result<RoomEventFilter, ApiError> {
    match call.query("filter")? {
        None => Ok(RoomEventFilter::default()),
        Some(json) => RoomEventFilter::parse(json.as_bytes())
            .map_err(|error| ApiError::invalid_param(format!("Query parameter filter: {error}"))),
    }
}
