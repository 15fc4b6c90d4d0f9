//! `transactions.yaml`: what other servers send of their own accord.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use warren_engine::reception::{Body, EDUS_MAX, PDUS_MAX, Reception, RoomReception};
use warren_engine::view::federation::IncomingRoom;

use super::out::early_receipts::settle;
use super::out::fetch::{follow_up_on, take_in_here};
use super::refusals;
use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome as Answered, endpoints};
use crate::worker;

endpoints! {
    PUT "/_matrix/federation/v1/send/{txnId}" [] Server Federation Transaction send_transaction;
}

/// The last transactions of a server whose answers are kept. A server has one under way at a time and goes on when that is
/// answered, so that older ones do not come again; what is kept of it does not grow with what it sends.
const ANSWERS_KEPT: usize = 10;
/// Servers of which it is remembered which transactions were their last, some 500 bytes each. The answers to what is
/// forgotten here are kept for a day.
const ANSWERED_SERVERS_MAX: usize = 20_000;
/// How long events wait for a join of their room: less than after which this server counts as slow.
const JOIN_AWAITED_MAX: Duration = Duration::from_secs(8);
/// Bytes of events that wait for longer joins, of all rooms together: some 250 of the largest size. What finds no place comes
/// with later events.
const EARLY_BYTES_MAX: usize = 16 << 20;
/// What one transaction's events of a room count for at least while they wait, however small they are: each has a task, its
/// part of the transaction and a place in the queue for the room, which some thousand are to have at most.
const EARLY_EVENTS_BYTES_MIN: usize = 16 << 10;
/// Pauses after which events that waited for a join are tried again, where a fault of ours keeps them out: their server was told that
/// they have come, and sends them no more. They stay in memory for no longer than a full disk takes to be noticed.
const EARLY_PAUSES: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600)];
/// Bytes of the id of a transaction whose answer is kept.
const TRANSACTION_ID_BYTES_MAX: usize = 255;

/// The ids of the last transactions of each server, oldest first.
#[derive(Default)]
pub struct LastAnswers(Mutex<HashMap<String, VecDeque<String>>>);

impl LastAnswers {
    /// Notes one more. Returns the one whose answer need not be kept any more.
    fn note(&self, origin: &str, transaction_id: &str) -> Option<String> {
        if transaction_id.len() > TRANSACTION_ID_BYTES_MAX {
            return None;
        }
        let mut servers = self.0.lock();
        if servers.len() >= ANSWERED_SERVERS_MAX && !servers.contains_key(origin) {
            servers.clear();
        }
        let ids = servers.entry(origin.to_owned()).or_default();
        ids.push_back(transaction_id.to_owned());
        let over = if ids.len() > ANSWERS_KEPT { ids.pop_front() } else { None };
        over.filter(|over| !ids.contains(over))
    }
}

/// Memory for events of rooms that are being joined for a long time.
pub struct EarlyEvents(Arc<Semaphore>);

impl Default for EarlyEvents {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(EARLY_BYTES_MAX)))
    }
}

impl EarlyEvents {
    /// A place for so many bytes, until it is dropped; `None` if there is none.
    fn place(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.max(EARLY_EVENTS_BYTES_MIN);
        self.0.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

async fn send_transaction(call: Call) -> Answered {
    let (origin, transaction_id) = (call.origin()?.to_string(), call.path("txnId")?.into_owned());
    let body: Body<'_> = call.json()?;
    let Some(mut reception) = Reception::new(origin, transaction_id, &body) else {
        let limits = format!("A transaction may have {PDUS_MAX} PDUs and {EDUS_MAX} EDUs");
        return Err(ApiError::too_large(limits).with_status(http::StatusCode::BAD_REQUEST));
    };
    let engine = &call.ctx.engine;
    if let Some(answer) = reception.answered(engine)? {
        return Ok(Answer::json_bytes(answer));
    }
    let rooms = reception.rooms().into_iter().map(|room| take_in_room(call.ctx.clone(), room));
    // If a room's events are not taken in by a fault of ours, the transaction is not noted as answered: it comes again.
    for room in worker::all_side_by_side(&call.ctx, rooms.collect::<Vec<_>>()).await? {
        reception.took_in(room?);
    }
    take_in_edus(&call.ctx, &mut reception).await?;
    let dropped = reception.dropped();
    dropped.pdus.iter().for_each(|(reason, count)| refusals::dropped_events(reason, *count));
    dropped.edus.iter().for_each(|(reason, count)| refusals::edus(reason, *count));
    let (origin, transaction_id) = reception.id();
    let over = call.ctx.federation.answered.note(origin, transaction_id);
    let note = reception.answer(over);
    let answer = note.answer.clone();
    engine.write(note).await?;
    Ok(Answer::json_bytes(answer.into()))
}

/// Takes in what is told outside of rooms, in as many writes as it takes. If one fails, the transaction comes again, and what was
/// written by then is known.
async fn take_in_edus(ctx: &Context, reception: &mut Reception) -> Result<(), ApiError> {
    if !ctx.config.presence {
        reception.leave_out("m.presence", "presence_off");
    }
    let (mut next, mut rooms_to_settle) = (reception.edus(), BTreeSet::new());
    while let Some(edus) = next {
        let mut taken = ctx.engine.write(edus.clone()).await?;
        next = edus.rest(&taken);
        // By a task of their own: nobody waits for it.
        ctx.federation.missing_lists.tell(std::mem::take(&mut taken.stale));
        rooms_to_settle.append(&mut taken.rooms_to_settle);
        reception.took_in_edus(taken);
    }
    // All that waits in a room is looked through: once, however many writes it took.
    for room_id in &rooms_to_settle {
        settle(ctx, room_id).await?;
    }
    Ok(())
}

/// Takes in the events of one room, if it is being joined once it is.
async fn take_in_room(ctx: Arc<Context>, mut room: RoomReception) -> Result<RoomReception, ApiError> {
    let (room_id, server) = (room.place().0, ctx.engine.server_name());
    // Who lets this server in tells it at once what its join does not follow.
    if ctx.engine.read(&IncomingRoom { room_id, server }).is_err()
        && !ctx.federation.joins.over(room_id, JOIN_AWAITED_MAX).await
        && let Some(place) = ctx.federation.early_events.place(room.bytes())
    {
        let early = room.later();
        worker::run(&ctx.clone(), "taking in what was told before a join", take_in_early(ctx, early, place));
        return Ok(room);
    }
    take_in_now(&ctx, room).await
}

/// Takes in the events of one room when it is joined.
async fn take_in_early(ctx: Arc<Context>, room: RoomReception, _place: OwnedSemaphorePermit) {
    drop(ctx.federation.joins.alone(room.place().0).await);
    let (room_id, origin) = (room.place().0.to_owned(), room.place().1.to_owned());
    match insistently(&EARLY_PAUSES, || take_in_now(&ctx, room.clone())).await {
        Ok(room) => {
            room.dropped().iter().for_each(|(reason, count)| refusals::dropped_events(reason, *count))
        }
        Err(error) => {
            tracing::warn!(room_id, origin, error = %error.error, "what was told before a join is not taken in");
        }
    }
}

/// Tries once more after each pause, until it succeeds.
///
/// Errors: the last.
async fn insistently<T, E, F>(pauses: &[Duration], mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    for pause in pauses {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        sleep(*pause).await;
    }
    attempt().await
}

/// Takes in the events of one room. What lacks something is fetched for behind.
async fn take_in_now(ctx: &Arc<Context>, mut room: RoomReception) -> Result<RoomReception, ApiError> {
    if let Some(mut intake) = room.begin(&ctx.engine)? {
        take_in_here(ctx, &mut intake).await?;
        if let Some(park) = room.judged(&intake) {
            room.parked(ctx.engine.write(park).await?);
            let (room_id, origin) = room.place();
            follow_up_on(ctx, room_id, origin);
        }
    }
    for notice in room.turned_away() {
        ctx.engine.write(notice).await?;
    }
    if let Some(reminder) = room.reminder() {
        ctx.engine.write(reminder).await?;
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_server_the_answers_to_its_last_transactions_are_kept() {
        let last = LastAnswers::default();
        let note = |origin: &str, number: usize| last.note(origin, &number.to_string());
        assert!((0..ANSWERS_KEPT).all(|number| note("a.example", number).is_none()));
        assert_eq!(note("a.example", ANSWERS_KEPT), Some("0".to_owned()));
        assert_eq!(note("b.example", 0), None);
        // What comes again is among the last.
        assert_eq!(note("a.example", 2), Some("1".to_owned()));
        assert_eq!(note("a.example", ANSWERS_KEPT + 1), None);
        assert_eq!(last.note("b.example", &"x".repeat(TRANSACTION_ID_BYTES_MAX + 1)), None);
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_after_each_pause() {
        for (failures, expected) in [(0, Ok(1)), (2, Ok(3)), (9, Err(3))] {
            let mut tries = 0;
            let done = insistently(&[Duration::ZERO; 2], || {
                tries += 1;
                std::future::ready(if tries > failures { Ok(tries) } else { Err(tries) })
            });
            assert_eq!(done.await, expected);
        }
    }

    #[test]
    fn many_small_events_wait_in_few_tasks() {
        let early = EarlyEvents::default();
        let places: Vec<_> = std::iter::from_fn(|| early.place(20)).take(10_000).collect();
        assert_eq!(places.len(), EARLY_BYTES_MAX / EARLY_EVENTS_BYTES_MIN);
        drop(places);
        assert!(early.place(EARLY_BYTES_MAX).is_some());
        assert!(early.place(EARLY_BYTES_MAX + 1).is_none());
    }
}
