//! Making rooms, eight at once.

use crate::context::{Context, Figure};
use crate::error::Result;
use crate::load::Worker;
use crate::matrix::{EncodedRoom, Session, text_message};

/// Rooms made at once.
const CREATORS: usize = 8;
/// So many rooms end the load before its time does.
const ROOMS_MAX: u64 = 20_000;

/// Makes private rooms.
pub struct Creator {
    session: Session,
    messages: u32,
}

impl Creator {
    /// Makes rooms and sends so many messages into each.
    pub fn new(session: Session, messages: u32) -> Creator {
        Creator { session, messages }
    }
}

impl Worker for Creator {
    async fn step(&mut self) -> Result<()> {
        let room = EncodedRoom::new(&self.session.create_room(false).await?);
        for number in 0..self.messages {
            self.session.send(&room, text_message(&number.to_string())).await?;
        }
        Ok(())
    }
}

/// Takes `create-room`.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let sessions = ctx.homeserver.sessions("creator", CREATORS).await?;
    let creators = sessions.into_iter().map(|session| Creator::new(session, 0)).collect();
    let timed = ctx.timed(creators, ROOMS_MAX).await?;
    ctx.take(Figure::rate("create-room", &timed.outcome).costing(timed.cost));
    Ok(())
}
