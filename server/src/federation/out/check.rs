//! Events of other servers are checked, with the keys that this takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use warren_engine::Error;
use warren_engine::core::checked::{CheckedPdu, MissingKey, PduCheck};
use warren_engine::core::event::{JsonObject, is_stripped};
use warren_engine::core::json::{Limits, Strictness, parse_object};
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{SignedEvent, TakeSignature, TakenSignature};
use warren_engine::view::{CheckHistory, CheckPdus};

use super::RemoteError;
use super::keys::{Cause, ensure_keys};
use crate::context::Context;
use crate::federation::refusals;
use crate::http::ApiError;

/// Events that are checked at once: some ten milliseconds of work.
const CHUNK: usize = 200;

/// Checks what an intake has without asking anybody.
pub fn check_intake(
    ctx: &Context,
    intake: &Intake,
    pdus: &[Bytes],
) -> Result<Vec<PduCheck>, warren_engine::Error> {
    let version = intake.version();
    match intake.is_history() {
        true => in_chunks(pdus, |pdus| ctx.engine.read(&CheckHistory(CheckPdus { version, pdus }))),
        false => check_here(ctx, version, pdus),
    }
}

/// Checks events without asking anybody.
fn check_here(
    ctx: &Context,
    version: &'static RoomVersion,
    pdus: &[Bytes],
) -> Result<Vec<PduCheck>, warren_engine::Error> {
    in_chunks(pdus, |pdus| ctx.engine.read(&CheckPdus { version, pdus }))
}

/// A thread that serves requests is freed meanwhile if the events are many.
fn in_chunks(
    pdus: &[Bytes],
    check: impl Fn(&[Bytes]) -> Result<Vec<PduCheck>, warren_engine::Error>,
) -> Result<Vec<PduCheck>, warren_engine::Error> {
    let all = || {
        let mut checks = Vec::with_capacity(pdus.len());
        for pdus in pdus.chunks(CHUNK) {
            checks.extend(check(pdus)?);
        }
        Ok(checks)
    };
    if pdus.len() > CHUNK { tokio::task::block_in_place(all) } else { all() }
}

/// Events of another server that were checked.
pub struct Checked {
    /// Those that pass, in their order.
    pub ready: Vec<Arc<CheckedPdu>>,
    /// Those of which that cannot be told.
    pub keyless: Vec<Keyless>,
}

/// An event of another server that cannot be checked.
pub struct Keyless {
    /// The event as JSON.
    pub pdu: Bytes,
    /// A server whose keys cannot be had.
    pub server: String,
}

/// Those of the events that pass, in their order; the keys that are missing are asked for once.
pub async fn check_all(
    ctx: &Arc<Context>,
    cause: &Cause,
    version: &'static RoomVersion,
    pdus: Vec<Bytes>,
) -> Result<Vec<Arc<CheckedPdu>>, ApiError> {
    Ok(check_each(ctx, cause, version, pdus).await?.ready)
}

/// The same, and what kept others from being checked.
pub async fn check_each(
    ctx: &Arc<Context>,
    cause: &Cause,
    version: &'static RoomVersion,
    pdus: Vec<Bytes>,
) -> Result<Checked, ApiError> {
    let mut checks = check_here(ctx, version, &pdus)?;
    let mut missing: BTreeSet<MissingKey> = BTreeSet::new();
    let (mut places, mut again) = (Vec::new(), Vec::new());
    for (place, (check, pdu)) in checks.iter().zip(&pdus).enumerate() {
        if let PduCheck::MissingKeys(keys) = check {
            missing.extend(keys.iter().cloned());
            places.push(place);
            again.push(pdu.clone());
        }
    }
    if !missing.is_empty() {
        ensure_keys(ctx, cause, &missing.into_iter().collect::<Vec<_>>()).await;
        for (place, check) in places.into_iter().zip(check_here(ctx, version, &again)?) {
            if let Some(known) = checks.get_mut(place) {
                *known = check;
            }
        }
    }
    let mut checked = Checked { ready: Vec::with_capacity(checks.len()), keyless: Vec::new() };
    for (check, pdu) in checks.into_iter().zip(pdus) {
        match check {
            PduCheck::Ready(pdu) => checked.ready.push(pdu),
            PduCheck::Refused { event_id, error } => {
                refusals::unchecked_event(&error);
                tracing::debug!(?event_id, %error, "an event of another server is left out");
            }
            PduCheck::MissingKeys(keys) => {
                refusals::dropped_event("key_unknown");
                tracing::debug!(?keys, "an event of another server cannot be checked and is left out");
                let key = keys.into_iter().next();
                checked.keyless.extend(key.map(|key| Keyless { pdu, server: key.server_name }));
            }
        }
    }
    Ok(checked)
}

/// What of a room's state that comes with an invite or a knock can be read. The others are left out and counted: who is in the
/// room may have put anything into one of them.
pub fn readable(room_state: &[&RawValue]) -> Vec<JsonObject> {
    let read = |event: &&RawValue| {
        let limits = Limits { bytes_max: event.get().len(), strictness: Strictness::Lenient };
        parse_object(event.get().as_bytes(), limits).ok()
    };
    let found: Vec<JsonObject> = room_state.iter().filter_map(read).collect();
    refusals::entries((room_state.len() - found.len()) as u64);
    found
}

/// What of a room's state that comes with an invite or a knock can be shown.
pub struct Shown {
    /// The events.
    pub events: Vec<JsonObject>,
    /// Whether others were none of the room's version, or not rightly signed.
    pub has_wrong: bool,
}

/// What of a room's state that comes with an invite or a knock is stripped, or rightly signed, where the version wants whole
/// events; else all. What cannot be checked for want of keys is left out, but for the create event: the room's id says that it is its
/// own, and it must be there, whatever became of its server.
pub async fn shown(
    ctx: &Arc<Context>,
    cause: &Cause,
    version: &'static RoomVersion,
    room_state: Vec<JsonObject>,
) -> Result<Shown, ApiError> {
    if !version.room_id_is_create_hash {
        return Ok(Shown { events: room_state, has_wrong: false });
    }
    let (stripped, whole): (Vec<JsonObject>, Vec<JsonObject>) = room_state.into_iter().partition(is_stripped);
    let pdus = whole.iter().map(|event| serde_json::to_vec(event).map(Bytes::from));
    let pdus: Vec<Bytes> = pdus.collect::<Result<_, _>>().map_err(ApiError::internal)?;
    let Checked { ready, keyless } = check_each(ctx, cause, version, pdus).await?;
    let has_wrong = ready.len() + keyless.len() < whole.len();
    let mut events = Vec::with_capacity(whole.len() + stripped.len());
    for pdu in &ready {
        events.push(serde_json::from_slice(&pdu.pdu().json).map_err(ApiError::internal)?);
    }
    for Keyless { pdu, .. } in &keyless {
        let event: JsonObject = serde_json::from_slice(pdu).map_err(ApiError::internal)?;
        if event.get("type").and_then(Value::as_str) == Some("m.room.create") {
            events.push(event);
        }
    }
    events.extend(stripped);
    Ok(Shown { events, has_wrong })
}

/// Checks one event, which must pass.
///
/// Errors: 400 `M_INVALID_PARAM`, as the specification has it for events that fail a signature check.
pub async fn check_one(
    ctx: &Arc<Context>,
    cause: &Cause,
    version: &'static RoomVersion,
    pdu: Bytes,
) -> Result<Arc<CheckedPdu>, ApiError> {
    let checked = check_all(ctx, cause, version, vec![pdu]).await?.pop();
    let why = "The event is malformed or not rightly signed";
    checked.ok_or_else(|| ApiError::invalid_param(why).because("bad_event"))
}

fn note_unsigned(error: &Error) {
    if matches!(error, Error::Invalid(_)) {
        refusals::answer("unsigned");
    }
}

/// Our event with the signature of another server that has to sign it, too.
///
/// Errors: 502 if the server has not signed it in what it answered.
pub async fn take_signature(
    ctx: &Arc<Context>,
    event: &SignedEvent,
    answer: &JsonObject,
    server: &str,
) -> Result<Bytes, ApiError> {
    let take = TakeSignature { event, answer, server };
    let read = || ctx.engine.read(&take).inspect_err(note_unsigned);
    let mut taken = read()?;
    if let TakenSignature::MissingKeys(keys) = &taken {
        ensure_keys(ctx, &Cause::told(server), keys).await;
        taken = read()?;
    }
    match taken {
        TakenSignature::Signed(json) => Ok(json),
        TakenSignature::MissingKeys(_) => {
            Err(RemoteError::bad_answer("key_unknown", "the key that it signed with cannot be had").into())
        }
    }
}
