//! What a server gives without its content, as a redaction would leave it, others are asked for, who may give it whole: a server gives
//! so what its asker may not see, and may have been given that itself by one that took it for such an asker; or it lies.
//!
//! Invariant: of what comes as history, or as what lies between, an event is taken in without its content only where nobody of those who
//! answer soon gives more of it, or a redaction of it is known. So many are asked for each answer, and nobody who was silent lately.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use warren_engine::core::checked::PduCheck;
use warren_engine::core::event::{Pdu, verify_content_hash};
use warren_engine::core::version::RoomVersion;
use warren_engine::view::federation::WantedWhole;
use warren_engine::view::{CheckHistory, CheckPdus};

use super::history::{ANSWER_TIME_MAX, MISSING_MAX, page_in_time};
use crate::context::Context;
use crate::http::ApiError;

/// Other servers that are asked for what one gives without its content: as many as are for what it lacks. A client may wait for them.
const OTHERS_MAX: usize = 3;

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
    let others: Vec<&String> = servers.iter().filter(|server| may_help(ctx, server, told_by)).collect();
    for other in others.into_iter().take(OTHERS_MAX) {
        let Ok(page) = page_in_time(ctx, other, room_id, &ends(&wanted), ANSWER_TIME_MAX).await else {
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
    Ok(())
}

fn may_help(ctx: &Context, server: &str, told_by: Option<&str>) -> bool {
    let is_other = Some(server) != told_by && server != ctx.engine.server_name();
    is_other && !ctx.federation.histories.is_silent(server)
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
    let events: Vec<(Arc<str>, Arc<str>)> =
        pruned.iter().map(|pruned| (pruned.pdu.event_id.clone(), pruned.pdu.sender.clone())).collect();
    let left = ctx.engine.read(&WantedWhole { room_id, events: &events })?;
    let left: HashSet<Arc<str>> = left.into_iter().collect();
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
    ends.sort_by_key(|pdu| std::cmp::Reverse(pdu.depth));
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
