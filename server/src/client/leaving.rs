//! `leaving.yaml`: leaving rooms, and forgetting them.

use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;
use warren_engine::approach::Change;
use warren_engine::command::ForgetRoom;

use super::account_deactivation::{Departure, departure};
use super::membership::{Own, room_id, turn};
use crate::federation::out::{leave, policy};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::worker;

/// How long a user waits until they are out of a room, which comes after what they asked for before: a client waits for half a minute in
/// all. Declining an invite by way of other servers takes no longer by itself.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(28);

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/leave"  ["r0"] Guest    Write Json leave_room;
    POST "/_matrix/client/v3/rooms/{roomId}/forget" ["r0"] Required Write Json forget_room;
}

async fn leave_room(call: Call) -> Outcome {
    let request: Own = call.json_or_empty()?;
    let change =
        Change { room_id: room_id(&call)?, user_id: call.user()?.to_string(), reason: request.reason };
    let ctx = call.ctx.clone();
    // Another server takes note of it before this one does: that must not be left half done.
    let leave = worker::finish(&call.ctx, async move {
        let _turn = turn(&ctx, &change).await;
        match departure(&ctx.engine, change)? {
            Departure::Here(leave) => policy::write(&ctx, leave).await,
            Departure::Elsewhere(change, open) => leave::leave(&ctx, &change, &open).await,
        }
    });
    match timeout(LEAVE_TIME_MAX, leave).await {
        Ok(left) => left.map(|()| Answer::empty()),
        Err(_) => {
            let why = "You are still coming into this room; you leave it as soon as that is over";
            Err(ApiError::unknown(why).with_status(StatusCode::SERVICE_UNAVAILABLE))
        }
    }
}

async fn forget_room(call: Call) -> Outcome {
    let forget = ForgetRoom { room_id: room_id(&call)?, user_id: call.user()?.to_string() };
    call.ctx.engine.write(forget).await?;
    Ok(Answer::empty())
}
