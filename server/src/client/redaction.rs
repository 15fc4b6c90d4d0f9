//! `redaction.yaml`: redacting events.

use serde::Deserialize;
use serde_json::{Map, Value};
use warren_engine::Error;

use super::room_send::send;
use super::rooms::one_event;
use crate::http::{ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}" ["r0"] Required Send Json redact_event;
}

async fn redact_event(call: Call) -> Outcome {
    // Who is suspended may take back what is their own (section "Account suspension").
    if call.session()?.is_suspended && !is_own(&call)? {
        call.refuse_suspended()?;
    }
    let content: Map<String, Value> = call.json_or_empty()?;
    let redacts = call.path("eventId")?.into_owned();
    send(&call, "m.room.redaction".to_owned(), content, Some(redacts)).await
}

/// Whether the event that the path names is known to be sent by who asks.
fn is_own(call: &Call) -> Result<bool, ApiError> {
    #[derive(Deserialize)]
    struct Sent {
        sender: String,
    }
    let event = match call.ctx.engine.read(&one_event(call)?) {
        Err(Error::NotFound(_)) => return Ok(false),
        event => event?,
    };
    let event: Sent = serde_json::from_slice(&event).map_err(ApiError::internal)?;
    Ok(event.sender == call.user()?.as_str())
}
