//! `leaving.yaml`: leaving rooms, and forgetting them.

use warren_engine::command::{ForgetRoom, MembershipAction};

use super::membership::{Own, change_own, room_id};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/leave"  ["r0"] Guest    Write Json leave_room;
    POST "/_matrix/client/v3/rooms/{roomId}/forget" ["r0"] Required Write Json forget_room;
}

async fn leave_room(call: Call) -> Outcome {
    let request: Own = call.json_or_empty()?;
    change_own(&call, room_id(&call)?, MembershipAction::Leave, request.reason).await?;
    Ok(Answer::empty())
}

async fn forget_room(call: Call) -> Outcome {
    let forget = ForgetRoom { room_id: room_id(&call)?, user_id: call.user()?.to_string() };
    call.ctx.engine.write(forget).await?;
    Ok(Answer::empty())
}
