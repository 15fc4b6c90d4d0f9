//! What a server gives without its content, as a redaction would leave it, others are asked for, who may give it whole: a server gives
//! so what its asker may not see, and may have been given that itself by one that took it for such an asker; or it lies.
//!
//! Invariant: of what comes as history, or as what lies between, an event is taken in without its content only where nobody of those who
//! answer soon gives more of it, or a redaction of it is known. So many are asked for each answer, and nobody who was silent lately; the
//! servers of those who sent it before others. What was is asked for again, after a while, when a client reads it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::block_in_place;
use tokio::time::timeout;
use warren_engine::core::checked::PduCheck;
use warren_engine::core::event::{Pdu, verify_content_hash};
use warren_engine::core::identifiers::server_name;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{IncomingRoom, WantedWhole};
use warren_engine::view::{CheckHistory, CheckPdus};

use super::fetch::{servers_to_ask, take_in};
use super::history::{ANSWER_TIME_MAX, MISSING_MAX, TAKE_IN_TIME_MAX, page_in_time};
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

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
    let mut wanted = block_in_place(|| wanted(ctx, room, told))?;
    wanted.retain(|pruned| !ctx.federation.histories.is_left_bare(&pruned.pdu.event_id));
    if wanted.is_empty() || !may_ask() {
        return Ok(());
    }
    let (mut others, are_all) = others_of(ctx, servers, told_by);
    // Who sent an event is not checked yet, so that it leads to nobody who is not asked anyway.
    others.sort_by_key(|server| {
        !wanted.iter().any(|pruned| server_name(&pruned.pdu.sender) == Some(server.as_str()))
    });
    let mut have_all_answered = are_all && others.len() <= OTHERS_MAX;
    let mut unasked = HashSet::new();
    for other in others.into_iter().take(OTHERS_MAX) {
        let Some(found) = copies_by(ctx, other, room, ends(&wanted), &mut unasked).await else {
            have_all_answered = false;
            continue;
        };
        wanted.retain(|pruned| {
            let whole = found.iter().find_map(|copy| made_whole(room.1, &pruned.pdu, copy));
            if let Some((place, whole)) = told.get_mut(pruned.place).zip(whole.as_ref()) {
                place.clone_from(whole);
            }
            whole.is_none()
        });
        if wanted.is_empty() {
            break;
        }
    }
    let left = wanted.into_iter().map(|pruned| pruned.pdu.event_id);
    leave_bare(ctx, left, &unasked, have_all_answered);
    Ok(())
}

/// Asks other servers for what a page for a client shows without its content, and takes in what they give. Returns whether anything was.
/// Those who read wait for that once for each such event in a while, as long as for one server; what comes later is there when they
/// read again.
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
    // Nobody else asks for them meanwhile.
    for (event_id, _) in &wanted {
        ctx.federation.histories.leave_bare(event_id.clone(), false);
    }
    let (own, room_id) = (ctx.clone(), room_id.to_owned());
    let work = async move { take_in_whole(&own, (room_id.as_str(), version), wanted).await };
    let taken = timeout(ANSWER_TIME_MAX, worker::finish(ctx, work)).await.unwrap_or(Ok(true));
    // What is here can be read all the same.
    Ok(taken
        .inspect_err(|error| tracing::warn!(error = %error.error, "nobody is asked for what is bare"))
        .unwrap_or(false))
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
    room: (&str, &'static RoomVersion),
    mut wanted: Vec<Sent>,
) -> Result<bool, ApiError> {
    let (room_id, version) = room;
    let count = wanted.len();
    let (servers, are_senders_asked) = senders_first(ctx, room_id, &wanted)?;
    let (others, are_all) = others_of(ctx, &servers, None);
    let mut have_all_answered = are_senders_asked && are_all && others.len() <= OTHERS_MAX;
    let mut unasked = HashSet::new();
    for other in others.iter().copied().take(OTHERS_MAX) {
        if wanted.is_empty() {
            break;
        }
        let events: Vec<Arc<str>> = wanted.iter().map(|(event_id, _)| event_id.clone()).collect();
        let Some(copies) = copies_by(ctx, other, room, events, &mut unasked).await else {
            have_all_answered = false;
            continue;
        };
        let page = block_in_place(|| whole_of(copies, &wanted));
        if !page.is_empty() {
            let mut intake = Intake::of_history(room_id.to_owned(), version, page);
            let taken = take_in(ctx, &mut intake, std::slice::from_ref(other));
            if let Ok(taken) = timeout(TAKE_IN_TIME_MAX, taken).await {
                taken?;
            }
            keep_wanted(ctx, room_id, &mut wanted)?;
        }
    }
    // Whose own servers had no turn: they are asked next.
    let next: Vec<&str> = others.iter().skip(OTHERS_MAX).map(|server| server.as_str()).collect();
    let is_next = |sender: &str| server_name(sender).is_some_and(|server| next.contains(&server));
    let of_next = wanted.iter().filter(|(_, sender)| is_next(sender));
    unasked.extend(of_next.map(|(event_id, _)| event_id.clone()));
    let is_any_whole = wanted.len() < count;
    let left = wanted.into_iter().map(|(event_id, _)| event_id);
    leave_bare(ctx, left, &unasked, have_all_answered);
    Ok(is_any_whole)
}

/// The servers to ask for events that are here without their content, first those of their senders, who have them whole; and whether
/// none of these is left out as it was silent: it would take the place of another.
fn senders_first(ctx: &Context, room_id: &str, wanted: &[Sent]) -> Result<(Vec<String>, bool), ApiError> {
    let (silent, senders): (Vec<&str>, Vec<&str>) = wanted
        .iter()
        .filter_map(|(_, sender)| server_name(sender))
        .partition(|server| ctx.federation.histories.is_silent(server));
    Ok((servers_to_ask(ctx, room_id, senders.into_iter())?, silent.is_empty()))
}

/// Those of the copies that are whole, of what is wanted.
fn whole_of(copies: Vec<Pdu>, wanted: &[Sent]) -> Vec<Bytes> {
    let is_wanted = |copy: &Pdu| wanted.iter().any(|(event_id, _)| *event_id == copy.event_id);
    let is_whole = |copy: &Pdu| is_wanted(copy) && matches!(verify_content_hash(copy), Ok(true));
    copies.into_iter().filter(is_whole).map(|copy| copy.json).collect()
}

/// Asks a server for the first of these events, and what is before them; nothing comes of it where it gives no answer soon. What of
/// them it was not asked for, and has not told all the same, is put to what is `unasked`.
async fn copies_by(
    ctx: &Context,
    server: &str,
    (room_id, version): (&str, &'static RoomVersion),
    mut events: Vec<Arc<str>>,
    unasked: &mut HashSet<Arc<str>>,
) -> Option<Vec<Pdu>> {
    let rest = events.split_off(MISSING_MAX.min(events.len()));
    let page = page_in_time(ctx, server, room_id, &events, ANSWER_TIME_MAX).await.ok();
    let parsed = |page: Vec<Bytes>| -> Vec<Pdu> {
        page.iter().filter_map(|json| Pdu::parse_history(version, json).ok()).collect()
    };
    let copies = page.map(|page| block_in_place(|| parsed(page)));
    let is_told = |event_id: &Arc<str>| copies.iter().flatten().any(|copy| copy.event_id == *event_id);
    unasked.extend(rest.into_iter().filter(|event_id| !is_told(event_id)));
    copies
}

/// Notes of what nobody gave more. What not all who were asked were asked for is next, in a moment.
fn leave_bare(
    ctx: &Context,
    left: impl Iterator<Item = Arc<str>>,
    unasked: &HashSet<Arc<str>>,
    have_all_answered: bool,
) {
    let histories = &ctx.federation.histories;
    for event_id in left {
        match unasked.contains(&event_id) {
            true => histories.leave_bare_for_now(event_id),
            false => histories.leave_bare(event_id, have_all_answered),
        }
    }
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
    ends.into_iter().map(|pdu| pdu.event_id.clone()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_too_much_for_one_request_is_not_taken_for_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let room = ("!room:there.example", RoomVersion::get("11").expect("a version"));
        let events: Vec<Arc<str>> =
            (0..MISSING_MAX + 2).map(|number| Arc::from(format!("$event{number}"))).collect();
        let mut unasked = HashSet::new();
        // Nobody is there.
        let copies = copies_by(&ctx, "127.0.0.1:1", room, events.clone(), &mut unasked).await;
        assert!(copies.is_none());
        assert_eq!(unasked, events.iter().skip(MISSING_MAX).cloned().collect::<HashSet<_>>());
        leave_bare(&ctx, events.iter().cloned(), &unasked, true);
        let histories = &ctx.federation.histories;
        assert!(events.iter().all(|event_id| histories.is_left_bare(event_id)), "none at once again");
    }
}
