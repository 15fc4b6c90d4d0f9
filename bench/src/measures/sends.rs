//! Sending text messages: many senders with a room each, many in one room, and one alone.

use std::time::Duration;

use bytes::Bytes;

use crate::context::{Context, Figure};
use crate::error::Result;
use crate::load::{Worker, open};
use crate::matrix::{EncodedRoom, Session, join_all, text_message};

/// Senders at once.
pub const SENDERS: usize = 64;
/// So many sends end a load before its time does; bounds the disk that a fast server fills.
const SENDS_MAX: u64 = 200_000;
/// One sender alone is fully measured by then.
const LONE_SENDS_MAX: u64 = 5_000;

/// Sends the same message again and again.
pub struct Sender {
    session: Session,
    room: EncodedRoom,
    body: Bytes,
}

impl Sender {
    /// Of a session, into a room it is in.
    pub fn new(session: Session, room: &str) -> Sender {
        Sender { session, room: EncodedRoom::new(room), body: text_message("sent") }
    }
}

impl Worker for Sender {
    async fn step(&mut self) -> Result<()> {
        self.session.send(&self.room, self.body.clone()).await.map(drop)
    }
}

/// 64 new users, each the only member of a room of its own.
pub async fn senders_with_rooms(ctx: &Context) -> Result<Vec<Sender>> {
    let mut senders = Vec::with_capacity(SENDERS);
    for mut session in ctx.homeserver.sessions("sender", SENDERS).await? {
        let room = session.create_room(false).await?;
        senders.push(Sender::new(session, &room));
    }
    Ok(senders)
}

/// 64 senders in 64 rooms: closed loop for the throughput, then open loop below it.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let senders = senders_with_rooms(ctx).await?;
    let timed = ctx.timed(senders, SENDS_MAX).await?;
    let closed_rate = timed.outcome.rate();
    ctx.take(Figure::rate("send-64-rooms", &timed.outcome).costing(timed.cost));
    if let Some(cpu) = timed.cost.server_cpu_s {
        ctx.take(Figure::new("send-cpu", cpu / timed.outcome.done as f64 * 1e3));
    }
    let rate = ctx.rate.unwrap_or(closed_rate / 2.0);
    let (_, outcome) = open(timed.workers, rate, ctx.bounds(SENDS_MAX)).await?;
    let summary = outcome.latencies.summary();
    let figure = Figure { latencies: Some(summary), ..Figure::new("send-paced", summary.p99_ms) };
    ctx.take(figure.noting(format!("at {rate:.0} sends/s, open loop")));
    Ok(())
}

/// 64 senders in one room, of 64 members and of 8.
pub async fn run_shared(ctx: &mut Context) -> Result<()> {
    for (measure, members) in [("send-room-64", 64), ("send-room-8", 8)] {
        let accounts = ctx.homeserver.register("member", members).await?;
        let mut sessions: Vec<Session> = accounts
            .iter()
            .cycle()
            .take(SENDERS)
            .map(|account| ctx.homeserver.session(account.clone()))
            .collect();
        let Some(creator) = sessions.first_mut() else { continue };
        let room = creator.create_room(true).await?;
        join_all(&ctx.homeserver, accounts.get(1..).unwrap_or_default(), &room).await?;
        let senders = sessions.into_iter().map(|session| Sender::new(session, &room)).collect();
        let timed = ctx.timed(senders, SENDS_MAX).await?;
        ctx.take(Figure::rate(measure, &timed.outcome).costing(timed.cost));
    }
    Ok(())
}

/// One sender in a room of two, each send after the answer to the last.
pub async fn run_one(ctx: &mut Context) -> Result<()> {
    let sender = lone_sender(ctx).await?;
    let before = ctx.append_sync(Duration::ZERO)?;
    let timed = ctx.timed(vec![sender], LONE_SENDS_MAX).await?;
    let figure = Figure::median("send-one", &timed.outcome).costing(timed.cost);
    ctx.take(figure.on_disk(before, ctx.append_sync(Duration::ZERO)?));
    Ok(())
}

/// A sender in a room of two members.
pub async fn lone_sender(ctx: &Context) -> Result<Sender> {
    let accounts = ctx.homeserver.register("pair", 2).await?;
    let mut sessions = accounts.into_iter().map(|account| ctx.homeserver.session(account));
    let (Some(mut sender), Some(mut other)) = (sessions.next(), sessions.next()) else {
        return Err(crate::error::Error::Needs("two accounts"));
    };
    let room = sender.create_room(true).await?;
    other.join(&room).await?;
    Ok(Sender::new(sender, &room))
}
