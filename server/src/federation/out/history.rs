//! History that this server lacks is asked for when a client reads it.
//!
//! Invariant: a client waits a bounded time, and gets what there is then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use warren_engine::Outcome;
use warren_engine::core::json::AtMost;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{IncomingRoom, UnknownEvents};
use warren_engine::view::{HistoryGap, OpenGap, StreamToken};

use super::RemoteError;
use super::ask::{Ask, escaped, path};
use super::fetch::{bytes_of, servers_to_ask, take_in};
use super::flights::Flights;
use crate::context::Context;
use crate::http::ApiError;

/// How long a client waits for other servers.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Requests for history that one page of a client leads to: each brings some hundred events.
const ROUNDS_MAX: usize = 5;

/// Events that are asked for at once, as many as other servers give.
const EVENTS_MAX: usize = 100;

/// Events that are asked for in one request: of a gap's open ends, those that are nearest.
const MISSING_MAX: usize = 10;

/// Pages that one server is asked for in a row, as long as nothing of them can be taken in: five hundred events by users of
/// servers that are gone, say, are passed.
const PAGES_IN_VAIN_MAX: usize = 5;

/// How long a gap that nobody could fill is left alone.
const IN_VAIN: Duration = Duration::from_secs(60);

/// How long a server is not asked again for an event of which what it gives cannot be taken in.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);

/// Gaps, and events, that this is remembered of.
const REMEMBERED_MAX: usize = 10_000;

/// Who is filling gaps, which could not be filled, and which events are left behind.
#[derive(Default)]
pub struct Histories {
    flights: Flights,
    in_vain: Memory<(String, i64)>,
    /// By the server that gave them, since another one may have them as they are.
    left_behind: Memory<(String, Arc<str>)>,
}

/// What is to be left alone for a while.
struct Memory<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for Memory<K> {
    fn default() -> Memory<K> {
        Memory(Mutex::default())
    }
}

impl<K: Eq + Hash> Memory<K> {
    fn has(&self, key: &K) -> bool {
        self.0.lock().get(key).is_some_and(|until| *until > Instant::now())
    }

    fn note(&self, key: K, time: Duration) {
        let (now, mut noted) = (Instant::now(), self.0.lock());
        if noted.len() >= REMEMBERED_MAX {
            noted.retain(|_, until| *until > now);
            if noted.len() >= REMEMBERED_MAX {
                noted.clear();
            }
        }
        noted.insert(key, now + time);
    }
}

/// Fills the gaps that a page runs into, as far as there is time. Returns whether anything has come. Whether the client may
/// see the room is told by the page itself, which is to be read first.
pub async fn fill(
    ctx: &Arc<Context>,
    room_id: &str,
    from: Option<StreamToken>,
    forwards: bool,
    limit: usize,
) -> Result<bool, ApiError> {
    let view = HistoryGap { room_id, from, forwards, limit };
    if ctx.engine.read(&view)?.is_none() {
        return Ok(false);
    }
    let work = async {
        // The state before what is filled in follows from that of the join, which is to be whole.
        ctx.federation.completions.ended(room_id).await;
        let _turn = ctx.federation.histories.flights.alone(room_id).await;
        let mut has_come = false;
        for _ in 0..ROUNDS_MAX {
            let Some(gap) = ctx.engine.read(&view)? else { break };
            let place = (room_id.to_owned(), gap.pos.0);
            if ctx.federation.histories.in_vain.has(&place) {
                break;
            }
            if !fill_gap(ctx, room_id, &gap).await? {
                ctx.federation.histories.in_vain.note(place, IN_VAIN);
                break;
            }
            has_come = true;
        }
        Ok(has_come)
    };
    // What has come by then is there; it is looked for.
    timeout(TIME_MAX, work).await.unwrap_or(Ok(true))
}

/// Events that came and are no part of the room, with what they follow.
type LeftBehind = BTreeMap<Arc<str>, Vec<Arc<str>>>;

#[derive(Deserialize)]
struct Page {
    pdus: AtMost<Box<RawValue>, EVENTS_MAX>,
}

/// Asks one server after the other for what is missing. Returns whether anything of it was taken in.
async fn fill_gap(ctx: &Arc<Context>, room_id: &str, gap: &OpenGap) -> Result<bool, ApiError> {
    let own_name = ctx.engine.server_name();
    let Ok(version) = ctx.engine.read(&IncomingRoom { room_id, server: own_name }) else { return Ok(false) };
    for server in servers_to_ask(ctx, room_id, std::iter::empty())? {
        if fill_by(ctx, (room_id, version), gap, &server).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is left behind for good of what a server told of the past: what it follows is here, or left behind as well. Whatever leads
/// on to more must be asked for again.
fn dead_ends(ctx: &Context, left: &LeftBehind) -> Result<Vec<Arc<str>>, ApiError> {
    let before: Vec<Arc<str>> =
        left.values().flatten().filter(|id| !left.contains_key(*id)).cloned().collect();
    let unknown = ctx.engine.read(&UnknownEvents { event_ids: &before })?;
    let mut leads_on: HashSet<Arc<str>> = unknown.into_iter().collect();
    loop {
        let more: Vec<Arc<str>> = left
            .iter()
            .filter(|(id, before)| !leads_on.contains(*id) && before.iter().any(|id| leads_on.contains(id)))
            .map(|(id, _)| id.clone())
            .collect();
        if more.is_empty() {
            return Ok(left.keys().filter(|id| !leads_on.contains(*id)).cloned().collect());
        }
        leads_on.extend(more);
    }
}

/// Asks one server. Where nothing of what it gives can be taken in, as by users of servers whose keys nobody has any more, it is
/// asked for what is before that, which is in the same gap.
async fn fill_by(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    gap: &OpenGap,
    server: &str,
) -> Result<bool, ApiError> {
    let left_behind = &ctx.federation.histories.left_behind;
    let is_worth_asking = |event_id: &Arc<str>| !left_behind.has(&(server.to_owned(), event_id.clone()));
    let missing: Vec<Arc<str>> = gap.missing.iter().map(|event_id| Arc::from(&**event_id)).collect();
    let mut next: Vec<Arc<str>> = missing.iter().filter(|id| is_worth_asking(id)).cloned().collect();
    let note = |event_ids: Vec<Arc<str>>| {
        event_ids.into_iter().for_each(|id| left_behind.note((server.to_owned(), id), LEFT_BEHIND));
    };
    let (mut told, mut left): (Vec<Bytes>, LeftBehind) = Default::default();
    for _ in 0..PAGES_IN_VAIN_MAX {
        next.truncate(MISSING_MAX);
        if next.is_empty() {
            break;
        }
        let page = match page_before(ctx, server, room_id, &next).await {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(server, room_id, %error, "a server gives no history");
                note(dead_ends(ctx, &left)?);
                return Ok(false);
            }
        };
        told.extend(page);
        let mut intake = Intake::of_history(room_id.to_owned(), version, told.clone());
        take_in(ctx, &mut intake, &[server.to_owned()]).await?;
        left = intake.left_behind();
        if intake.outcomes.values().any(|outcome| matches!(outcome, Outcome::Accepted | Outcome::Rejected(_)))
        {
            note(dead_ends(ctx, &left)?);
            return Ok(true);
        }
        // The other ends of the gap come first; then what is before all that was left behind.
        let is_open = |id: &&Arc<str>| !left.contains_key(*id) && is_worth_asking(id);
        next = missing.iter().filter(is_open).cloned().collect();
        if next.is_empty() {
            let before: Vec<Arc<str>> = left.values().flatten().filter(is_open).cloned().collect();
            next = ctx.engine.read(&UnknownEvents { event_ids: &before })?;
        }
    }
    // The server would tell the same again.
    note(left.into_keys().collect());
    Ok(false)
}

/// A page of history: these events and what is before them.
async fn page_before(
    ctx: &Context,
    server: &str,
    room_id: &str,
    event_ids: &[Arc<str>],
) -> Result<Vec<Bytes>, RemoteError> {
    let mut target = format!("{}?limit={EVENTS_MAX}", path("v1/backfill/{roomId}", &[room_id]));
    for event_id in event_ids {
        target.push_str(&format!("&v={}", escaped(event_id)));
    }
    let page: Page = Ask::get(server, target).for_events().read(ctx).await?;
    Ok(page.pdus.0.into_iter().map(bytes_of).collect())
}
