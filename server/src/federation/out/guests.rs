//! Guests leave a room that was closed to them, by another server or here: in the background where the room's policy server has
//! to sign that they do, elsewhere with what closes the room.

use std::sync::Arc;

use warren_engine::command::{KeepGuests, RemoveGuests, SendEvent, ShutOutGuests};

use super::policy;
use crate::context::Context;
use crate::errands::{self, Errand};
use crate::http::ApiError;

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

/// Begins to let the guests of this server leave a room, if it admits none.
pub fn begin_to_remove(ctx: &Arc<Context>, room_id: &str) {
    errands::start(ctx, Errand::Guests(room_id.to_owned()), true);
}

/// Lets the guests of this server leave a room, if it admits none. Answers whether that is done. Those whom the room's policy server
/// keeps here, or has not let go by the last attempt, stay until the room is closed again: nobody but it can let them go.
pub async fn remove_all(ctx: &Context, room_id: &str, is_last: bool) -> bool {
    let Err(error) = remove(ctx, room_id).await else { return true };
    tracing::warn!(room_id, error = %error.error, "guests stay in a room that is closed to them");
    if errands::may_pass(&error) && !is_last {
        return false;
    }
    let kept = ctx.engine.write(KeepGuests { room_id: room_id.to_owned() }).await;
    kept.inspect_err(|error| tracing::warn!(room_id, %error, "it cannot be noted that guests stay")).is_ok()
}

async fn remove(ctx: &Context, room_id: &str) -> Result<(), ApiError> {
    while policy::write(ctx, RemoveGuests { room_id: room_id.to_owned() }).await? > 0 {}
    Ok(())
}
