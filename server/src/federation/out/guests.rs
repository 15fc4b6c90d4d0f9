//! Guests leave a room that another server has closed to them: here where the room's policy server signs that they do, elsewhere
//! with what closes the room.

use std::sync::Arc;

use warren_engine::command::RemoveGuests;

use super::policy;
use crate::context::Context;
use crate::worker;

/// Begins to let the guests of this server leave a room. Those that the policy server keeps here stay until the room is closed
/// again: nobody but it can let them go.
pub fn begin_to_remove(ctx: &Arc<Context>, room_id: &str) {
    let (work, room_id) = (ctx.clone(), room_id.to_owned());
    worker::run(ctx, "removal of guests", async move {
        loop {
            match policy::write(&work, RemoveGuests { room_id: room_id.clone() }).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(room_id, error = %error.error, "guests stay in a room that is closed to them");
                    return;
                }
            }
        }
    });
}
