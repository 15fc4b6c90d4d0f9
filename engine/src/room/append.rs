//! The append path: a local event is built on the room's head, authorised, signed, and written with every index it is in.
//!
//! Invariant: all rows of an event are in one batch. A plain message writes no state.

use std::sync::Arc;

use super::{Event, RoomCtx, event::encode_body, members, redactions, relations, state};
use crate::{
    core::{
        auth::{self, AuthState},
        event::{EventBuilder, EventReference, JsonObject, Pdu, reference_hash_of_json},
        num::{EventNum, StateKeyId, StreamPos, TextNum},
        power_levels::PowerLevels,
        version::{EventIdFormat, RoomVersion},
    },
    engine,
    error::{Denied, Invalid, Result},
    store::{
        Positioned, Reader, StorageError, Tx, schema,
        schema::{EventHeader, EventStatus, RoomHead},
    },
    stream::Touch,
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

/// The room's current state as authorisation sees it.
struct CurrentState<'a> {
    reader: &'a Reader,
    room: &'a RoomCtx,
}

impl CurrentState<'_> {
    fn event(&self, kind: &str, state_key: &str) -> Option<Arc<Event>> {
        // The entries that authorisation asks for were read, and failures reported, when auth events were selected.
        self.room.state(self.reader, kind, state_key).ok().flatten()
    }
}

impl AuthState for CurrentState<'_> {
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.event(kind, state_key)?.pdu().ok()
    }

    fn power_levels(&self, _: &RoomVersion) -> Option<Arc<PowerLevels>> {
        self.room.power_levels(self.reader).ok().flatten()
    }
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
/// Errors: [`Denied::Rule`] when the room's rules refuse it, [`Invalid::Event`] when it is malformed or too large.
pub(crate) fn append(tx: &mut Tx, room: &mut RoomCtx, mut new: NewEvent<'_>) -> Result<Arc<Event>> {
    let auth_events = select_auth_events(tx, room, &new)?;
    let place = Place { version: room.version, room_id: Some(&room.id), head: Some(&room.head) };
    let pdu = build(tx, &place, &mut new, &auth_events)?;
    auth::check(room.version, &pdu, &CurrentState { reader: tx, room }).map_err(denied)?;
    write(tx, room, new, Arc::new(pdu), auth_events)
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
            &Place { version, room_id: new_room_id(tx, version).as_ref(), head: None },
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
    let event = write(tx, &mut room, new, Arc::new(pdu), Vec::new())?;
    Ok((room, event))
}

/// A random room id, where the create event does not make it.
fn new_room_id(tx: &Tx, version: &RoomVersion) -> Option<Arc<str>> {
    if version.room_id_is_create_hash {
        return None;
    }
    Some(format!("!{}:{}", tx.random_text(ROOM_LOCALPART_CHARS), tx.shared.server_name).into())
}

fn denied(denied: auth::Denied) -> Denied {
    Denied::Rule { rule: denied.rule, reason: denied.reason.to_string() }
}

/// Where an event is to stand.
struct Place<'a> {
    version: &'static RoomVersion,
    /// `None` where the event itself makes the room's id.
    room_id: Option<&'a Arc<str>>,
    /// `None` for the first event.
    head: Option<&'a RoomHead>,
}

fn select_auth_events(reader: &Reader, room: &RoomCtx, new: &NewEvent<'_>) -> Result<Vec<Arc<Event>>> {
    let wanted = auth::auth_types(room.version, new.kind, new.sender, new.state_key, &new.content);
    let mut events = Vec::with_capacity(wanted.len());
    for (kind, state_key) in wanted {
        events.extend(room.state(reader, kind, state_key)?);
    }
    Ok(events)
}

fn build(tx: &Tx, place: &Place<'_>, new: &mut NewEvent<'_>, auth_events: &[Arc<Event>]) -> Result<Pdu> {
    let Place { version, room_id, head } = *place;
    // Only the versions whose events have ids of their own refer to others with hashes, for which they must be read.
    let own_ids = version.event_ids == EventIdFormat::Own;
    let mut prev_events = Vec::new();
    for (num, event_id) in head.iter().flat_map(|head| &head.extremities) {
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
        depth: head.map_or(0, |head| head.depth) + 1,
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

fn write(
    tx: &mut Tx,
    room: &mut RoomCtx,
    new: NewEvent<'_>,
    pdu: Arc<Pdu>,
    auth_events: Vec<Arc<Event>>,
) -> Result<Arc<Event>> {
    let num = EventNum(engine::next(&tx.shared.counters.events));
    let kind = tx.intern_text(&pdu.kind)?;
    let state_key = pdu.state_key.as_deref().map(|key| tx.intern_text(key)).transpose()?;
    let state_before = room.head.state;
    if let Some(state_key) = state_key {
        room.head.state = state::set(tx, room.num, state_before, StateKeyId::new(kind, state_key), num)?;
    }
    let header = EventHeader {
        room: room.num,
        version: room.head.version,
        sender: tx.intern_user(&pdu.sender)?,
        kind,
        state_key,
        prev: room.head.extremities.iter().map(|(num, _)| *num).collect(),
        auth: auth_events.iter().map(|event| event.num).collect(),
        depth: pdu.depth,
        origin_server_ts: pdu.origin_server_ts,
        status: EventStatus::Accepted,
        redacted_by: None,
        state_before,
        state_after: room.head.state,
        transaction: new.transaction,
    };
    let event = Arc::new(Event::new(num, pdu.event_id.clone(), header, pdu.json.clone()));
    event.set_pdu(pdu.clone());
    let pos = write_rows(tx, room, &event);
    room.head.depth = pdu.depth;
    room.head.extremities = vec![(num, pdu.event_id.to_string())];
    if &*pdu.kind == "m.room.member" && pdu.state_key.is_some() {
        members::apply(tx, room, &event, pos)?;
    }
    relations::apply(tx, room, &event, pos)?;
    redactions::apply(tx, room, &event)?;
    tx.touch(Touch::Room(room.num));
    Ok(event)
}

fn write_rows(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>) -> StreamPos {
    let pos = tx.next_position();
    tx.put(&schema::EVENT_NUMS, &event.event_id.to_string(), &event.num);
    let header = Positioned { pos, value: event.header.clone() };
    tx.put(&schema::EVENT_HEADERS, &event.num, &header);
    tx.put(&schema::EVENT_BODIES, &event.num, &encode_body(&event.event_id, &event.json));
    tx.put(&schema::TIMELINE, &(room.num, pos), &event.num);
    tx.cache_event(event);
    tx.made_event(event.clone(), pos);
    pos
}
