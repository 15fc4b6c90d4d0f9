//! A local user declines an invite, or takes a knock back, in a room that this server is not in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use warren_engine::command::LeaveOutOfBand;
use warren_engine::view::federation::{Handshake, OpenMembership};

use super::membership::{Change, NoHelp, SERVERS_TRIED_MAX, hand_in, sign};
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
    for server in servers.iter().take(SERVERS_TRIED_MAX) {
        match leave_by(ctx, change, server).await {
            Ok(event) => return Some(event),
            Err(NoHelp::Refused(error) | NoHelp::TryAnother(error)) => {
                tracing::info!(room_id = change.room_id, server, error = %error.error, "a server does not help to leave");
            }
        }
    }
    None
}

async fn leave_by(ctx: &Arc<Context>, change: &Change, server: &str) -> Result<Bytes, NoHelp> {
    let event = sign(ctx, server, change, Handshake::Leave).await?;
    hand_in(ctx, server, "send_leave", "", change, &event).await?;
    Ok(event.json)
}
