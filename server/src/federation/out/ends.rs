//! Rooms that are forked into many ends are brought together: now and then those that have more than an event follows, and at
//! once those that somebody forks without end, so that what each event costs there stays bounded.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use warren_engine::command::MergeEnds;

use super::policy;
use crate::context::Context;
use crate::worker;

/// The rooms that are being brought together because they have many ends.
#[derive(Default)]
pub struct Merges(Mutex<HashSet<String>>);

/// Begins to bring the ends of a room together, unless that is under way.
pub fn begin_to_merge(ctx: &Arc<Context>, room_id: &str) {
    if !ctx.federation.merges.0.lock().insert(room_id.to_owned()) {
        return;
    }
    let (work, room_id) = (ctx.clone(), room_id.to_owned());
    worker::run(ctx, async move {
        merge(&work, &room_id).await;
        work.federation.merges.0.lock().remove(&room_id);
    });
}

/// Brings the ends of a room together, as far as somebody here may.
pub async fn merge(ctx: &Context, room_id: &str) {
    if let Err(error) = policy::write(ctx, MergeEnds { room_id: room_id.to_owned() }).await {
        tracing::debug!(room_id, error = %error.error, "the ends of a room are not brought together");
    }
}
