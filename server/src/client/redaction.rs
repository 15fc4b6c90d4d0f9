//! `redaction.yaml`: redacting events.

use serde_json::{Map, Value};

use super::room_send::send;
use crate::http::{Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}" ["r0"] Required Send Json redact_event;
}

async fn redact_event(call: Call) -> Outcome {
    let content: Map<String, Value> = call.json_or_empty()?;
    let redacts = call.path("eventId")?.into_owned();
    send(&call, "m.room.redaction".to_owned(), content, Some(redacts)).await
}
