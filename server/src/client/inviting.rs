//! `inviting.yaml` and `third_party_membership.yaml`: inviting users. There is no identity server by which an e-mail
//! address or phone number could be invited.

use serde::Deserialize;
use serde_json::Value;
use warren_engine::command::MembershipAction;

use super::membership::change_of_other;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/invite" ["r0"] Required Join Json invite_user;
}

#[derive(Deserialize)]
struct ByThirdParty {
    medium: Option<Value>,
    address: Option<Value>,
    user_id: Option<Value>,
}

async fn invite_user(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let request: ByThirdParty = call.json()?;
    if request.user_id.is_none() && (request.medium.is_some() || request.address.is_some()) {
        return Err(ApiError::threepid_denied(
            "This server uses no identity server to invite by e-mail or phone",
        ));
    }
    change_of_other(&call, MembershipAction::Invite).await?;
    Ok(Answer::empty())
}
