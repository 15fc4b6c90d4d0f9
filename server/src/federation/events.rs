//! `events.yaml`: single events, the state before an event, and the event closest to a time.

use bytes::Bytes;
use serde_json::json;
use tokio::task::block_in_place;
use warren_engine::view::federation::{EventsById, PeerEventByTimestamp, StateAnswer, StateAt};

use super::lists::{self, Part};
use super::room_answers::RoomPlace;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/state/{roomId}"              [] Server Federation Nothing get_room_state;
    GET "/_matrix/federation/v1/state_ids/{roomId}"          [] Server Federation Nothing get_room_state_ids;
    GET "/_matrix/federation/v1/event/{eventId}"             [] Server Federation Nothing get_event;
    GET "/_matrix/federation/v1/timestamp_to_event/{roomId}" ["unstable/org.matrix.msc3030"] Server Federation Nothing get_event_by_timestamp;
}

async fn state(call: &Call) -> Result<(RoomPlace, StateAnswer), ApiError> {
    let view = StateAt {
        room_id: call.path("roomId")?.into_owned(),
        event_id: call.query_required("event_id")?.into_owned(),
        server: call.origin()?.to_string(),
    };
    let place = call.ctx.federation.room_answers.place(call).await?;
    // The state of a large room takes some time; other requests go to other threads meanwhile.
    Ok((place, block_in_place(|| call.ctx.engine.read(&view))?))
}

async fn get_room_state(call: Call) -> Outcome {
    let (place, answer) = state(&call).await?;
    let parts = vec![("auth_chain", Part::Pdus(answer.auth_chain)), ("pdus", Part::Pdus(answer.state))];
    Ok(lists::answer(&call.ctx, place, "", parts, ""))
}

async fn get_room_state_ids(call: Call) -> Outcome {
    let (place, answer) = state(&call).await?;
    let parts = vec![("auth_chain_ids", Part::Ids(answer.auth_chain)), ("pdu_ids", Part::Ids(answer.state))];
    Ok(lists::answer(&call.ctx, place, "", parts, ""))
}

async fn get_event(call: Call) -> Outcome {
    let view = EventsById {
        room_id: None,
        event_ids: vec![call.path("eventId")?.into_owned()],
        server: call.origin()?.to_string(),
    };
    let found = call.ctx.engine.read(&view)?.pop();
    let event = found.ok_or_else(|| ApiError::not_found("This event is not known"))??;
    Ok(transaction(&call, vec![event]))
}

/// Events as a transaction of this server.
pub(super) fn transaction(call: &Call, pdus: Vec<Bytes>) -> Answer {
    let origin = json!(call.ctx.config.server_name);
    let now = call.ctx.engine.now_ms();
    let mut chunks = vec![format!("{{\"origin\":{origin},\"origin_server_ts\":{now},\"pdus\":[").into()];
    push_joined(&mut chunks, pdus);
    chunks.push(Bytes::from_static(b"]}"));
    Answer::json_chunks(chunks)
}

/// Items of an array with commas between them.
pub(super) fn push_joined(chunks: &mut Vec<Bytes>, items: Vec<Bytes>) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            chunks.push(Bytes::from_static(b","));
        }
        chunks.push(item);
    }
}

async fn get_event_by_timestamp(call: Call) -> Outcome {
    let missing = |name: &str| ApiError::missing_param(format!("Query parameter {name} is missing"));
    let view = PeerEventByTimestamp {
        room_id: call.path("roomId")?.into_owned(),
        ts: call.query_u64("ts")?.ok_or_else(|| missing("ts"))?,
        forwards: call.query_enum("dir", &[("f", true), ("b", false)])?.ok_or_else(|| missing("dir"))?,
        server: call.origin()?.to_string(),
    };
    let (event_id, origin_server_ts) = call.ctx.engine.read(&view)?;
    Answer::json(&json!({ "event_id": event_id, "origin_server_ts": origin_server_ts }))
}
