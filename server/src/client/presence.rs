//! `presence.yaml`: how present users are.

use serde::Deserialize;
use warren_engine::PresenceState;
use warren_engine::command::SetPresence;
use warren_engine::view::PresenceOf;

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/client/v3/presence/{userId}/status" ["r0"] Guest Write Json    set_presence;
    GET "/_matrix/client/v3/presence/{userId}/status" ["r0"] Guest Read  Nothing get_presence;
}

/// The longest message about a user's presence, in bytes: it is sent to everybody who shares a room.
const STATUS_BYTES_MAX: usize = 1024;

#[derive(Deserialize)]
struct Body {
    presence: String,
    status_msg: Option<String>,
}

async fn set_presence(call: Call) -> Outcome {
    let user = call.own_user("userId")?.to_string();
    let body: Body = call.json()?;
    let state = match body.presence.as_str() {
        "online" => PresenceState::Online,
        "unavailable" => PresenceState::Unavailable,
        "offline" => PresenceState::Offline,
        _ => return Err(ApiError::invalid_param("presence must be online, unavailable or offline")),
    };
    if body.status_msg.as_ref().is_some_and(|message| message.len() > STATUS_BYTES_MAX) {
        return Err(ApiError::invalid_param("status_msg is longer than 1024 bytes"));
    }
    // Whoever sets a state without a message has none.
    let status_msg = Some(body.status_msg.unwrap_or_default());
    call.ctx.engine.write(SetPresence { user, state, status_msg }).await?;
    Ok(Answer::empty())
}

async fn get_presence(call: Call) -> Outcome {
    let presence = PresenceOf { asker: call.user()?.to_string(), user: call.path("userId")?.into_owned() };
    Answer::json(&call.ctx.engine.read(&presence)?)
}
