//! Guests leave a room that was closed to them, by another server or here: in the background where the room's policy server has
//! to sign that they do, elsewhere with what closes the room.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::sleep;
use warren_engine::command::{RemoveGuests, SendEvent, ShutOutGuests};

use super::policy;
use crate::context::Context;
use crate::federation::limits::{GUEST_REMOVAL_ATTEMPTS_MAX, GUEST_REMOVAL_PAUSE};
use crate::http::ApiError;
use crate::worker;

/// Sends an event of a user's, and lets the guests leave whom it shuts out. Answers its id.
///
/// Errors: as [`policy::write`].
pub async fn send(ctx: &Arc<Context>, event: SendEvent) -> Result<String, ApiError> {
    if !event.may_shut_out_guests() {
        return policy::write(ctx, event).await;
    }
    let room_id = event.room_id.clone();
    let sent = policy::write(ctx, ShutOutGuests { event }).await?;
    if sent.has_guests_to_remove {
        begin_to_remove(ctx, &room_id);
    }
    Ok(sent.event_id)
}

/// Begins to let the guests of this server leave a room, if it admits none. Those that the policy server keeps here, or whom the
/// end of this server does, stay until the room is closed again: nobody but it can let them go.
pub fn begin_to_remove(ctx: &Arc<Context>, room_id: &str) {
    let (work, room_id) = (ctx.clone(), room_id.to_owned());
    worker::run(ctx, "removal of guests", async move {
        for _ in 0..GUEST_REMOVAL_ATTEMPTS_MAX {
            let Err(error) = remove_all(&work, &room_id).await else { return };
            tracing::warn!(room_id, error = %error.error, "guests stay in a room that is closed to them");
            if !error.status.is_server_error() && error.status != StatusCode::TOO_MANY_REQUESTS {
                return;
            }
            sleep(GUEST_REMOVAL_PAUSE).await;
        }
    });
}

async fn remove_all(ctx: &Arc<Context>, room_id: &str) -> Result<(), ApiError> {
    while policy::write(ctx, RemoveGuests { room_id: room_id.to_owned() }).await? > 0 {}
    Ok(())
}
