//! `joining.yaml`: joining rooms.

use serde_json::json;
use warren_engine::command::MembershipAction;

use super::membership::{Own, change_own, room_id, room_id_or_alias};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/join"    ["r0"] Guest Join Json join_room_by_id;
    POST "/_matrix/client/v3/join/{roomIdOrAlias}"   ["r0"] Guest Join Json join_room;
}

async fn join_room_by_id(call: Call) -> Outcome {
    let room_id = room_id(&call)?;
    join(call, room_id).await
}

async fn join_room(call: Call) -> Outcome {
    let room_id = room_id_or_alias(&call)?;
    join(call, room_id).await
}

async fn join(call: Call, room_id: String) -> Outcome {
    call.refuse_suspended()?;
    let request: Own = call.json_or_empty()?;
    if request.third_party_signed.is_some() {
        return Err(ApiError::threepid_denied(
            "This server uses no identity server to invite by e-mail or phone",
        ));
    }
    change_own(&call, room_id.clone(), MembershipAction::Join, request.reason).await?;
    Answer::json(&json!({ "room_id": room_id }))
}
