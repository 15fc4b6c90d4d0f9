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
    let state = parse_state("presence", &body.presence)?;
    if body.status_msg.as_ref().is_some_and(|message| message.len() > STATUS_BYTES_MAX) {
        return Err(ApiError::invalid_param("status_msg is longer than 1024 bytes"));
    }
    if call.ctx.config.presence {
        let device = call.session()?.device_id.as_ref().map(ToString::to_string);
        // Whoever sets a state without a message has none.
        let status_msg = body.status_msg.unwrap_or_default();
        call.ctx.engine.write(SetPresence { user, device, state, status_msg }).await?;
    }
    Ok(Answer::empty())
}

/// A state by its name. `field` is what the client called it.
pub fn parse_state(field: &str, name: &str) -> Result<PresenceState, ApiError> {
    PresenceState::from_name(name)
        .ok_or_else(|| ApiError::invalid_param(format!("{field} must be online, unavailable or offline")))
}

async fn get_presence(call: Call) -> Outcome {
    let presence = PresenceOf { asker: call.user()?.to_string(), user: call.path("userId")?.into_owned() };
    Answer::json(&call.ctx.engine.read(&presence)?)
}
