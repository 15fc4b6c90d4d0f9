//! `knocking.yaml`: asking to be let into a room.

use serde_json::json;
use warren_engine::command::MembershipAction;

use super::membership::{Own, change_own, room_id_or_alias};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/knock/{roomIdOrAlias}" ["r0", "unstable/xyz.amorgan.knock"] Required Join Json knock_room;
}

async fn knock_room(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let room_id = room_id_or_alias(&call)?;
    let request: Own = call.json_or_empty()?;
    change_own(&call, room_id.clone(), MembershipAction::Knock, request.reason).await?;
    Answer::json(&json!({ "room_id": room_id }))
}
