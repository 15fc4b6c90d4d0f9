//! What the topics about membership share: the body, the room that is named, the command.

use serde::Deserialize;
use warren_engine::command::{ChangeMembership, MembershipAction};
use warren_engine::view::RoomAlias;

use crate::http::{ApiError, Call};

/// The body of a change of the asker's own membership.
#[derive(Default, Deserialize)]
pub struct Own {
    pub reason: Option<String>,
    pub third_party_signed: Option<serde_json::Value>,
}

/// The body of a change of another user's membership.
#[derive(Deserialize)]
pub struct OfOther {
    pub user_id: String,
    pub reason: Option<String>,
}

/// The room that `roomId` in the path names.
pub fn room_id(call: &Call) -> Result<String, ApiError> {
    let room_id = call.path("roomId")?;
    match room_id.starts_with('!') {
        true => Ok(room_id.into_owned()),
        false => Err(ApiError::invalid_param("A room id begins with an exclamation mark")),
    }
}

/// The room that `roomIdOrAlias` in the path names.
pub fn room_id_or_alias(call: &Call) -> Result<String, ApiError> {
    let name = call.path("roomIdOrAlias")?;
    match name.chars().next() {
        Some('!') => Ok(name.into_owned()),
        Some('#') => Ok(call.ctx.engine.read(&RoomAlias { alias: name.into_owned() })?),
        _ => Err(ApiError::invalid_param("A room is named by its id, with `!`, or an alias, with `#`")),
    }
}

/// Changes the asker's own membership.
pub async fn change_own(
    call: &Call,
    room_id: String,
    action: MembershipAction,
    reason: Option<String>,
) -> Result<(), ApiError> {
    change(call, room_id, call.user()?.to_string(), action, reason).await
}

/// Changes another user's membership of the room in the path, as the body asks.
pub async fn change_of_other(call: &Call, action: MembershipAction) -> Result<(), ApiError> {
    let request: OfOther = call.json()?;
    change(call, room_id(call)?, request.user_id, action, request.reason).await
}

async fn change(
    call: &Call,
    room_id: String,
    target: String,
    action: MembershipAction,
    reason: Option<String>,
) -> Result<(), ApiError> {
    let session = call.session()?;
    let change = ChangeMembership {
        room_id,
        sender: session.user_id.to_string(),
        target,
        action,
        reason,
        is_guest: session.is_guest,
    };
    Ok(call.ctx.engine.write(change).await?)
}
