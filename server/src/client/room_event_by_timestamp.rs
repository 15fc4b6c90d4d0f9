//! `room_event_by_timestamp.yaml`: the event closest to a time.

use serde_json::json;
use warren_engine::view::EventByTimestamp;
use warren_engine::{Error, What};

use super::message_pagination::is_forwards;
use crate::federation::out::timestamp;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event" ["unstable/org.matrix.msc3030"] Guest Read Nothing get_event_by_timestamp;
}

async fn get_event_by_timestamp(call: Call) -> Outcome {
    let missing = |name: &str| ApiError::missing_param(format!("Query parameter {name} is missing"));
    let event = EventByTimestamp {
        room_id: call.path("roomId")?.into_owned(),
        user: call.user()?.to_string(),
        ts: call.query_u64("ts")?.ok_or_else(|| missing("ts"))?,
        forwards: is_forwards(&call)?.ok_or_else(|| missing("dir"))?,
    };
    let Some((event_id, origin_server_ts)) = timestamp::closest(&call.ctx, &event).await? else {
        return Err(Error::NotFound(What::Event).into());
    };
    Answer::json(&json!({ "event_id": event_id, "origin_server_ts": origin_server_ts }))
}
