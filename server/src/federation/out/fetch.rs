//! Events that came for a room are taken in, and what they lack is asked for.
//!
//! What can be judged at once is; what cannot is parked durably, so that a transaction is answered without waiting for
//! anybody, and fetched for behind: apart for each room and each server that sent something for it, so that the troubles of
//! one hold up no other. Invariant: an event that was acknowledged is in the room, refused, or parked; or it is history, which is
//! asked for when a client reads it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::timeout;
use warren_engine::Outcome;
use warren_engine::core::checked::{MissingKey, PduCheck};
use warren_engine::core::json::AtMost;
use warren_engine::fetching::{self, Begun, Ended, Round};
use warren_engine::intake::{Answer, Intake, Next, Question};
use warren_engine::view::Frontier;
use warren_engine::view::federation::{ParkedOrigins, ParkedRooms, UnknownEvents};

use super::RemoteError;
use super::ask::{Ask, escaped, path};
use super::asking::{Asking, ask_servers};
use super::check::check_intake;
use super::early_receipts::settle;
use super::ends::begin_to_merge;
use super::fetches::{Errand, Left, Turn};
use super::guests;
use super::keys::{Cause, asked_again, is_here};
use super::policy;
use super::single_events::events;
use super::state_memory::Share;
use super::unchecked;
use crate::context::Context;
use crate::federation::refusals;
use crate::http::ApiError;
use crate::worker;

/// Time for one round in a room: a server that answers slowly must not keep one of the places for long.
const ROUND_TIME_MAX: Duration = Duration::from_secs(3 * 60);

/// Up to so many missing events of a state are asked for one by one; beyond that the whole state comes cheaper.
const STATE_EVENTS_SINGLE_MAX: usize = 50;

/// Events asked for of what lies between, as many as other servers give.
const MISSING_EVENTS_LIMIT: usize = 20;

/// Events that are taken of what lies between, from a server that gives more.
const MISSING_EVENTS_MAX: usize = 100;

/// Takes in what can be judged by what is here.
pub async fn take_in_here(ctx: &Arc<Context>, intake: &mut Intake) -> Result<(), ApiError> {
    drive(ctx, intake, &mut Asking::of(None, &[])).await
}

/// Takes in what can be judged, asking `servers` for what is missing: the first of them has told it. Answers which keys cannot be had.
pub async fn take_in(
    ctx: &Arc<Context>,
    intake: &mut Intake,
    servers: &[String],
) -> Result<Vec<MissingKey>, ApiError> {
    let is_awaited = intake.is_history();
    // History goes without what cannot be had, until it is read again.
    let cause = servers.first().map(|server| match is_awaited {
        true => Cause::Kept(server.clone()),
        false => Cause::told(server),
    });
    let mut asking = Asking::of(cause, servers);
    asking.is_awaited = is_awaited;
    drive(ctx, intake, &mut asking).await?;
    Ok(asking.lacks(ctx))
}

/// The same where an operator has chosen the one server whose word counts, also for what it denies of a state that it tells.
pub async fn take_in_as_told(ctx: &Arc<Context>, intake: &mut Intake, server: &str) -> Result<(), ApiError> {
    let mut asking = Asking::of(Some(Cause::told(server)), &[server.to_owned()]);
    asking.is_patient = false;
    drive(ctx, intake, &mut asking).await
}

async fn drive(ctx: &Arc<Context>, intake: &mut Intake, asking: &mut Asking) -> Result<(), ApiError> {
    loop {
        match intake.next_step() {
            Next::Check(pdus) => {
                let checks = check_intake(ctx, intake, &pdus)?;
                for check in &checks {
                    if let PduCheck::Refused { error, .. } = check {
                        refusals::unchecked_event(error);
                    }
                }
                intake.checked(checks);
            }
            Next::Write(receive) => {
                let received = ctx.engine.write(*receive).await?;
                if !received.awaited.is_empty() {
                    let awaited = received.awaited.iter().map(String::as_str);
                    ctx.federation.unchecked.add(intake.room_id(), awaited, Instant::now());
                }
                received.outcomes.iter().for_each(|(_, outcome)| refusals::event(outcome));
                let is_news = received.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Accepted);
                if received.has_many_ends {
                    begin_to_merge(ctx, intake.room_id());
                }
                if received.has_guests_to_remove {
                    guests::begin_to_remove(ctx, intake.room_id());
                }
                intake.received(received);
                if is_news {
                    settle(ctx, intake.room_id()).await?;
                }
            }
            Next::Ask(Question::PolicySignature(wanted)) if !asking.servers.is_empty() => {
                policy::ask_for(ctx, intake, wanted).await;
            }
            Next::Ask(question) => {
                let answer = if asking.servers.is_empty() {
                    Answer::Nothing
                } else {
                    let room = (intake.room_id(), intake.version());
                    ask_servers(ctx, room, asking, &question).await?
                };
                // It may tell a whole state.
                tokio::task::block_in_place(|| intake.answered(question, answer));
            }
            Next::Done => return Ok(()),
        }
    }
}

/// Begins to fetch for the events that a server has sent for a room, and that are parked there.
pub fn follow_up_on(ctx: &Arc<Context>, room_id: &str, origin: &str) {
    start(ctx, Errand { room_id: room_id.to_owned(), origin: origin.to_owned() }, true);
}

/// Begins to fetch for all events that are parked in a room.
pub fn follow_up(ctx: &Arc<Context>, room_id: &str) {
    start_all(ctx, room_id, true);
}

/// Takes up again what waits, at the start of the server and whenever a pause is over.
pub fn take_up_parked(ctx: &Arc<Context>) {
    match ctx.engine.read(&ParkedRooms) {
        Ok(rooms) => rooms.iter().for_each(|room_id| start_all(ctx, room_id, false)),
        Err(error) => tracing::warn!(%error, "it cannot be told which events wait"),
    }
}

fn start_all(ctx: &Arc<Context>, room_id: &str, is_news: bool) {
    match ctx.engine.read(&ParkedOrigins { room_id }) {
        Ok(origins) => {
            for origin in origins {
                start(ctx, Errand { room_id: room_id.to_owned(), origin }, is_news);
            }
        }
        Err(error) => tracing::warn!(%error, room_id, "it cannot be told whose events wait"),
    }
}

/// Goes on with what rests for want of keys of a server that are here now.
pub fn keys_came(ctx: &Arc<Context>, server_name: &str) {
    let errands = ctx.federation.fetches.lacking(|key| key.server_name == server_name && is_here(ctx, key));
    for errand in errands {
        start(ctx, errand, true);
    }
    unchecked::keys_came(ctx, server_name);
}

/// Goes on with what rests of a server's events, which could not be asked for what they lack.
pub fn take_up_of(ctx: &Arc<Context>, origin: &str) {
    for errand in ctx.federation.fetches.resting_of(origin) {
        start(ctx, errand, true);
    }
}

fn start(ctx: &Arc<Context>, errand: Errand, is_news: bool) {
    let attempts = ctx.federation.fetches.attempts(&errand);
    if !ctx.federation.fetches.begin(&errand, is_news) {
        return;
    }
    let work = ctx.clone();
    worker::run(ctx, "fetching of missing events", async move {
        let fetches = &work.federation.fetches;
        let mut turn = Turn::new(fetches, &errand, attempts);
        let places_of_origin = fetches.places_of(&errand.origin);
        loop {
            // Who waits behind others of its kind takes no place of all.
            let Ok(_of_origin) = places_of_origin.acquire().await else { return };
            let Ok(_of_all) = fetches.places.acquire().await else { return };
            let left = fetch_for(&work, &errand).await.unwrap_or_else(|error| {
                tracing::debug!(?errand, error = %error.error, "events of a room could not be fetched");
                Left::default()
            });
            if !turn.end_round(left) {
                return;
            }
        }
    });
}

/// One round of an errand. Returns what is left to do.
async fn fetch_for(ctx: &Arc<Context>, Errand { room_id, origin }: &Errand) -> Result<Left, ApiError> {
    let mut round = match Round::begin(&ctx.engine, room_id, origin)? {
        Begun::Nothing => return Ok(Left::Nothing),
        Begun::Left(release) => {
            refusals::dropped_events("unknown_room", release.event_ids.len() as u64);
            ctx.engine.write(release).await?;
            return Ok(Left::Nothing);
        }
        Begun::Round(round) => round,
    };
    let servers = std::mem::take(&mut round.servers);
    // What was taken in by then is; the rest goes on waiting.
    let mut asking = Asking::of(Some(Cause::Sent(origin.clone())), &servers);
    asking.is_patient = !round.goes_without_keys();
    if let Ok(taken) = timeout(ROUND_TIME_MAX, drive(ctx, &mut round.intake, &mut asking)).await {
        taken?;
    }
    let Ended { release, given_up, is_done, has_got_on, goes_without_keys_ms } =
        round.end(ctx.engine.now_ms());
    refusals::dropped_events("waited_too_long", given_up);
    if let Some(release) = release {
        ctx.engine.write(release).await?;
    }
    if is_done {
        return Ok(Left::Nothing);
    }
    if has_got_on {
        return Ok(Left::More);
    }
    if asking.away.contains(origin) {
        ctx.federation.unreached.note(origin, Instant::now());
    }
    let was_patient = asking.was_patient;
    let lacks = asking.lacks(ctx);
    let keys_at = lacks.iter().filter_map(|key| asked_again(ctx, &key.server_name)).min();
    // What lacks neither keys nor what its own tellers deny gains nothing by that.
    let goes_without_ms = goes_without_keys_ms.filter(|_| was_patient || !lacks.is_empty());
    let without_at = goes_without_ms.map(|pause_ms| Instant::now() + Duration::from_millis(pause_ms));
    Ok(Left::Something { lacks, keys_at, without_at })
}

/// The servers to ask about a room: first those given, then those with the most members.
pub fn servers_to_ask<'a>(
    ctx: &Context,
    room_id: &str,
    first: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, ApiError> {
    Ok(fetching::servers_to_ask(&ctx.engine, room_id, first)?)
}

/// What a server answers, unless something fails here.
pub type Asked = Result<Answer, RemoteError>;

#[derive(Deserialize)]
struct Between {
    #[serde(default)]
    events: AtMost<Box<RawValue>, MISSING_EVENTS_MAX>,
}

pub async fn missing_events(
    ctx: &Context,
    server: &str,
    room_id: &str,
    latest: &[Arc<str>],
) -> Result<Asked, ApiError> {
    let frontier = ctx.engine.read(&Frontier { room_id: room_id.to_owned() })?;
    let Some(frontier) = frontier else { return Ok(Ok(Answer::Nothing)) };
    let ends = frontier.extremities.iter().map(|event| &*event.event_id);
    // What is missing already is history: nobody need go further back than that.
    let earliest: Vec<&str> = ends.chain(frontier.missing.iter().map(String::as_str)).collect();
    let body = json!({
        "earliest_events": earliest,
        "latest_events": latest.iter().map(|event_id| &**event_id).collect::<Vec<_>>(),
        "limit": MISSING_EVENTS_LIMIT,
        "min_depth": frontier.min_depth,
    });
    let asked = Ask::post(server, path("v1/get_missing_events/{roomId}", &[room_id]), &body);
    let between: Result<Between, RemoteError> = asked.repeatable().for_events().read(ctx).await;
    Ok(between.map(|between| Answer::Events(between.events.0.into_iter().map(bytes_of).collect())))
}

/// A JSON value as bytes.
pub fn bytes_of(value: Box<RawValue>) -> Bytes {
    let text: Box<str> = value.into();
    text.into_boxed_bytes().into()
}

#[derive(Deserialize)]
struct StateIds {
    pdu_ids: Vec<Arc<str>>,
    #[serde(default)]
    auth_chain_ids: Vec<Arc<str>>,
}

/// A state that a server tells, and the memory that it takes.
pub struct ToldState {
    pub answer: Answer,
    pub memory: Vec<Share>,
}

/// The state before an event, with those of its events that are not here.
pub async fn state(
    ctx: &Arc<Context>,
    server: &str,
    room_id: &str,
    event_id: &str,
) -> Result<Result<ToldState, RemoteError>, ApiError> {
    let target = format!("{}?event_id={}", path("v1/state_ids/{roomId}", &[room_id]), escaped(event_id));
    let (ids, of_ids): (StateIds, Share) = match Ask::get(server, target).read_state(ctx, |_| {}).await {
        Ok(told) => told,
        Err(failure) => return Ok(Err(failure)),
    };
    let unknown = tokio::task::block_in_place(|| {
        let all: Vec<Arc<str>> = ids.pdu_ids.iter().chain(&ids.auth_chain_ids).cloned().collect();
        ctx.engine.read(&UnknownEvents { event_ids: &all })
    })?;
    let mut memory = vec![of_ids];
    let pdus = if unknown.len() <= STATE_EVENTS_SINGLE_MAX {
        events(ctx, server, &unknown).await
    } else {
        whole_state(ctx, server, room_id, event_id, |_| {}).await.map(|(whole, of_events)| {
            memory.push(of_events);
            whole.pdus.into_iter().chain(whole.auth_chain).map(bytes_of).collect()
        })
    };
    Ok(pdus.map(|pdus| ToldState {
        answer: Answer::State { state: ids.pdu_ids, auth_chain: ids.auth_chain_ids, pdus },
        memory,
    }))
}

/// The answer to `/state`.
#[derive(Deserialize)]
pub struct WholeState {
    pub pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    pub auth_chain: Vec<Box<RawValue>>,
}

/// The state before an event, all of it, and the memory that it takes. Tells `watch` how many bytes of it have come.
pub async fn whole_state(
    ctx: &Context,
    server: &str,
    room_id: &str,
    event_id: &str,
    watch: impl Fn(usize),
) -> Result<(WholeState, Share), RemoteError> {
    let target = format!("{}?event_id={}", path("v1/state/{roomId}", &[room_id]), escaped(event_id));
    Ask::get(server, target).read_state(ctx, watch).await
}
