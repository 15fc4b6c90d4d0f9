//! What a server gives without its content, as a redaction would leave it, others are asked for, who may give it whole: a server gives
//! so what its asker may not see, and may have been given that itself by one that took it for such an asker; or it lies.
//!
//! Invariant: of what comes as history, or as what lies between, an event is taken in without its content only where nobody of those who
//! answer soon gives more of it, or a redaction of it is known. So many are asked for each answer, and nobody who was silent lately.
//! What was is asked for again when a client reads it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use warren_engine::core::checked::PduCheck;
use warren_engine::core::event::{Pdu, verify_content_hash};
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{IncomingRoom, WantedWhole};
use warren_engine::view::{CheckHistory, CheckPdus};

use super::fetch::{servers_to_ask, take_in};
use super::history::{ANSWER_TIME_MAX, MISSING_MAX, TIME_MAX, page_in_time};
use crate::context::Context;
use crate::http::ApiError;

/// Other servers that are asked for what one gives without its content, with each answer: as many as are for what it lacks. A client may
/// wait for them.
const OTHERS_MAX: usize = 3;

/// What redaction leaves of a message's content, as it stands in a page.
const BARE: &[u8] = b"\"content\":{}";

/// An event by its id, with its sender.
type Sent = (Arc<str>, Arc<str>);

/// An event that came without its content.
struct Pruned {
    /// Where it is among what came.
    place: usize,
    pdu: Pdu,
}

/// Puts whole copies in the place of those that a server has given without their content, as far as others of the `servers` give
/// them. Whether these may be asked is asked when they are to be.
pub async fn replace(
    ctx: &Context,
    room: (&str, &'static RoomVersion),
    (servers, told_by): (&[String], Option<&str>),
    told: &mut [Bytes],
    may_ask: impl FnOnce() -> bool + Send,
) -> Result<(), ApiError> {
    let (room_id, version) = room;
    let mut wanted = wanted(ctx, room, told)?;
    if wanted.is_empty() || !may_ask() {
        return Ok(());
    }
    let (others, are_all) = others_of(ctx, servers, told_by);
    let mut have_all_answered = are_all && others.len() <= OTHERS_MAX;
    for other in others.into_iter().take(OTHERS_MAX) {
        let Ok(page) = page_in_time(ctx, other, room_id, &ends(&wanted), ANSWER_TIME_MAX).await else {
            have_all_answered = false;
            continue;
        };
        let found: Vec<Pdu> = page.iter().filter_map(|json| Pdu::parse_history(version, json).ok()).collect();
        wanted.retain(|pruned| {
            let whole = found.iter().find_map(|copy| made_whole(version, &pruned.pdu, copy));
            if let Some((place, whole)) = told.get_mut(pruned.place).zip(whole.as_ref()) {
                place.clone_from(whole);
            }
            whole.is_none()
        });
        if wanted.is_empty() {
            break;
        }
    }
    for pruned in wanted {
        ctx.federation.histories.leave_bare(pruned.pdu.event_id, have_all_answered);
    }
    Ok(())
}

/// Asks other servers for what a page for a client shows without its content, and takes in what they give. Returns whether anything was.
/// Those who read wait for that once for each such event in a while.
pub async fn mend(ctx: &Arc<Context>, room_id: &str, page: &[u8]) -> Result<bool, ApiError> {
    if memmem::find(page, BARE).is_none() {
        return Ok(false);
    }
    let wanted = shown_bare(ctx, room_id, page)?;
    let incoming = IncomingRoom { room_id, server: ctx.engine.server_name() };
    let Ok(version) = ctx.engine.read(&incoming) else { return Ok(false) };
    if wanted.is_empty() {
        return Ok(false);
    }
    // There may be no time for the end of it.
    for (event_id, _) in &wanted {
        ctx.federation.histories.leave_bare(event_id.clone(), false);
    }
    timeout(TIME_MAX, take_in_whole(ctx, (room_id, version), wanted)).await.unwrap_or(Ok(true))
}

/// A page of history for a client, as far as it is looked at.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    chunk: Vec<Shown<'a>>,
}

#[derive(Deserialize)]
struct Shown<'a> {
    event_id: Arc<str>,
    sender: Arc<str>,
    origin_server_ts: u64,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// The events of a page that are here without their content and were not asked for lately, with their senders, the latest first.
fn shown_bare(ctx: &Context, room_id: &str, page: &[u8]) -> Result<Vec<Sent>, ApiError> {
    let page: Page<'_> = serde_json::from_slice(page).map_err(ApiError::internal)?;
    let mut bare = page.chunk;
    bare.retain(|event| {
        event.content.get() == "{}" && !ctx.federation.histories.is_left_bare(&event.event_id)
    });
    bare.sort_by_key(|event| Reverse(event.origin_server_ts));
    let mut events: Vec<_> = bare.into_iter().map(|event| (event.event_id, event.sender)).collect();
    keep_wanted(ctx, room_id, &mut events)?;
    Ok(events)
}

fn keep_wanted(ctx: &Context, room_id: &str, events: &mut Vec<Sent>) -> Result<(), ApiError> {
    let left = ctx.engine.read(&WantedWhole { room_id, events: events.as_slice() })?;
    let left: HashSet<Arc<str>> = left.into_iter().collect();
    events.retain(|(event_id, _)| left.contains(event_id));
    Ok(())
}

/// Asks one server after the other for events that are here without their content. Returns whether any is whole now.
async fn take_in_whole(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    mut wanted: Vec<Sent>,
) -> Result<bool, ApiError> {
    let count = wanted.len();
    let servers = servers_to_ask(ctx, room_id, std::iter::empty())?;
    let (others, mut have_all_answered) = others_of(ctx, &servers, None);
    for other in others {
        let from: Vec<Arc<str>> = wanted.iter().take(MISSING_MAX).map(|(id, _)| id.clone()).collect();
        if from.is_empty() {
            break;
        }
        let Ok(mut page) = page_in_time(ctx, other, room_id, &from, ANSWER_TIME_MAX).await else {
            have_all_answered = false;
            continue;
        };
        page.retain(|json| is_whole_of(version, json, &wanted));
        if !page.is_empty() {
            let mut intake = Intake::of_history(room_id.to_owned(), version, page);
            take_in(ctx, &mut intake, std::slice::from_ref(other)).await?;
            keep_wanted(ctx, room_id, &mut wanted)?;
        }
    }
    let is_any_whole = wanted.len() < count;
    for (event_id, _) in wanted {
        ctx.federation.histories.leave_bare(event_id, have_all_answered);
    }
    Ok(is_any_whole)
}

fn is_whole_of(version: &RoomVersion, json: &Bytes, wanted: &[Sent]) -> bool {
    Pdu::parse_history(version, json).is_ok_and(|pdu| {
        wanted.iter().any(|(event_id, _)| *event_id == pdu.event_id)
            && matches!(verify_content_hash(&pdu), Ok(true))
    })
}

/// The servers that can be asked beside who has told, and whether none was left out as it was silent.
fn others_of<'s>(ctx: &Context, servers: &'s [String], told_by: Option<&str>) -> (Vec<&'s String>, bool) {
    let is_other =
        |server: &&String| Some(server.as_str()) != told_by && **server != ctx.engine.server_name();
    let mut others: Vec<&String> = servers.iter().filter(is_other).collect();
    let count = others.len();
    others.retain(|server| !ctx.federation.histories.is_silent(server));
    let are_all = others.len() == count;
    (others, are_all)
}

/// Those of the events that came without their content, unless a redaction is known that would leave no more of them, or they are here
/// whole.
fn wanted(
    ctx: &Context,
    (room_id, version): (&str, &'static RoomVersion),
    told: &[Bytes],
) -> Result<Vec<Pruned>, ApiError> {
    let (mut pruned, mut redactions) = (Vec::new(), Vec::new());
    for (place, json) in told.iter().enumerate() {
        let Ok(pdu) = Pdu::parse_history(version, json) else { continue };
        if matches!(verify_content_hash(&pdu), Ok(false)) && *pdu.room_id == *room_id {
            pruned.push(Pruned { place, pdu });
        } else if pdu.redacts.is_some() {
            redactions.push(pdu);
        }
    }
    if pruned.is_empty() {
        return Ok(pruned);
    }
    let redacted = redacted_by_their_senders(ctx, version, &pruned, &redactions)?;
    pruned.retain(|pruned| !redacted.contains(&pruned.pdu.event_id));
    let mut events: Vec<Sent> =
        pruned.iter().map(|pruned| (pruned.pdu.event_id.clone(), pruned.pdu.sender.clone())).collect();
    keep_wanted(ctx, room_id, &mut events)?;
    let left: HashSet<Arc<str>> = events.into_iter().map(|(event_id, _)| event_id).collect();
    pruned.retain(|pruned| left.contains(&pruned.pdu.event_id));
    Ok(pruned)
}

/// The events that came without their content along with a redaction by their sender, who may always: those who have it rightly have no
/// more. Whether others may redact depends on a state that is not known here yet.
fn redacted_by_their_senders(
    ctx: &Context,
    version: &'static RoomVersion,
    pruned: &[Pruned],
    redactions: &[Pdu],
) -> Result<HashSet<Arc<str>>, ApiError> {
    let is_by_sender = |redaction: &&Pdu| {
        pruned.iter().any(|Pruned { pdu, .. }| {
            redaction.sender == pdu.sender && redaction.redacts.as_deref() == Some(&*pdu.event_id)
        })
    };
    let pdus: Vec<Bytes> =
        redactions.iter().filter(is_by_sender).map(|redaction| redaction.json.clone()).collect();
    let checks = ctx.engine.read(&CheckHistory(CheckPdus { version, pdus: &pdus }))?;
    let redacted = checks.into_iter().filter_map(|check| match check {
        PduCheck::Ready(checked) => checked.pdu().redacts.as_deref().map(Arc::from),
        PduCheck::Refused { .. } | PduCheck::MissingKeys(_) => None,
    });
    Ok(redacted.collect())
}

/// The events from which on a page of history has the most of them: those that no other one follows, the deepest first.
fn ends(wanted: &[Pruned]) -> Vec<Arc<str>> {
    let followed: HashSet<&Arc<str>> = wanted.iter().flat_map(|pruned| &pruned.pdu.prev_events).collect();
    let mut ends: Vec<&Pdu> =
        wanted.iter().map(|pruned| &pruned.pdu).filter(|pdu| !followed.contains(&pdu.event_id)).collect();
    ends.sort_by_key(|pdu| Reverse(pdu.depth));
    ends.into_iter().map(|pdu| pdu.event_id.clone()).take(MISSING_MAX).collect()
}

/// The event whole, if `copy` is that: the same but for what redaction takes, and as its hash says. The signatures are those that came
/// first; they are over what both have.
fn made_whole(version: &RoomVersion, pruned: &Pdu, copy: &Pdu) -> Option<Bytes> {
    if copy.event_id != pruned.event_id || !matches!(verify_content_hash(copy), Ok(true)) {
        return None;
    }
    if copy.signed_bytes(version).ok()? != pruned.signed_bytes(version).ok()? {
        return None;
    }
    copy.with_signatures_of(pruned).ok().map(|whole| whole.json)
}
