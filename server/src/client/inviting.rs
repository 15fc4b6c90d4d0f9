//! `inviting.yaml` and `third_party_membership.yaml`: inviting users. There is no identity server by which an e-mail
//! address or phone number could be invited.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use warren_engine::command::MembershipAction;
use warren_engine::view::federation::MakeInvite;

use super::membership::{change_of_other, is_local, room_id, until_membership_known};
use crate::federation::out::invite::send_invite;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::worker;

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/invite" ["r0"] Required Join Json invite_user;
}

#[derive(Deserialize)]
struct Request {
    medium: Option<Value>,
    address: Option<Value>,
    user_id: Option<Value>,
    reason: Option<String>,
}

async fn invite_user(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let request: Request = call.json()?;
    if request.user_id.is_none() && (request.medium.is_some() || request.address.is_some()) {
        return Err(ApiError::threepid_denied(
            "This server uses no identity server to invite by e-mail or phone",
        ));
    }
    if let Some(target) = request.user_id.as_ref().and_then(Value::as_str)
        && !is_local(&call.ctx, target)
    {
        let reason = request.reason.map(|reason| ("reason".to_owned(), Value::from(reason)));
        invite_elsewhere(&call, target, reason.into_iter().collect()).await?;
        return Ok(Answer::empty());
    }
    change_of_other(&call, MembershipAction::Invite).await?;
    Ok(Answer::empty())
}

/// Invites a user of another server to the room in the path. `content` is what the invite is to say. Answers with the event's
/// id.
///
/// Errors: as [`send_invite`]; 503 while it is not known whether the user is in the room already.
pub async fn invite_elsewhere(
    call: &Call,
    target: &str,
    content: Map<String, Value>,
) -> Result<Arc<str>, ApiError> {
    let room_id = room_id(call)?;
    until_membership_known(call, &room_id, target).await?;
    let invite = MakeInvite {
        room_id,
        sender: call.user()?.to_string(),
        target: target.to_owned(),
        content,
        third_party_signed: None,
    };
    let ctx = call.ctx.clone();
    // The other server shows the invite to its user before it is in the room: that must not be left half done.
    worker::finish(&call.ctx, async move { send_invite(&ctx, invite).await }).await
}
