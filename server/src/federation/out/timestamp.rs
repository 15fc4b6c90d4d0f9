//! What there was in a room at some time, where history is missing here: other servers are asked, and the event that one of
//! them tells of is kept within the gap, so that history can be read from there.
//!
//! Specification: client-server API, `GET /rooms/{roomId}/timestamp_to_event`, and its namesake of the server-server API.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;
use warren_engine::Within;
use warren_engine::core::num::StreamPos;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Intake;
use warren_engine::view::federation::IncomingRoom;
use warren_engine::view::{ClosestEvent, EventByTimestamp};

use super::ask::{Ask, path};
use super::complete::until_whole;
use super::fetch::{servers_to_ask, take_in};
use super::questions::QuestionPlace;
use super::single_events::events;
use super::{Asker, RemoteError, pruned};
use crate::context::Context;
use crate::federation::limits::QUESTION_WAIT_MAX;
use crate::http::ApiError;

/// How long a client waits for other servers, of which five are asked at most.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How long one server is waited for, which looks the event up in its own history.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);

/// The event closest to a time: of those that are here, and if history is missing there, of those that others tell of.
pub async fn closest(
    ctx: &Arc<Context>,
    wanted: &EventByTimestamp,
) -> Result<Option<(String, u64)>, ApiError> {
    let here = ctx.engine.read(wanted)?;
    let Some(gap) = here.gap else { return Ok(here.event) };
    let room_id = &wanted.room_id;
    let Ok(version) = ctx.engine.read(&IncomingRoom { room_id, server: ctx.engine.server_name() }) else {
        return Ok(here.event);
    };
    let asker = Asker::User(wanted.user.clone());
    let work = async {
        // One place for all that is asked, one after the other. Who has none is answered with what is here.
        let questions = &ctx.federation.questions;
        let Ok(place) = questions.place(&asker, false, QUESTION_WAIT_MAX).await else { return Ok(()) };
        // The state before what is taken in goes with that of the join, which is to be whole.
        until_whole(ctx, room_id).await;
        let servers = servers_to_ask(ctx, room_id, std::iter::empty())?;
        let asking = Asking { ctx, place, wanted, here: &here, gap, version, servers: &servers };
        for server in &servers {
            if asking.of(server).await? {
                break;
            }
        }
        Ok::<(), ApiError>(())
    };
    // What has come by then is there.
    timeout(TIME_MAX, work).await.unwrap_or(Ok(()))?;
    // Whether the user may see what has come is told by the view, and so is its time.
    Ok(ctx.engine.read(wanted)?.event)
}

#[derive(Deserialize)]
struct Told {
    event_id: Arc<str>,
    origin_server_ts: u64,
}

/// Of an event, its time.
#[derive(Deserialize)]
struct Timed {
    origin_server_ts: u64,
}

struct Asking<'a> {
    ctx: &'a Arc<Context>,
    place: QuestionPlace,
    wanted: &'a EventByTimestamp,
    here: &'a ClosestEvent,
    gap: StreamPos,
    version: &'static RoomVersion,
    servers: &'a [String],
}

impl Asking<'_> {
    /// Asks one server. Returns whether it told of an event that is closer, which is here now.
    async fn of(&self, server: &str) -> Result<bool, ApiError> {
        let Asking { ctx, wanted, here, .. } = self;
        let told = match timeout(ANSWER_TIME_MAX, self.told_by(server)).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                tracing::debug!(server, %error, "a server does not tell what there was at a time");
                return Ok(false);
            }
            Err(_) => return Ok(false),
        };
        if !wanted.is_closer(told.origin_server_ts, here) {
            return Ok(false);
        }
        let mut found = events(ctx, server, std::slice::from_ref(&told.event_id)).await.unwrap_or_default();
        let room = (wanted.room_id.as_str(), self.version);
        pruned::replace(ctx, room, (self.servers, Some(server)), &mut found, || true).await?;
        // Its place depends on its time, so it is to be the one that was told.
        let Some(pdu) = found.into_iter().next().filter(|pdu| {
            let timed: Option<Timed> = serde_json::from_slice(pdu).ok();
            timed.is_some_and(|timed| timed.origin_server_ts == told.origin_server_ts)
        }) else {
            return Ok(false);
        };
        let within = Within { event_id: told.event_id.clone(), gap: self.gap };
        let mut intake = Intake::within_gap(wanted.room_id.clone(), self.version, pdu, within);
        take_in(ctx, &mut intake, &[server.to_owned()]).await?;
        let outcome = intake.outcomes.get(&told.event_id);
        Ok(matches!(outcome, Some(warren_engine::Outcome::Accepted)))
    }

    async fn told_by(&self, server: &str) -> Result<Told, RemoteError> {
        let direction = if self.wanted.forwards { "f" } else { "b" };
        let place = path("v1/timestamp_to_event/{roomId}", &[&self.wanted.room_id]);
        let target = format!("{place}?ts={}&dir={direction}", self.wanted.ts);
        Ask::get(server, target).with_place(&self.place).for_event().read(self.ctx).await
    }
}
