//! A first sync of a user in many rooms, as a new device makes it.
//!
//! Each request carries another filter without effect, so that no server can answer from a remembered response.

use bytes::Bytes;
use http::Method;

use super::rooms::Creator;
use crate::context::{Context, Figure};
use crate::error::{Error, Result};
use crate::load::{Bounds, Worker, closed};
use crate::matrix::{Session, encoded};

/// Connections by which the user's rooms are made.
const CREATORS: usize = 8;
/// With what its making leaves in a room, these fill the ten events that a sync shows of it: 3.3 kB per room.
const MESSAGES: u32 = 2;
/// First syncs are fully measured by then.
const SYNCS_MAX: u64 = 300;
/// Making the rooms of the slowest peer takes under a minute.
const SETUP_TIME_FACTOR: u32 = 60;

struct NewDevice {
    session: Session,
    asked: u64,
    bytes: usize,
}

impl Worker for NewDevice {
    async fn step(&mut self) -> Result<()> {
        self.asked += 1;
        let filter = format!(r#"{{"account_data":{{"not_types":["org.example.{}"]}}}}"#, self.asked);
        let path =
            format!("/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={}", encoded(&filter));
        self.bytes = self.session.request(Method::GET, &path, Bytes::new()).await?.len();
        Ok(())
    }
}

/// Takes the first syncs of 100 and of 500 rooms.
pub async fn run(ctx: &mut Context) -> Result<()> {
    for (measure, rooms) in [("initial-sync-100", 100), ("initial-sync-500", 500)] {
        let session = user_with_rooms(ctx, rooms, MESSAGES).await?;
        let timed = ctx.timed(vec![NewDevice { session, asked: 0, bytes: 0 }], SYNCS_MAX).await?;
        let bytes = timed.workers.first().map_or(0, |device| device.bytes);
        let figure = Figure::median(measure, &timed.outcome).costing(timed.cost);
        ctx.take(figure.noting(format!("{:.2} MB", bytes as f64 / 1e6)));
    }
    Ok(())
}

/// A new user who has made so many private rooms, with so many messages in each.
pub async fn user_with_rooms(ctx: &Context, rooms: u64, messages: u32) -> Result<Session> {
    let account = ctx.homeserver.register("collector", 1).await?.pop().ok_or(Error::Needs("an account"))?;
    let creators =
        (0..CREATORS).map(|_| Creator::new(ctx.homeserver.session(account.clone()), messages)).collect();
    let bounds = Bounds { count: rooms, time: ctx.time * SETUP_TIME_FACTOR };
    let (_, outcome) = closed(creators, bounds).await?;
    match outcome.done == rooms {
        true => Ok(ctx.homeserver.session(account)),
        false => Err(Error::Implausible(format!("only {} of {rooms} rooms were made in time", outcome.done))),
    }
}
