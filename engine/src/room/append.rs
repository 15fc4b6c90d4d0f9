//! The append path: a local event is built on the room's head, authorised, signed, and taken in (`accept`).

use std::sync::Arc;

use serde_json::Value;

use super::{
    Event, RoomCtx,
    accept::{Arrival, accept},
    fork, policy,
    snapshot::SnapshotState,
};
use crate::{
    core::{
        auth::{self, AuthState, Reason},
        event::{EventBuilder, EventReference, JsonObject, Pdu, reference_hash_of_json},
        limits::OWN_PREV_EVENTS_MAX,
        num::{EventNum, NodeId, TextNum},
        power_levels::PowerLevels,
        version::{EventIdFormat, RoomVersion},
    },
    error::{Denied, Invalid, Result},
    store::{Reader, StorageError, Tx, schema::EventStatus},
};

/// The random part of an event id in room versions 1 and 2: over 100 bits.
const EVENT_LOCALPART_CHARS: usize = 18;

/// The random part of a room id before room version 12: over 100 bits.
const ROOM_LOCALPART_CHARS: usize = 18;

/// An event that a local user wants to send.
pub(crate) struct NewEvent<'a> {
    pub sender: &'a str,
    pub kind: &'a str,
    pub state_key: Option<&'a str>,
    pub content: JsonObject,
    /// The event that an `m.room.redaction` redacts.
    pub redacts: Option<&'a str>,
    /// Milliseconds since the epoch.
    pub origin_server_ts: u64,
    /// The client's device and transaction id, shown to that device only.
    pub transaction: Option<(TextNum, String)>,
}

/// What a create event is judged by.
struct NoState;

impl AuthState for NoState {
    fn get(&self, _: &str, _: &str) -> Option<Arc<Pdu>> {
        None
    }
}

/// Builds, authorises and writes an event on the room's head.
///
/// Errors: [`Denied::Rule`] when the room's rules refuse it, [`Invalid::Event`] when it is malformed or too large,
/// [`crate::Error::Unsigned`] when the room's policy server has to sign it first.
pub(crate) fn append(tx: &mut Tx, room: &mut RoomCtx, mut new: NewEvent<'_>) -> Result<Arc<Event>> {
    if let Some(arrival) = signed_before(tx, room, &new)? {
        return accept(tx, room, arrival);
    }
    let ends = chosen_ends(tx, room)?;
    let auth = select_auth_events(tx, room, ends.state, &new)?;
    let place =
        Place { version: room.version, room_id: Some(&room.id), prev: &ends.events, depth: room.head.depth };
    let pdu = Arc::new(build(tx, &place, &mut new, &auth)?);
    for snapshot in [ends.state, room.head.state] {
        let state = SnapshotState { reader: tx, room: room.num, snapshot, instead: &[] };
        auth::check(room.version, &pdu, &state).map_err(denied)?;
        if snapshot == room.head.state {
            break;
        }
    }
    check_own_levels(room.version, &pdu)?;
    policy::check_own(tx, room, &pdu)?;
    let prev = ends.events.iter().map(|(num, _)| *num).collect();
    let arrival = Arrival {
        pdu,
        known_as: None,
        prev,
        auth,
        state_before: ends.state,
        partial_state: room.head.partial_state,
        transaction: new.transaction,
        is_new: true,
    };
    accept(tx, room, arrival)
}

/// How the event comes in that is to be sent, if it was built in an earlier attempt and signed by the room's policy server since. The
/// room may have named another one in between: then it was built several times, and only what was signed last holds.
///
/// Errors: as [`arrival_of_signed`].
fn signed_before(tx: &mut Tx, room: &RoomCtx, new: &NewEvent<'_>) -> Result<Option<Arrival>> {
    for pdu in tx.signed.clone() {
        let is_same = pdu.room_id == room.id
            && *pdu.sender == *new.sender
            && *pdu.kind == *new.kind
            && pdu.state_key.as_deref() == new.state_key
            && pdu.redacts.as_deref() == new.redacts
            && without_redacts(&pdu.content).eq(without_redacts(&new.content));
        // One event may be wanted twice, and then was built twice.
        if is_same
            && tx.event_num(&pdu.event_id)?.is_none()
            && let Some(arrival) = arrival_of_signed(tx, room, pdu, new)?
        {
            return Ok(Some(arrival));
        }
    }
    Ok(None)
}

/// What a redaction redacts stands in its content since room version 11, once it is built.
fn without_redacts(content: &JsonObject) -> impl Iterator<Item = (&String, &Value)> {
    content.iter().filter(|(name, _)| *name != "redacts")
}

/// How an event that was built before comes in: where it stood then, though the room may have gone on. Nothing if that cannot
/// be any more, or the room has another policy server now: then another one has to be taken, or built.
///
/// Errors: [`Denied::Rule`] when the room's rules refuse it by now.
fn arrival_of_signed(
    tx: &mut Tx,
    room: &RoomCtx,
    pdu: Arc<Pdu>,
    new: &NewEvent<'_>,
) -> Result<Option<Arrival>> {
    let prev = known(tx, &pdu.prev_events, |status| status == EventStatus::Accepted)?;
    // What allows an event may be known from outside of the graph, since this server has come in.
    let auth = known(tx, &pdu.auth_events, |status| status != EventStatus::Rejected)?;
    let (Some(prev), Some(auth)) = (prev, auth) else { return Ok(None) };
    if policy::lacks_signature(tx, room, &pdu)?.is_some() {
        return Ok(None);
    }
    let state_before = fork::state_after_all(tx, room, &prev)?;
    for snapshot in [state_before, room.head.state] {
        let state = SnapshotState { reader: tx, room: room.num, snapshot, instead: &[] };
        auth::check(room.version, &pdu, &state).map_err(denied)?;
    }
    Ok(Some(Arrival {
        pdu,
        known_as: None,
        partial_state: prev.iter().any(|event| event.header.partial_state),
        prev: prev.iter().map(|event| event.num).collect(),
        auth,
        state_before,
        transaction: new.transaction.clone(),
        is_new: false,
    }))
}

/// Events by their ids; nothing if one of them is not here any more, or is not as it has to be.
fn known(
    reader: &Reader,
    event_ids: &[Arc<str>],
    fits: impl Fn(EventStatus) -> bool,
) -> Result<Option<Vec<Arc<Event>>>, StorageError> {
    let mut events = Vec::with_capacity(event_ids.len());
    for event_id in event_ids {
        let Some(num) = reader.event_num(event_id)? else { return Ok(None) };
        events.push(reader.event(num)?);
    }
    Ok(events.iter().all(|event| fits(event.header.status)).then_some(events))
}

/// The forward extremities that a new event follows, and the state after them.
struct Ends {
    events: Vec<(EventNum, String)>,
    state: NodeId,
}

/// All of them, or where a room has been forked beyond measure the deepest.
fn chosen_ends(tx: &mut Tx, room: &RoomCtx) -> Result<Ends, StorageError> {
    let mut events = room.head.extremities.clone();
    if events.len() <= OWN_PREV_EVENTS_MAX {
        return Ok(Ends { events, state: room.head.state });
    }
    let mut ends: Vec<Arc<Event>> = Vec::with_capacity(events.len());
    for (num, _) in &events {
        ends.push(tx.event(*num)?);
    }
    ends.sort_by_key(|event| std::cmp::Reverse((event.header.depth, event.num)));
    ends.truncate(OWN_PREV_EVENTS_MAX);
    events.retain(|(num, _)| ends.iter().any(|event| event.num == *num));
    let state = fork::state_after_all(tx, room, &ends)?;
    Ok(Ends { events, state })
}

/// Makes a room by its create event, `new`. The room's id is random, or in versions that say so the hash of the event.
///
/// Two rooms that one user creates alike in one millisecond would then be one: the later is given a later time. Times
/// are tried at random in a window that doubles, so that many rooms at once cost few attempts each.
///
/// Errors: as [`append`].
pub(crate) fn create(
    tx: &mut Tx,
    version: &'static RoomVersion,
    mut new: NewEvent<'_>,
) -> Result<(RoomCtx, Arc<Event>)> {
    let now_ms = new.origin_server_ts;
    let mut window_ms = 1;
    let pdu = loop {
        let pdu = build(
            tx,
            &Place { version, room_id: new_room_id(tx, version).as_ref(), prev: &[], depth: 0 },
            &mut new,
            &[],
        )?;
        if RoomCtx::find(tx, &pdu.room_id)?.is_none() {
            break pdu;
        }
        window_ms *= 2;
        new.content = pdu.content;
        new.origin_server_ts = now_ms + tx.random_below(window_ms);
    };
    auth::check(version, &pdu, &NoState).map_err(denied)?;
    let mut room = RoomCtx::create(tx, &pdu.room_id, version)?;
    let arrival = Arrival {
        pdu: Arc::new(pdu),
        known_as: None,
        prev: Vec::new(),
        auth: Vec::new(),
        state_before: room.head.state,
        partial_state: false,
        transaction: new.transaction,
        is_new: true,
    };
    let event = accept(tx, &mut room, arrival)?;
    Ok((room, event))
}

/// A random room id, where the create event does not make it.
fn new_room_id(tx: &Tx, version: &RoomVersion) -> Option<Arc<str>> {
    if version.room_id_is_create_hash {
        return None;
    }
    Some(format!("!{}:{}", tx.random_text(ROOM_LOCALPART_CHARS), tx.shared.server_name).into())
}

/// What no rule asks before room version 10. Specification: "Deprecated event content schemas", "A homeserver should take
/// reasonable precautions to prevent users from sending these".
///
/// Errors: [`Invalid::Content`].
fn check_own_levels(version: &RoomVersion, pdu: &Pdu) -> Result<(), Invalid> {
    if &*pdu.kind != "m.room.power_levels" || pdu.state_key.is_none() {
        return Ok(());
    }
    PowerLevels::validate_all(version, &pdu.content).map_err(|invalid| {
        let reason = Reason::from(invalid);
        Invalid::Content { rule: reason.number(version), reason }
    })
}

fn denied(denied: auth::Denied) -> Denied {
    Denied::Rule { rule: denied.rule, reason: denied.reason }
}

/// Where an event is to stand.
struct Place<'a> {
    version: &'static RoomVersion,
    /// `None` where the event itself makes the room's id.
    room_id: Option<&'a Arc<str>>,
    /// What it follows; nothing for the first event.
    prev: &'a [(EventNum, String)],
    /// The greatest depth in the room.
    depth: u64,
}

fn select_auth_events(
    reader: &Reader,
    room: &RoomCtx,
    state: NodeId,
    new: &NewEvent<'_>,
) -> Result<Vec<Arc<Event>>> {
    let wanted = auth::auth_types(room.version, new.kind, new.sender, new.state_key, &new.content);
    let mut events = Vec::with_capacity(wanted.len());
    for (kind, state_key) in wanted {
        events.extend(reader.state_event(room.num, state, kind, state_key)?);
    }
    Ok(events)
}

fn build(tx: &Tx, place: &Place<'_>, new: &mut NewEvent<'_>, auth_events: &[Arc<Event>]) -> Result<Pdu> {
    let Place { version, room_id, prev, depth } = *place;
    // Only the versions whose events have ids of their own refer to others with hashes, for which they must be read.
    let own_ids = version.event_ids == EventIdFormat::Own;
    let mut prev_events = Vec::new();
    for (num, event_id) in prev {
        prev_events.push(match own_ids {
            true => reference(version, &*tx.event(*num)?)?,
            false => EventReference::from(Arc::<str>::from(event_id.as_str())),
        });
    }
    let builder = EventBuilder {
        room_id: room_id.cloned(),
        sender: new.sender.into(),
        kind: new.kind.into(),
        state_key: new.state_key.map(Arc::from),
        content: std::mem::take(&mut new.content),
        redacts: new.redacts.map(Arc::from),
        prev_events,
        auth_events: auth_events.iter().map(|event| reference(version, event)).collect::<Result<_>>()?,

        depth: depth.saturating_add(1),
        origin_server_ts: new.origin_server_ts,
        event_id_localpart: own_ids.then(|| tx.random_text(EVENT_LOCALPART_CHARS)),
    };
    let shared = &tx.shared;
    Ok(builder.build(version, &shared.server_name, &shared.key_pair).map_err(Invalid::Event)?)
}

fn reference(version: &RoomVersion, event: &Event) -> Result<EventReference> {
    let reference_hash = match version.event_ids {
        EventIdFormat::Own => {
            let hash = reference_hash_of_json(version, &event.json);
            Some(hash.map_err(|_| StorageError::Corrupt(format!("event {} is not JSON", event.event_id)))?)
        }
        _ => None,
    };
    Ok(EventReference { event_id: event.event_id.clone(), reference_hash })
}
