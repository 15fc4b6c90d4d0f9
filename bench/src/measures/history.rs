//! One reader pages back through a room's whole history, again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sends::Sender;
use crate::context::{Context, Figure};
use crate::error::{Error, Result};
use crate::load::{Bounds, Worker, closed};
use crate::matrix::{EncodedRoom, Session};

/// Connections by which the history is written.
const WRITERS: usize = 16;
/// Events of the room's history.
const EVENTS: u64 = 10_000;
/// The same for slow peers.
const EVENTS_REDUCED: u64 = 2_000;
/// Pages are fully measured by then.
const PAGES_MAX: u64 = 20_000;
/// Writing the history with the slowest peer takes a few minutes at most.
const SETUP_TIME_FACTOR: u32 = 60;

/// Reads one page per step, and begins anew at the room's start.
struct Reader {
    session: Session,
    room: EncodedRoom,
    limit: u64,
    from: Option<String>,
    events: Arc<AtomicU64>,
}

impl Worker for Reader {
    async fn step(&mut self) -> Result<()> {
        let page = self.session.messages(&self.room, self.from.as_deref(), self.limit).await?;
        self.events.fetch_add(page.events, Ordering::Relaxed);
        self.from = page.end.filter(|_| page.events > 0);
        Ok(())
    }
}

/// Takes pages of 100 and of 1,000 events.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let account = ctx.homeserver.register("historian", 1).await?.pop().ok_or(Error::Needs("an account"))?;
    let room = ctx.homeserver.session(account.clone()).create_room(false).await?;
    let writers = (0..WRITERS).map(|_| Sender::new(ctx.homeserver.session(account.clone()), &room)).collect();
    let bounds = Bounds { count: ctx.number(EVENTS, EVENTS_REDUCED), time: ctx.time * SETUP_TIME_FACTOR };
    let (_, written) = closed(writers, bounds).await?;
    ctx.quiet(0).await?;
    for (measure, limit) in [("messages-100", 100), ("messages-1000", 1_000)] {
        let events = Arc::new(AtomicU64::new(0));
        let reader = Reader {
            session: ctx.homeserver.session(account.clone()),
            room: EncodedRoom::new(&room),
            limit,
            from: None,
            events: Arc::clone(&events),
        };
        // Opens the connection, and reads the first page into whatever the server caches.
        let (workers, _) = closed(vec![reader], Bounds { count: 1, time: ctx.time }).await?;
        events.store(0, Ordering::Relaxed);
        let meter = ctx.meter()?;
        let (_, outcome) = closed(workers, ctx.bounds(PAGES_MAX)).await?;
        let cost = meter.stop(ctx)?;
        let read = events.load(Ordering::Relaxed) as f64;
        let note = format!("a room of {} events, {:.0} on a page", written.done, read / outcome.done as f64);
        let rate = read / outcome.elapsed.as_secs_f64();
        let figure = Figure { value: rate, ..Figure::rate(measure, &outcome) };
        ctx.take(figure.costing(cost).noting(note));
    }
    Ok(())
}
