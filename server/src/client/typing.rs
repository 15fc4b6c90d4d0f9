//! `typing.yaml`: who is writing.

use serde::Deserialize;
use warren_engine::command::SetTyping;

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/client/v3/rooms/{roomId}/typing/{userId}" ["r0"] Guest Send Json set_typing;
}

#[derive(Deserialize)]
struct Body {
    typing: bool,
    /// In milliseconds. Clients that reckon in fractions say so.
    timeout: Option<f64>,
}

async fn set_typing(call: Call) -> Outcome {
    let user = call.own_user("userId")?.to_string();
    let body: Body = call.json()?;
    if body.timeout.is_some_and(|timeout| timeout < 0.0) {
        return Err(ApiError::bad_json("timeout must not be negative"));
    }
    let typing = SetTyping {
        room_id: call.path("roomId")?.into_owned(),
        user,
        typing: body.typing,
        timeout_ms: body.timeout.map(|timeout| timeout as u64),
    };
    call.ctx.engine.write(typing).await?;
    Ok(Answer::empty())
}
