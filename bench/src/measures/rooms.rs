//! Making rooms, eight at once.

use crate::context::{Context, Figure};
use crate::error::Result;
use crate::load::Worker;
use crate::matrix::Session;

/// Rooms made at once.
const CREATORS: usize = 8;
/// So many rooms end the load before its time does.
const ROOMS_MAX: u64 = 20_000;

/// Makes private rooms.
pub struct Creator(pub Session);

impl Worker for Creator {
    async fn step(&mut self) -> Result<()> {
        self.0.create_room(false).await.map(drop)
    }
}

/// Takes `create-room`.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let creators = ctx.homeserver.sessions("creator", CREATORS).await?.into_iter().map(Creator).collect();
    let timed = ctx.timed(creators, ROOMS_MAX).await?;
    ctx.take(Figure::rate("create-room", &timed.outcome).costing(timed.cost));
    Ok(())
}
