//! Receipts that waited for what is in a room by now take effect: whoever has brought that in sees to it, and for those whom the end
//! of this server kept from it, its next start.

use std::sync::Arc;

use warren_engine::command::SettleReceipts;
use warren_engine::view::federation::{DueReceipts, RoomsWithEarlyReceipts};

use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

/// Lets the receipts of a room take effect that wait in vain.
pub async fn settle(ctx: &Context, room_id: &str) -> Result<(), ApiError> {
    let users = ctx.engine.read(&DueReceipts { room_id })?;
    if !users.is_empty() {
        ctx.engine.write(SettleReceipts { room_id: room_id.to_owned(), users }).await?;
    }
    Ok(())
}

/// Does so in all rooms, one after the other.
pub fn settle_all(ctx: &Arc<Context>) {
    let rooms = match tokio::task::block_in_place(|| ctx.engine.read(&RoomsWithEarlyReceipts)) {
        Ok(rooms) => rooms,
        Err(error) => return tracing::warn!(%error, "it cannot be told where receipts wait"),
    };
    let work = ctx.clone();
    worker::run(ctx, "receipts that waited", async move {
        for room_id in rooms {
            if let Err(error) = settle(&work, &room_id).await {
                tracing::warn!(room_id, error = %error.error, "receipts of a room do not take effect");
            }
        }
    });
}
