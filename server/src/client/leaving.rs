//! `leaving.yaml`: leaving rooms, and forgetting them.

use warren_engine::Error;
use warren_engine::approach::Change;
use warren_engine::command::{ForgetRoom, MembershipAction};
use warren_engine::view::federation::OutOfBandMembership;

use super::membership::{Own, change_own, room_id};
use crate::federation::out::leave;
use crate::http::{Answer, Call, Outcome, endpoints};
use crate::worker;

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/leave"  ["r0"] Guest    Write Json leave_room;
    POST "/_matrix/client/v3/rooms/{roomId}/forget" ["r0"] Required Write Json forget_room;
}

async fn leave_room(call: Call) -> Outcome {
    let request: Own = call.json_or_empty()?;
    let (room_id, user_id) = (room_id(&call)?, call.user()?.to_string());
    // An invite or a knock that only another server knows of is answered there.
    match call.ctx.engine.read(&OutOfBandMembership { room_id: room_id.clone(), user_id: user_id.clone() }) {
        Ok(open) => {
            let (ctx, change) = (call.ctx.clone(), Change { room_id, user_id, reason: request.reason });
            worker::finish(async move { leave::leave(&ctx, &change, &open).await }).await?;
        }
        Err(Error::NotFound(_)) => {
            change_own(&call, room_id, MembershipAction::Leave, request.reason).await?
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Answer::empty())
}

async fn forget_room(call: Call) -> Outcome {
    let forget = ForgetRoom { room_id: room_id(&call)?, user_id: call.user()?.to_string() };
    call.ctx.engine.write(forget).await?;
    Ok(Answer::empty())
}
