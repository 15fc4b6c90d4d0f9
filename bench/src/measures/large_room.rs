//! A public room of a thousand local members: sending into it, joining it, listing it, and a thousand who wait in it.

use bytes::Bytes;
use http::Method;

use super::delivery::{AskAgain, Audience};
use super::sends::{Sender, lone_sender};
use crate::context::{Context, Effort, Figure};
use crate::error::{Error, Result};
use crate::histogram::milliseconds;
use crate::load::{Bounds, Worker, closed};
use crate::matrix::{EncodedRoom, Session, join_all};

/// Members of the room.
const MEMBERS: usize = 1_000;
/// Users who join it while it is measured: few, so that the room keeps its size.
const JOINERS: usize = 50;
/// One sender, or one reader, is fully measured by then.
const REQUESTS_MAX: u64 = 2_000;
/// Rounds with a thousand waiting: processor time is counted in 10 ms, so one round would not do.
const ROUNDS: u64 = 20;

/// Users who have not joined yet; one joins per step.
struct Joiner {
    sessions: Vec<Session>,
    room: String,
}

impl Worker for Joiner {
    async fn step(&mut self) -> Result<()> {
        let mut session = self.sessions.pop().ok_or(Error::Needs("a user who has not joined"))?;
        session.join(&self.room).await
    }
}

/// Asks for the member list.
struct Lister {
    session: Session,
    path: String,
}

impl Worker for Lister {
    async fn step(&mut self) -> Result<()> {
        self.session.request(Method::GET, &self.path, Bytes::new()).await.map(drop)
    }
}

/// Takes the measures of the large room.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let small = ctx.timed(vec![lone_sender(ctx).await?], REQUESTS_MAX).await?;
    let mut accounts = ctx.homeserver.register("crowd", MEMBERS).await?;
    let creator = accounts.pop().ok_or(Error::Needs("an account"))?;
    let mut session = ctx.homeserver.session(creator.clone());
    let room = session.create_room(true).await?;
    join_all(&ctx.homeserver, &accounts, &room).await?;
    ctx.quiet(0).await?;

    let large = ctx.timed(vec![Sender::new(session, &room)], REQUESTS_MAX).await?;
    let figure = Figure::median("send-room-1000", &large.outcome).costing(large.cost);
    let ratio = figure.value / Figure::median("send-room-ratio", &small.outcome).value;
    ctx.take(figure);
    ctx.take(Figure::new("send-room-ratio", ratio));

    let lister = Lister {
        session: ctx.homeserver.session(creator.clone()),
        path: format!("/_matrix/client/v3/rooms/{}/members", EncodedRoom::new(&room).as_str()),
    };
    let listed = ctx.timed(vec![lister], REQUESTS_MAX).await?;
    ctx.take(Figure::median("members-1000", &listed.outcome).costing(listed.cost));

    if ctx.effort == Effort::Full {
        let sender = ctx.homeserver.session(creator);
        let waiting = accounts.len();
        let mut audience = Audience::gather(ctx, sender, &room, accounts, AskAgain::Together).await?;
        let rounds = audience.rounds(ctx, ROUNDS).await?;
        let summary = rounds.latencies.summary();
        let figure = Figure { latencies: Some(summary), ..Figure::new("deliver-1000", summary.p50_ms) };
        ctx.take(figure.noting(format!("{waiting} wait, one sends")));
        if let Some(answering) = rounds.answering {
            let per_round = milliseconds(answering) / rounds.latencies.count() as f64;
            ctx.take(Figure::new("deliver-1000-cpu", per_round));
        }
    }
    join(ctx, &room).await
}

/// Joins one after the other. Each joiner has connected before, so that a join is one request.
async fn join(ctx: &mut Context, room: &str) -> Result<()> {
    let mut sessions = ctx.homeserver.sessions("joiner", JOINERS).await?;
    for session in &mut sessions {
        session.position().await?;
    }
    let joiner = Joiner { sessions, room: room.to_owned() };
    let bounds = Bounds { count: JOINERS as u64, time: ctx.time * 4 };
    let (_, outcome) = closed(vec![joiner], bounds).await?;
    ctx.take(Figure::median("join-1000", &outcome));
    Ok(())
}
