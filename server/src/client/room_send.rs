//! `room_send.yaml`: sending message events.

use serde_json::{Map, Value, json};
use warren_engine::command::SendEvent;

use super::membership::room_id;
use crate::federation::out::guests;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}" ["r0"] Guest Send Json send_message;
}

async fn send_message(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let kind = call.path("eventType")?.into_owned();
    let content: Map<String, Value> = call.json()?;
    send(&call, kind, content, None).await
}

/// Sends a message event under the transaction id of the path, and answers with its id.
pub async fn send(
    call: &Call,
    kind: String,
    content: Map<String, Value>,
    redacts: Option<String>,
) -> Result<Answer, ApiError> {
    let session = call.session()?;
    let device_id = session.device_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let event = SendEvent {
        room_id: room_id(call)?,
        sender: session.user_id.to_string(),
        is_guest: session.is_guest,
        kind,
        state_key: None,
        content,
        redacts,
        transaction: Some((device_id, call.path("txnId")?.into_owned())),
        origin_server_ts: None,
    };
    let event_id = guests::send(&call.ctx, event).await?;
    Answer::json(&json!({ "event_id": event_id }))
}
