//! Events of other servers: the authorisations that each goes through, and what becomes of it.
//!
//! An event is judged three times: by the events that it names as those that allow it, by the state before it, and by the
//! room's current state; in the end by the room's policy server, if it uses one. It is rejected, soft-failed or accepted
//! accordingly; each is kept, so that what follows it can be judged in its turn. Invariant: an event whose judges are not all here leaves nothing behind and is told to be
//! waiting, so that the same events can be given again with what was missing.
//! Source: server-server API, "Checks performed on receipt of a PDU", and "Rejection" there.
//! Not here: format, hashes and signatures (`core::checked`), which need no room.

mod adopt;
mod backfill;
mod complete;
mod copies;
mod enter;
mod order;
mod past;
mod withdraw;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

pub(crate) use adopt::adopt_state;
pub use adopt::{Adopted, LeftOut};
pub use backfill::{KeptPlace, KeptPlaces, PassedBy, Within};
pub(crate) use backfill::{Told, receive_backfill};
pub(crate) use complete::complete_state;
use copies::{come_again, fuller, is_of_another_room};
pub(crate) use enter::{enter, prepare};
pub use order::in_order;
pub(crate) use order::in_order_past;
pub(crate) use past::{continues_past, denied_by_present};
use serde_json::Value;

use super::{
    Event, RoomCtx,
    accept::{Arrival, accept, set_aside, set_outside},
    entrance,
    fork::{self, Side},
    gap,
    policy::{Recommendation, WantedSignature, lacks_signature},
    snapshot::{ListedState, ReadAhead, SnapshotState},
    state,
    unchecked::{self, MembersBefore},
};
use crate::{
    core::{
        auth::{self, AuthEvent, Denied},
        checked::Refused,
        event::Pdu,
        num::{EventNum, NodeId, RoomNum, StateKeyId},
    },
    error::{Missing, Result},
    store::{Reader, StorageError, Tx, schema, schema::EventStatus},
};

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the room.
    Accepted,
    /// It is allowed where it stands, but not by the room's current state: clients are not shown it, and no event of this
    /// server follows it.
    SoftFailed(Denied),
    /// The rules refuse it.
    Rejected(Denied),
    /// It was here before.
    Known,
    /// It was stored as one that stands outside of the graph.
    Stored,
    /// The rules allow it, and the room's policy server has not signed it: as if it were soft-failed. So it is with history.
    NotRecommended,
    /// It is of the room's past, though it was told as what lies between what is here and what has come, or as what is missing in a
    /// later gap, or was sent when this server had come in behind it, as what the room denies by now may have been: nothing of it is
    /// kept, for clients are to be shown it as history, where it belongs.
    Past,
    /// What it takes to judge it is not here; nothing of it is kept.
    Waiting,
    /// It cannot be judged at all; nothing of it is kept.
    Refused(Refused),
}

/// The state before an event as another server tells it.
#[derive(Clone, Debug)]
pub struct GivenState {
    /// The event.
    pub event_id: Arc<str>,
    /// The ids of the state events before it.
    pub state: Vec<Arc<str>>,
}

/// What is known of an event that comes live, beside the event.
pub(crate) struct Standing<'a> {
    /// The state before it as another server tells it, for where events before it are missing.
    pub given: Option<&'a GivenState>,
    /// Whether that is the word of others than its sender's server.
    pub is_hearsay: bool,
    /// The policy server's, as far as it was asked.
    pub recommendation: Recommendation,
}

/// Ids looked for at once.
const READ_AT_ONCE: usize = 1_000;

/// The events among which others are looked for first, so that what comes together is not searched in the store one by one.
#[derive(Default)]
pub(crate) struct AtHand {
    events: HashMap<Arc<str>, Arc<Event>>,
    /// Ids that were looked for all at once, and of which there was no event.
    absent: HashSet<Arc<str>>,
}

impl AtHand {
    fn find(&mut self, reader: &Reader, event_id: &Arc<str>) -> Result<Option<Arc<Event>>, StorageError> {
        if let Some(event) = self.events.get(event_id) {
            return Ok(Some(event.clone()));
        }
        if self.absent.contains(event_id) {
            return Ok(None);
        }
        let Some(num) = reader.event_num(event_id)? else { return Ok(None) };
        let event = reader.event(num)?;
        self.events.insert(event_id.clone(), event.clone());
        Ok(Some(event))
    }

    fn put(&mut self, event: &Arc<Event>) {
        self.absent.remove(&event.event_id);
        self.events.insert(event.event_id.clone(), event.clone());
    }

    /// Looks which of many events are not there, with few reads.
    pub fn look_for<'a>(
        &mut self,
        reader: &Reader,
        event_ids: impl Iterator<Item = &'a Arc<str>>,
    ) -> Result<(), StorageError> {
        let unknown: Vec<&Arc<str>> = event_ids.filter(|id| !self.events.contains_key(*id)).collect();
        let found = reader.get_many(&schema::EVENT_NUMS, unknown.iter().map(ToString::to_string))?;
        let absent = unknown.into_iter().zip(found).filter(|(_, num)| num.is_none());
        self.absent.extend(absent.map(|(event_id, _)| event_id.clone()));
        Ok(())
    }
}

/// The events that allow an event, and the room's create event, which room version 12 does not name.
struct Allowing {
    auth: Vec<Arc<Event>>,
    create: Option<Arc<Event>>,
}

impl Allowing {
    fn state(&self) -> ListedState<'_> {
        ListedState { auth_events: &self.auth, create: self.create.as_ref() }
    }
}

/// The events that allow `pdu`; nothing if some of them are not here, which are then told as missing.
fn allowing(
    reader: &Reader,
    room: &RoomCtx,
    pdu: &Pdu,
    at_hand: &mut AtHand,
    missing: &mut Missing,
) -> Result<Option<Allowing>> {
    let mut auth = Vec::with_capacity(pdu.auth_events.len());
    let mut create = None;
    let mut is_whole = true;
    for event_id in &pdu.auth_events {
        match at_hand.find(reader, event_id)? {
            Some(event) => auth.push(event),
            None => {
                missing.auth_events.push(event_id.clone());
                is_whole = false;
            }
        }
    }
    if room.version.room_id_is_create_hash && &*pdu.kind != "m.room.create" {
        let create_id: Arc<str> = format!("${}", pdu.room_id.get(1..).unwrap_or_default()).into();
        create = at_hand.find(reader, &create_id)?;
        if create.is_none() {
            missing.auth_events.push(create_id);
            is_whole = false;
        }
    }
    Ok(is_whole.then_some(Allowing { auth, create }))
}

/// Whether some of what an event refers to is known to be of another room, whose state is none of this one's. By rule 2.5 an
/// event would be rejected for that, and kept with what it refers to: no room is to refer to another.
fn are_of_another_room<'a>(
    reader: &Reader,
    room: &RoomCtx,
    event_ids: impl IntoIterator<Item = &'a Arc<str>>,
    at_hand: &mut AtHand,
) -> Result<bool, StorageError> {
    for event_id in event_ids {
        if at_hand.find(reader, event_id)?.is_some_and(|event| event.header.room != room.num) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first authorisation: by the events that the event itself names.
fn judge_by_auth_events(
    room: &RoomCtx,
    pdu: &Pdu,
    allowing: &Allowing,
) -> Result<Result<(), Denied>, StorageError> {
    let mut pdus = Vec::with_capacity(allowing.auth.len());
    for event in &allowing.auth {
        pdus.push((event.pdu()?, event.header.status == EventStatus::Rejected));
    }
    let listed: Vec<AuthEvent<'_>> =
        pdus.iter().map(|(pdu, rejected)| AuthEvent { pdu, rejected: *rejected }).collect();
    let verdict = auth::check_auth_events(room.version, pdu, &listed)
        .and_then(|()| auth::check(room.version, pdu, &allowing.state()));
    Ok(verdict)
}

/// The second and third authorisation: by a state of the room. `instead` are the auth events, where the state lacks members.
fn judge_by_state(
    reader: &Reader,
    room: &RoomCtx,
    pdu: &Pdu,
    snapshot: NodeId,
    instead: &[Arc<Event>],
) -> Result<Result<(), Denied>, StorageError> {
    // What cannot be read is an error, not an entry that is not there; what was read is not looked for again.
    let wanted =
        auth::auth_types(room.version, &pdu.kind, &pdu.sender, pdu.state_key.as_deref(), &pdu.content);
    let mut read = Vec::with_capacity(wanted.len());
    for (kind, state_key) in wanted {
        read.push((kind, state_key, reader.state_event(room.num, snapshot, kind, state_key)?));
    }
    let state = ReadAhead { read, state: SnapshotState { reader, room: room.num, snapshot, instead } };
    Ok(auth::check(room.version, pdu, &state))
}

/// The third authorisation: by the room's current state and the state before the event together, as other servers do it.
/// Who came to be allowed in a gap is allowed by that; a ban on the one side still stands against a join on the other.
fn judge_by_current_state(
    tx: &mut Tx,
    room: &RoomCtx,
    pdu: &Pdu,
    before: NodeId,
) -> Result<Result<(), Denied>, StorageError> {
    let ends = fork::states_of_extremities(tx, room)?;
    let current = fork::merged_sides(tx, room, ends.into_iter().chain([Side::whole(before)]))?;
    judge_by_state(tx, room, pdu, current, &[])
}

/// Whether it would create a room that is here already. The rules about create events look at nothing but the event, and
/// would let the server of a room's creator put another one in the place of the first.
fn is_second_create(reader: &Reader, room: &RoomCtx, pdu: &Pdu) -> Result<bool, StorageError> {
    if &*pdu.kind != "m.room.create" {
        return Ok(false);
    }
    let first = reader.state_event(room.num, room.head.state, "m.room.create", "")?;
    Ok(first.is_some_and(|first| first.event_id != pdu.event_id))
}

/// Whether it creates a room of another version than this one is taken to be of. That is what another server said before it told
/// anything of the room, and by which everything is read.
fn is_of_other_version(room: &RoomCtx, pdu: &Pdu) -> bool {
    /// Specification: `m.room.create`, `room_version`, "Defaults to "1" if the key does not exist".
    const DEFAULT: &str = "1";
    &*pdu.kind == "m.room.create"
        && pdu.content.get("room_version").map_or(Some(DEFAULT), Value::as_str) != Some(room.version.id)
}

/// Why an event cannot be one of the room's graph, whatever its rules say.
fn unfit(
    reader: &Reader,
    room: &RoomCtx,
    pdu: &Pdu,
    at_hand: &mut AtHand,
) -> Result<Option<Refused>, StorageError> {
    if is_second_create(reader, room, pdu)? {
        return Ok(Some(Refused::SecondCreate));
    }
    let named = pdu.prev_events.iter().chain(&pdu.auth_events);
    Ok(are_of_another_room(reader, room, named, at_hand)?.then_some(Refused::OtherRoom))
}

/// Takes in an event that comes live.
pub(crate) fn receive(
    tx: &mut Tx,
    room: &mut RoomCtx,
    pdu: &Arc<Pdu>,
    Standing { given, is_hearsay, recommendation }: Standing<'_>,
    at_hand: &mut AtHand,
    missing: &mut Missing,
) -> Result<Outcome> {
    let known = at_hand.find(tx, &pdu.event_id)?;
    if is_of_another_room(room, pdu, known.as_ref()) {
        return Ok(Outcome::Refused(Refused::OtherRoom));
    }
    if let Some(known) = known.as_ref().filter(|event| event.header.is_in_graph()) {
        return come_again(tx, room, known, pdu, at_hand);
    }
    let pdu = &fuller(known.as_ref(), pdu)?;
    if let Some(refused) = unfit(tx, room, pdu, at_hand)? {
        return Ok(Outcome::Refused(refused));
    }
    let Some(allowing) = allowing(tx, room, pdu, at_hand, missing)? else {
        // Where events before it are missing, what allows it is among them as a rule.
        followed(tx, room, pdu, given.is_some(), at_hand, missing)?;
        return Ok(Outcome::Waiting);
    };
    let Some(before) = state_before(tx, room, pdu, given, at_hand, missing)? else {
        return Ok(Outcome::Waiting);
    };
    let by_auth_events = judge_by_auth_events(room, pdu, &allowing)?;
    let (allows_itself, is_told) = (by_auth_events.is_ok(), before.is_told);
    let instead = if before.partial { allowing.auth.clone() } else { Vec::new() };
    let was_rejected = known.as_ref().is_some_and(|event| event.header.status == EventStatus::Rejected);
    let mut arrival = Arrival {
        pdu: pdu.clone(),
        known_as: known.map(|event| event.num),
        prev: before.prev,
        auth: allowing.auth,
        state_before: before.snapshot,
        partial_state: before.partial,
        transaction: None,
        is_new: false,
    };
    let mut verdict = match by_auth_events {
        Ok(()) => judge_by_state(tx, room, pdu, before.snapshot, &instead)?,
        denied => denied,
    };
    // Whoever tells a state without the sender in it would else shut an honest event out for good.
    if verdict.is_err() && allows_itself && is_told && is_hearsay {
        missing.other_state.push(pdu.event_id.clone());
        return Ok(Outcome::Waiting);
    }
    let mut stands_on_adopted = false;
    if verdict.is_err() && allows_itself {
        match unchecked::members_before(tx, room, &arrival, is_told)? {
            MembersBefore::AsTold => {}
            // They may well be in the room: what tells of that cannot be checked yet.
            MembersBefore::Unchecked => return Ok(Outcome::Waiting),
            MembersBefore::Adopted(snapshot) => {
                (arrival.state_before, stands_on_adopted) = (snapshot, true);
                verdict = judge_by_state(tx, room, pdu, snapshot, &instead)?;
            }
        }
    }
    let outcome = match verdict {
        Err(denied) => Outcome::Rejected(denied),
        // It gets its place, for what follows it; what was refused stays refused.
        Ok(()) if was_rejected => Outcome::Known,
        Ok(()) => {
            let outcome = judge_by_room(tx, room, &arrival, recommendation, missing)?;
            unless_past(tx, room, pdu, outcome)?
        }
    };
    let event = match placed_as(&outcome) {
        None => return Ok(outcome),
        Some(EventStatus::Accepted) => accept(tx, room, arrival)?,
        Some(status) => set_aside(tx, room, arrival, status, None)?,
    };
    unchecked::note_adopted(tx, &event, stands_on_adopted);
    at_hand.put(&event);
    Ok(outcome)
}

/// As what an event is kept that was judged; nothing if it is not.
fn placed_as(outcome: &Outcome) -> Option<EventStatus> {
    match outcome {
        Outcome::Accepted => Some(EventStatus::Accepted),
        Outcome::SoftFailed(_) | Outcome::NotRecommended => Some(EventStatus::SoftFailed),
        Outcome::Rejected(_) | Outcome::Known => Some(EventStatus::Rejected),
        _ => None,
    }
}

/// What becomes of an event that is allowed where it stands: by the room's current state, and by its policy server.
fn judge_by_room(
    tx: &mut Tx,
    room: &RoomCtx,
    arrival: &Arrival,
    recommendation: Recommendation,
    missing: &mut Missing,
) -> Result<Outcome> {
    let pdu = &arrival.pdu;
    // A state that lacks members says nothing about who is no longer in the room.
    let is_partial = room.head.partial_state || arrival.partial_state;
    if arrival.state_before != room.head.state
        && !is_partial
        && let Err(denied) = judge_by_current_state(tx, room, pdu, arrival.state_before)?
    {
        return Ok(Outcome::SoftFailed(denied));
    }
    if recommendation != Recommendation::NotNeeded
        && let Some(policy) = lacks_signature(tx, room, pdu)?
    {
        if recommendation == Recommendation::Missing {
            return Ok(Outcome::NotRecommended);
        }
        missing.signatures.push(WantedSignature { event_id: pdu.event_id.clone(), policy });
        return Ok(Outcome::Waiting);
    }
    Ok(Outcome::Accepted)
}

/// What becomes of it if it may be history, which the current state does not concern: what that denies is then shown where it belongs,
/// once something leads to it. The policy server is asked about it again then.
fn unless_past(reader: &Reader, room: &RoomCtx, pdu: &Pdu, outcome: Outcome) -> Result<Outcome> {
    let is_denied = placed_as(&outcome) == Some(EventStatus::SoftFailed);
    let is_past = is_denied && entrance::may_be_missing(reader, room, pdu)?;
    Ok(if is_past { Outcome::Past } else { outcome })
}

/// Keeps an event outside of the graph: part of an auth chain, or of a state that was given.
pub(crate) fn receive_outlier(
    tx: &mut Tx,
    room: &RoomCtx,
    pdu: &Arc<Pdu>,
    at_hand: &mut AtHand,
    missing: &mut Missing,
) -> Result<Outcome> {
    let known = at_hand.find(tx, &pdu.event_id)?;
    if is_of_another_room(room, pdu, known.as_ref()) {
        return Ok(Outcome::Refused(Refused::OtherRoom));
    }
    if let Some(known) = known {
        return come_again(tx, room, &known, pdu, at_hand);
    }
    if is_second_create(tx, room, pdu)? {
        return Ok(Outcome::Refused(Refused::SecondCreate));
    }
    if is_of_other_version(room, pdu) {
        return Ok(Outcome::Refused(Refused::OtherVersion));
    }
    // What it follows is not looked at.
    if are_of_another_room(tx, room, &pdu.auth_events, at_hand)? {
        return Ok(Outcome::Refused(Refused::OtherRoom));
    }
    let Some(allowing) = allowing(tx, room, pdu, at_hand, missing)? else { return Ok(Outcome::Waiting) };
    let verdict = judge_by_auth_events(room, pdu, &allowing)?;
    let arrival = Arrival {
        pdu: pdu.clone(),
        known_as: None,
        prev: Vec::new(),
        auth: allowing.auth,
        state_before: NodeId(0),
        partial_state: false,
        transaction: None,
        is_new: false,
    };
    let status = if verdict.is_ok() { EventStatus::Outlier } else { EventStatus::Rejected };
    at_hand.put(&set_outside(tx, room, arrival, status)?);
    Ok(verdict.map_or_else(Outcome::Rejected, |()| Outcome::Stored))
}

/// The room's state before an event.
struct Before {
    /// What it follows, as far as that is here.
    prev: Vec<EventNum>,
    snapshot: NodeId,
    partial: bool,
    /// Whether another server's word is part of it.
    is_told: bool,
}

/// What an event follows, as far as that is part of the graph here, each once.
struct Followed {
    events: Vec<Arc<Event>>,
    /// Whether that is all of it.
    is_whole: bool,
}

/// What `pdu` follows. Unless a state is given for it, the rest is told as missing, with the state that would do instead; what is
/// missing in a gap already is history, and only the state is.
fn followed(
    reader: &Reader,
    room: &RoomCtx,
    pdu: &Pdu,
    is_state_given: bool,
    at_hand: &mut AtHand,
    missing: &mut Missing,
) -> Result<Followed, StorageError> {
    let mut events: Vec<Arc<Event>> = Vec::with_capacity(pdu.prev_events.len());
    let mut unknown = Vec::new();
    for event_id in &pdu.prev_events {
        match at_hand.find(reader, event_id)? {
            Some(event) if event.header.is_in_graph() => {
                if events.iter().all(|known| known.num != event.num) {
                    events.push(event);
                }
            }
            _ => unknown.push(event_id.clone()),
        }
    }
    let is_whole = unknown.is_empty();
    if !is_whole && !is_state_given {
        missing.prev_events.extend(gap::in_no_gap(reader, room.num, unknown)?);
        missing.state.push(pdu.event_id.clone());
    }
    Ok(Followed { events, is_whole })
}

/// The state before `pdu`: what resolution makes of the states after the events that it follows and, where some of those
/// are missing, of the given one. Nothing if it cannot be told; what is missing is told then.
fn state_before(
    tx: &mut Tx,
    room: &RoomCtx,
    pdu: &Pdu,
    given: Option<&GivenState>,
    at_hand: &mut AtHand,
    missing: &mut Missing,
) -> Result<Option<Before>> {
    let Followed { events: prev, is_whole } = followed(tx, room, pdu, given.is_some(), at_hand, missing)?;
    let partial = prev.iter().any(|event| event.header.partial_state);
    let given = given.filter(|_| !is_whole);
    let snapshot = match given {
        Some(given) => {
            let Some(entries) = given_entries(tx, room, &given.state, at_hand, missing)? else {
                return Ok(None);
            };
            let given = state::build(tx, room.num, entries)?;
            let known = prev.iter().map(|event| Side::after(event));
            fork::merged_sides(tx, room, known.chain([Side::whole(given)]))?
        }
        None if is_whole => fork::state_after_all(tx, room, &prev)?,
        None => return Ok(None),
    };
    let is_told = given.is_some();
    Ok(Some(Before { prev: prev.iter().map(|event| event.num).collect(), snapshot, partial, is_told }))
}

/// The entries of a state that is given by the ids of its events; what is not a state event of this room, or was rejected,
/// is left out. Nothing if some of them are not here, which are then told as missing.
fn given_entries(
    reader: &Reader,
    room: &RoomCtx,
    event_ids: &[Arc<str>],
    at_hand: &AtHand,
    missing: &mut Missing,
) -> Result<Option<Vec<(StateKeyId, EventNum)>>> {
    let mut nums = Vec::with_capacity(event_ids.len());
    let mut is_whole = true;
    for event_ids in event_ids.chunks(READ_AT_ONCE) {
        let absent = event_ids.iter().filter(|event_id| !at_hand.events.contains_key(*event_id));
        let read = reader.get_many(&schema::EVENT_NUMS, absent.map(ToString::to_string))?;
        let mut read = read.into_iter();
        for event_id in event_ids {
            let known = at_hand.events.get(event_id).map(|event| event.num);
            match known.or_else(|| read.next().flatten()) {
                Some(num) => nums.push(num),
                None => {
                    missing.auth_events.push(event_id.clone());
                    is_whole = false;
                }
            }
        }
    }
    if !is_whole {
        return Ok(None);
    }
    // As they were stored, which is how they lie together.
    nums.sort_unstable();
    let mut entries = Vec::with_capacity(nums.len());
    reader.each_header(&nums, |num, header| {
        if let Some(state_key) = header.state_key
            && header.room == room.num
            && header.status != EventStatus::Rejected
        {
            entries.push((StateKeyId::new(header.kind, state_key), num));
        }
    })?;
    Ok(Some(entries))
}

/// The events among `event_ids` that are part of the room's graph here, each once.
fn known_in_graph(
    reader: &Reader,
    room: RoomNum,
    event_ids: &[Arc<str>],
) -> Result<Vec<Arc<Event>>, StorageError> {
    let mut known: Vec<Arc<Event>> = Vec::with_capacity(event_ids.len());
    for event_id in event_ids {
        if let Some(event) = gap::in_graph(reader, room, event_id)?
            && known.iter().all(|other| other.num != event.num)
        {
            known.push(event);
        }
    }
    Ok(known)
}
