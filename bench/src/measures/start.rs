//! Starting on a database of a million events, after a clean stop: from the process's start to its first answer.

use super::footprint::send;
use super::sends::senders_with_rooms;
use crate::context::{Context, Figure};
use crate::error::Result;

/// Events in the database.
const EVENTS: u64 = 1_000_000;

/// Takes `start-million`.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let senders = senders_with_rooms(ctx).await?;
    drop(send(senders, EVENTS).await?);
    let started_in = ctx.restart()?;
    ctx.take(Figure::new("start-million", started_in.as_secs_f64()));
    Ok(())
}
