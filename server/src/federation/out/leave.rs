//! A local user declines an invite, or takes a knock back, in a room that this server is not in, or is in without knowing of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use warren_engine::Error;
use warren_engine::approach::{Approach, Change};
use warren_engine::command::LeaveOutOfBand;
use warren_engine::view::federation::{Handshake, OpenMembership, SignedEvent};

use super::membership::{hand_in_leave, next_event, no_help, take_in_own, takes_part};
use crate::context::Context;
use crate::http::ApiError;

/// How long the user waits for other servers. After that the invite is gone for the user all the same.
const TIME_MAX: Duration = Duration::from_secs(20);

/// How long the user waits beyond that until the leave can be judged here, which they are rid of the room without: almost always that
/// takes no other server, and a client waits for half a minute in all.
const JUDGED_TIME_MAX: Duration = Duration::from_secs(5);

/// Leaves by way of one of the servers that may help; where none does, the user is rid of the room all the same.
pub async fn leave(ctx: &Arc<Context>, change: &Change, open: &OpenMembership) -> Result<(), ApiError> {
    let left = timeout(TIME_MAX, leave_elsewhere(ctx, change, &open.servers)).await.unwrap_or_default();
    let is_in_room = match left.as_ref().filter(|_| takes_part(ctx, &change.room_id)) {
        // First: the room's own state may tell of the invite at any time, which would be open again. That it fails is logged.
        Some((server, event)) => {
            take_in_own(ctx, change, server, event, event.json.clone(), JUDGED_TIME_MAX).await.is_ok()
        }
        None => false,
    };
    let leave = LeaveOutOfBand {
        room_id: change.room_id.clone(),
        user_id: change.user_id.clone(),
        event: left.map(|(_, event)| event.json),
        reason: change.reason.clone(),
    };
    match ctx.engine.write(leave).await {
        // The room's own state tells that the user has left.
        Err(Error::NotFound(_)) if is_in_room => Ok(()),
        noted => Ok(noted?),
    }
}

/// The server that has let the leave in, and the leave.
async fn leave_elsewhere(
    ctx: &Arc<Context>,
    change: &Change,
    servers: &[String],
) -> Option<(String, SignedEvent)> {
    let mut approach = Approach::new(change.clone(), Handshake::Leave, servers);
    while let Some((server, event)) = next_event(ctx, &mut approach).await {
        match hand_in_leave(ctx, &server, &approach, &event).await {
            Ok(_) => return Some((server, event)),
            Err(why) => no_help(&mut approach, &server, why.into()),
        }
    }
    None
}
