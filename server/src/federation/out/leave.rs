//! A local user declines an invite, or takes a knock back, in a room that this server is not in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use warren_engine::approach::{Approach, Change};
use warren_engine::command::LeaveOutOfBand;
use warren_engine::view::federation::{Handshake, OpenMembership};

use super::membership::{hand_in, next_event, no_help};
use crate::context::Context;
use crate::http::ApiError;

/// How long the user waits for other servers. After that the invite is gone for the user all the same.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Leaves by way of one of the servers that may help; where none does, the user is rid of the room all the same.
pub async fn leave(ctx: &Arc<Context>, change: &Change, open: &OpenMembership) -> Result<(), ApiError> {
    let left = timeout(TIME_MAX, leave_elsewhere(ctx, change, &open.servers)).await.unwrap_or_default();
    let leave = LeaveOutOfBand {
        room_id: change.room_id.clone(),
        user_id: change.user_id.clone(),
        event: left,
        reason: change.reason.clone(),
    };
    Ok(ctx.engine.write(leave).await?)
}

async fn leave_elsewhere(ctx: &Arc<Context>, change: &Change, servers: &[String]) -> Option<Bytes> {
    let mut approach = Approach::new(change.clone(), Handshake::Leave, servers);
    while let Some((server, event)) = next_event(ctx, &mut approach).await {
        match hand_in(ctx, &server, "send_leave", "", change, &event).await {
            Ok(_) => return Some(event.json),
            Err(why) => no_help(&mut approach, &server, why.into()),
        }
    }
    None
}
