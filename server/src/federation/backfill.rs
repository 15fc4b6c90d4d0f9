//! `backfill.yaml`: a room's history, and what lies between events.

use bytes::Bytes;
use serde::Deserialize;
use warren_engine::view::federation::{Backfill, MISSING_EVENTS_LIMIT_DEFAULT, MissingEvents};

use super::events::{push_joined, transaction};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET  "/_matrix/federation/v1/backfill/{roomId}"           [] Server Federation Nothing backfill_room;
    POST "/_matrix/federation/v1/get_missing_events/{roomId}" [] Server Federation Json    get_missing_previous_events;
}

async fn backfill_room(call: Call) -> Outcome {
    let limit = call.query_u64("limit")?;
    let limit = limit.ok_or_else(|| ApiError::missing_param("Query parameter limit is missing"))?;
    let from = call.query_all("v")?;
    if from.is_empty() {
        return Err(ApiError::missing_param("Query parameter v is missing"));
    }
    let view = Backfill {
        room_id: call.path("roomId")?.into_owned(),
        from,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        server: call.origin()?.to_string(),
    };
    let pdus = call.ctx.engine.read(&view)?;
    Ok(transaction(&call, pdus))
}

#[derive(Deserialize)]
struct Between {
    earliest_events: Vec<String>,
    latest_events: Vec<String>,
    limit: Option<usize>,
    #[serde(default)]
    min_depth: i64,
}

async fn get_missing_previous_events(call: Call) -> Outcome {
    let between: Between = call.json()?;
    let view = MissingEvents {
        room_id: call.path("roomId")?.into_owned(),
        earliest_events: between.earliest_events,
        latest_events: between.latest_events,
        limit: between.limit.unwrap_or(MISSING_EVENTS_LIMIT_DEFAULT),
        min_depth: u64::try_from(between.min_depth).unwrap_or_default(),
        server: call.origin()?.to_string(),
    };
    let mut chunks = vec![Bytes::from_static(b"{\"events\":[")];
    push_joined(&mut chunks, call.ctx.engine.read(&view)?);
    chunks.push(Bytes::from_static(b"]}"));
    Ok(Answer::json_chunks(chunks))
}
