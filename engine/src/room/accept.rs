//! Taking an event into a room: its rows, the forward extremities, the current state and every index over them.
//!
//! Invariant: all rows of an event are in one batch. A message at the head writes no state and reads none; where the
//! graph is forked, the current state is what resolution makes of the states after the forward extremities.
//! Not here: whether the event may come in (`append` for local ones, `receive` for those of other servers).

use std::sync::Arc;

use super::{
    Event, RoomCtx, citations, entrance, event::encode_body, fork, gap, members, outgoing::Audience,
    redactions, relations, state,
};
use crate::{
    core::{
        event::Pdu,
        num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos, TextNum},
    },
    engine,
    error::Result,
    store::{
        Positioned, StorageError, Tx, schema,
        schema::{EventHeader, EventStatus},
    },
    stream::Touch,
};

/// An event that is authorised, and where it stands.
pub(super) struct Arrival {
    pub pdu: Arc<Pdu>,
    /// Its number, if it is known already as an outlier.
    pub known_as: Option<EventNum>,
    /// The events that it follows, as far as they are here.
    pub prev: Vec<EventNum>,
    /// The events that allow it.
    pub auth: Vec<Arc<Event>>,
    /// The room's state before it.
    pub state_before: NodeId,
    /// Whether that lacks members.
    pub partial_state: bool,
    /// The device and transaction of a local client.
    pub transaction: Option<(TextNum, String)>,
    /// Whether it has been made in this very transaction, so that nothing that came before can name it.
    pub is_new: bool,
}

/// Writes an event that came live and was accepted, and moves the room's head.
pub(super) fn accept(tx: &mut Tx, room: &mut RoomCtx, arrival: Arrival) -> Result<Arc<Event>> {
    let Enrolled { num, key, redacted_by } = enrol(tx, room.num, &arrival)?;
    let state_after = match key {
        Some(key) => state::set(tx, room.num, arrival.state_before, key, num)?,
        None => arrival.state_before,
    };
    let missing = gap::missing_prev_events(tx, room, num, &arrival.prev, &arrival.pdu)?;
    // What another gap is there for will be told before the event behind that one.
    let missing = gap::noted_nowhere(tx, room.num, missing)?;
    // Its place behind a gap is taken after the positions that are kept free for the gap.
    let first_free = gap::keep_free(tx, room.num, &missing)?;
    let pos = tx.next_position();
    let audience = Audience::before(tx, room, &arrival.pdu)?;
    let Advance { changes, at_head } = advance(tx, room, &arrival, num, key, state_after)?;
    room.head.depth = room.head.depth.max(arrival.pdu.depth);
    let place = Place {
        key,
        status: EventStatus::Accepted,
        state_after,
        room_state: room.head.state,
        after_gap: first_free.is_some(),
        redacted_by,
        is_filled_in: false,
    };
    let is_new = arrival.is_new;
    let event = write(tx, room, arrival, num, place, Some(pos))?;
    if let Some(first_free) = first_free {
        gap::open(tx, room.num, pos, first_free, &missing)?;
    }
    if !at_head {
        gap::arrived(tx, &event)?;
    }
    if event.header.partial_state {
        tx.put(&schema::PARTIAL_STATES, &(room.num, pos), &num);
    }
    follow_state(tx, room, &event, pos, &changes)?;
    index(tx, room, &event, pos)?;
    if !is_new {
        apply_early(tx, room, &event, redacted_by)?;
    }
    audience.tell(tx, room, &event, pos)?;
    tx.touch(Touch::Room(room.num));
    Ok(event)
}

/// Where an event of the past stands.
#[derive(Clone, Copy)]
pub(super) struct Past {
    /// The gap that it is in: before the event at this position.
    pub gap: StreamPos,
    /// Its own position, one of the gap's.
    pub pos: StreamPos,
    /// Whether what leads to it is missing as well: the gap goes on above it, and what is missing before it is in another,
    /// of its own.
    pub is_within: bool,
}

/// Writes an event of the room's past into a gap.
pub(super) fn fill_in(tx: &mut Tx, room: &mut RoomCtx, arrival: Arrival, past: Past) -> Result<Arc<Event>> {
    let Past { gap, pos, is_within } = past;
    let Enrolled { num, key, redacted_by } = enrol(tx, room.num, &arrival)?;
    let state_after = match key {
        Some(key) => state::set(tx, room.num, arrival.state_before, key, num)?,
        None => arrival.state_before,
    };
    let mut missing = gap::missing_prev_events(tx, room, num, &arrival.prev, &arrival.pdu)?;
    if is_within {
        missing = gap::noted_nowhere(tx, room.num, missing)?;
    }
    let followed = fork::followed_extremities(tx, room, &arrival.prev)?;
    let after_gap = is_within && !missing.is_empty();
    let status = EventStatus::Accepted;
    let place = Place {
        key,
        status,
        state_after,
        room_state: state_after,
        after_gap,
        redacted_by,
        is_filled_in: true,
    };
    let event = write(tx, room, arrival, num, place, Some(pos))?;
    if event.header.partial_state {
        tx.put(&schema::PARTIAL_STATES, &(room.num, pos), &num);
    }
    if after_gap {
        gap::open(tx, room.num, pos, StreamPos(pos.0.saturating_sub(1)), &missing)?;
    } else if !is_within {
        gap::taken(tx, room.num, gap, pos)?;
        note_missing_before(tx, &event, gap, &missing)?;
    }
    gap::arrived(tx, &event)?;
    // What ended before the gap is followed by something after all.
    leave_behind(tx, room, followed)?;
    index(tx, room, &event, pos)?;
    apply_early(tx, room, &event, redacted_by)?;
    tx.touch(Touch::History(room.num));
    Ok(event)
}

/// Lets ends of the room be ends no more, which something in a gap follows, if nothing of the current state rests on them alone.
///
/// The state behind a gap is the word of who told it. If what was here counted no more as soon as what lies between comes, whoever holds that
/// back would make of the room's state what they like.
///
/// An end whose state lacks members stays: what it is when they are known counts, and nobody can tell yet what that is.
fn leave_behind(tx: &mut Tx, room: &mut RoomCtx, mut followed: Vec<EventNum>) -> Result<()> {
    let lack_members = fork::lacking_members(tx, &followed)?;
    followed.retain(|num| !lack_members.contains(num));
    if followed.is_empty() {
        return Ok(());
    }
    let ends = room.head.extremities.clone();
    room.head.extremities.retain(|(extremity, _)| !followed.contains(extremity));
    match state_without(tx, room)? {
        Some(others) => (room.head.state, room.head.partial_state) = others,
        None => room.head.extremities = ends,
    }
    Ok(())
}

/// What resolution makes of the room's ends, of which some were left out, and whether that lacks members; nothing if the current state is
/// another.
fn state_without(tx: &mut Tx, room: &RoomCtx) -> Result<Option<(NodeId, bool)>> {
    let ends = fork::states_of_extremities(tx, room)?;
    let lack_members = fork::lack_members(&ends);
    let state = fork::merged_sides(tx, room, ends)?;
    let is_same = tx.state_difference(room.num, room.head.state, state)?.is_empty();
    Ok(is_same.then_some((state, lack_members)))
}

/// Resolves the current state anew from the forward extremities, and tells of what changed.
pub(super) fn settle(tx: &mut Tx, room: &mut RoomCtx, cause: &Arc<Event>) -> Result<()> {
    let before = room.head.state;
    let ends = fork::states_of_extremities(tx, room)?;
    room.head.partial_state = fork::lack_members(&ends);
    room.head.state = fork::merged_sides(tx, room, ends)?;
    let changes = tx.state_difference(room.num, before, room.head.state)?;
    if !changes.is_empty() {
        room.head.forked = true;
        let pos = tx.next_position();
        tx.put(&schema::STATE_CHANGES, &(room.num, pos), &room.head.state);
        follow_state(tx, room, cause, pos, &changes)?;
        tx.touch(Touch::Room(room.num));
    }
    Ok(())
}

/// Writes an event outside of the graph, rejected or not.
pub(super) fn set_outside(
    tx: &mut Tx,
    room: &RoomCtx,
    arrival: Arrival,
    status: EventStatus,
) -> Result<Arc<Event>> {
    let Enrolled { num, key, redacted_by } = enrol(tx, room.num, &arrival)?;
    let states = [arrival.state_before, NodeId::default()];
    let place = Place::aside((key, redacted_by), status, states);
    let event = write(tx, room, arrival, num, place, None)?;
    // Of a room that is about to be entered nothing waits, and many such events come.
    match room.head.extremities.is_empty() {
        true => Ok(event),
        false => redactions::apply_waiting(tx, room, event),
    }
}

/// Writes an event of the graph that clients are not shown: soft-failed or rejected. Of one of the `past` what is missing before it is
/// still part of the gap; unless it is somewhere within, and leads to something that is less deep than all that is missing.
pub(super) fn set_aside(
    tx: &mut Tx,
    room: &RoomCtx,
    arrival: Arrival,
    status: EventStatus,
    past: Option<Past>,
) -> Result<Arc<Event>> {
    let Enrolled { num, key, redacted_by } = enrol(tx, room.num, &arrival)?;
    let state_after = match key {
        // Events of other servers may follow it, and for them it counts.
        Some(key) if status == EventStatus::SoftFailed => {
            state::set(tx, room.num, arrival.state_before, key, num)?
        }
        _ => arrival.state_before,
    };
    let aside = Place::aside((key, redacted_by), status, [state_after, room.head.state]);
    let place = Place { is_filled_in: past.is_some(), ..aside };
    let gap = match past {
        Some(Past { gap, is_within, .. }) => (!is_within).then_some(gap),
        // What follows it may have come before, and a gap be open there.
        None => gap::of(tx, room.num, &arrival.pdu.event_id)?,
    };
    let missing = gap.map(|_| gap::missing_prev_events(tx, room, num, &arrival.prev, &arrival.pdu));
    let missing = missing.transpose()?.unwrap_or_default();
    let event = write(tx, room, arrival, num, place, None)?;
    match gap {
        Some(gap) if past.is_some() => note_missing_before(tx, &event, gap, &missing)?,
        Some(gap) => gap::note_missing_of_past(tx, room.num, gap, &missing)?,
        None => {}
    }
    gap::arrived(tx, &event)?;
    redactions::take_effect(tx, room, &event)?;
    redactions::apply_waiting(tx, room, event)
}

/// Notes what is missing before an event of the past, which is itself in, or behind, `gap`.
fn note_missing_before(
    tx: &mut Tx,
    event: &Event,
    gap: StreamPos,
    missing: &[gap::MissingPrev],
) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let gap = entrance::gap_before(tx, event.header.room, event.header.depth, gap)?;
    Ok(gap::note_missing_of_past(tx, event.header.room, gap, missing)?)
}

/// Takes an event that was set aside into the timeline after all, with the states that `header` says. Nobody was told of it, so
/// that it comes behind all that is there. The forward extremities and the current state are for the caller.
pub(super) fn reinstate(
    tx: &mut Tx,
    room: &mut RoomCtx,
    event: &Arc<Event>,
    header: EventHeader,
) -> Result<()> {
    let pdu = event.pdu()?;
    let missing = gap::missing_prev_events(tx, room, event.num, &header.prev, &pdu)?;
    let missing = gap::noted_nowhere(tx, room.num, missing)?;
    let first_free = gap::keep_free(tx, room.num, &missing)?;
    let pos = tx.next_position();
    room.head.depth = room.head.depth.max(pdu.depth);
    let (status, after_gap) = (EventStatus::Accepted, first_free.is_some());
    let header =
        EventHeader { status, room_state: room.head.state, after_gap, is_filled_in: false, ..header };
    let anew = Arc::new(Event::new(event.num, event.event_id.clone(), header, event.json.clone()));
    anew.set_pdu(pdu);
    write_rows(tx, room, &anew, Some(pos), true);
    if let Some(first_free) = first_free {
        gap::open(tx, room.num, pos, first_free, &missing)?;
    }
    index(tx, room, &anew, pos)?;
    apply_early(tx, room, &anew, None)?;
    tx.touch(Touch::Room(room.num));
    Ok(())
}

/// Which entry of the state an event is, what became of it, and the states around it.
struct Place {
    key: Option<StateKeyId>,
    status: EventStatus,
    state_after: NodeId,
    room_state: NodeId,
    after_gap: bool,
    redacted_by: Option<EventNum>,
    is_filled_in: bool,
}

impl Place {
    /// That of what clients are not shown: what was enrolled, and the states after it and of the room.
    fn aside(
        (key, redacted_by): (Option<StateKeyId>, Option<EventNum>),
        status: EventStatus,
        [state_after, room_state]: [NodeId; 2],
    ) -> Self {
        Self { key, status, state_after, room_state, after_gap: false, redacted_by, is_filled_in: false }
    }
}

/// What is known of an event before it is written.
struct Enrolled {
    num: EventNum,
    /// Which entry of the state it is.
    key: Option<StateKeyId>,
    /// What redacted it while it was known from outside of the graph. It has come whole now, from who may not have heard of that.
    redacted_by: Option<EventNum>,
}

/// Gives the event its number. A state event's citations are written, because resolution may
/// come to go up from its auth events before its other rows are.
fn enrol(tx: &mut Tx, room: RoomNum, arrival: &Arrival) -> Result<Enrolled> {
    let num = arrival.known_as.unwrap_or_else(|| EventNum(engine::next(&tx.shared.counters.events)));
    let redacted_by = match arrival.known_as {
        Some(known) => tx.event(known)?.header.redacted_by,
        None => None,
    };
    let Some(state_key) = arrival.pdu.state_key.as_deref() else {
        return Ok(Enrolled { num, key: None, redacted_by });
    };
    let kind = tx.intern_text(&arrival.pdu.kind)?;
    let key = StateKeyId::new(kind, tx.intern_text(state_key)?);
    citations::write(tx, room, &arrival.auth, num, key)?;
    Ok(Enrolled { num, key: Some(key), redacted_by })
}

/// How the head moved.
struct Advance {
    /// What changed in the current state.
    changes: Vec<state::StateChange>,
    /// Whether the event followed all that nothing followed.
    at_head: bool,
}

/// Moves the forward extremities and the current state ahead.
fn advance(
    tx: &mut Tx,
    room: &mut RoomCtx,
    arrival: &Arrival,
    num: EventNum,
    key: Option<StateKeyId>,
    state_after: NodeId,
) -> Result<Advance> {
    let before = room.head.state;
    let event_id = arrival.pdu.event_id.to_string();
    // An event that others were known to follow before it came closes a gap. The states of those that are not shown are the word of who
    // told them: what follows these need not know of it.
    let noted = match arrival.is_new {
        true => None,
        false => gap::follower(tx, room.num, &event_id)?,
    };
    let mut is_followed = noted.as_ref().is_some_and(|by| by.header.status == EventStatus::Accepted);
    let followed = fork::followed_extremities(tx, room, &arrival.prev)?;
    let all_followed = followed.len() == room.head.extremities.len();
    room.head.extremities.retain(|(extremity, _)| !followed.contains(extremity));
    let at_head = all_followed && noted.is_none() && arrival.state_before == before;
    if at_head {
        room.head.extremities.push((num, event_id));
        room.head.state = state_after;
        room.head.partial_state = arrival.partial_state;
        let change = key.map(|key| state::StateChange { key, before: None, after: Some(num) });
        return Ok(Advance { changes: change.into_iter().collect(), at_head });
    }
    room.head.forked = true;
    note_provisionally(tx, room, arrival, num, key, state_after)?;
    let others = fork::states_of_extremities(tx, room)?;
    let others_lack = fork::lack_members(&others);
    let own = fork::Side { snapshot: state_after, lacks_members: arrival.partial_state };
    room.head.state = fork::merged_sides(tx, room, others.into_iter().chain([own]))?;
    if is_followed {
        // As in `leave_behind`: the state behind the gap is the word of who told it, which may not have had this one in it.
        is_followed = !arrival.partial_state && state_without(tx, room)?.is_some();
    }
    if !is_followed {
        room.head.extremities.push((num, event_id));
    }
    room.head.partial_state = others_lack || (!is_followed && arrival.partial_state);
    Ok(Advance { changes: tx.state_difference(room.num, before, room.head.state)?, at_head })
}

/// Writes an event that resolution may come to judge, if not yet with all that its header says.
fn note_provisionally(
    tx: &mut Tx,
    room: &RoomCtx,
    arrival: &Arrival,
    num: EventNum,
    key: Option<StateKeyId>,
    state_after: NodeId,
) -> Result<()> {
    let place = Place {
        key,
        status: EventStatus::Accepted,
        state_after,
        room_state: state_after,
        after_gap: false,
        redacted_by: None,
        is_filled_in: false,
    };
    let provisional = assemble(tx, room, arrival, num, place)?;
    tx.write_event(&Arc::new(provisional), false);
    Ok(())
}

/// Brings the rows of members into agreement with what changed in the current state at `pos`, the place of `event`.
pub(super) fn follow_state(
    tx: &mut Tx,
    room: &mut RoomCtx,
    event: &Arc<Event>,
    pos: StreamPos,
    changes: &[state::StateChange],
) -> Result<()> {
    follow_members(tx, room, Some((event, pos)), changes)
}

/// The same of what changed by no event that comes now.
pub(super) fn follow_changes(tx: &mut Tx, room: &mut RoomCtx, changes: &[state::StateChange]) -> Result<()> {
    follow_members(tx, room, None, changes)
}

fn follow_members(
    tx: &mut Tx,
    room: &mut RoomCtx,
    comes: Option<(&Arc<Event>, StreamPos)>,
    changes: &[state::StateChange],
) -> Result<()> {
    let Some(member) = tx.text_num("m.room.member")? else { return Ok(()) };
    for change in changes.iter().filter(|change| change.key.kind() == member) {
        let own = comes.filter(|(event, _)| change.after == Some(event.num));
        match (own, change.after) {
            (Some((event, pos)), _) => members::apply(tx, room, event, pos)?,
            (None, Some(num)) => {
                let event = tx.event(num)?;
                let pos = tx.next_position();
                members::apply(tx, room, &event, pos)?;
            }
            (None, None) => {
                let pos = tx.next_position();
                members::remove(tx, room, change.key.state_key(), pos)?;
            }
        }
    }
    Ok(())
}

fn index(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, pos: StreamPos) -> Result<()> {
    relations::apply(tx, room, event, pos)?;
    redactions::take_effect(tx, room, event)
}

fn write(
    tx: &mut Tx,
    room: &RoomCtx,
    arrival: Arrival,
    num: EventNum,
    place: Place,
    pos: Option<StreamPos>,
) -> Result<Arc<Event>> {
    let redacted_by = place.redacted_by;
    let event = Arc::new(assemble(tx, room, &arrival, num, place)?);
    write_rows(tx, room, &event, pos, arrival.known_as.is_some());
    match redacted_by {
        // What has a position is redacted once its other rows are there.
        Some(redaction) if pos.is_none() => {
            redactions::erase(tx, &event, redaction)?;
            Ok(tx.event(num)?)
        }
        _ => Ok(event),
    }
}

/// Lets take effect what came before the event and is about it: what relates to it, then redactions. It is redacted, too, if
/// it was as far as it was known before. What was redacted is not judged anew: a purge of the history may have taken the state
/// that allowed it.
fn apply_early(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, redacted_by: Option<EventNum>) -> Result<()> {
    relations::apply_early(tx, room, event)?;
    if let Some(redaction) = redacted_by {
        let event = tx.event(event.num)?;
        redactions::erase(tx, &event, redaction)?;
    }
    redactions::apply_early(tx, room, event)
}

fn assemble(tx: &mut Tx, room: &RoomCtx, arrival: &Arrival, num: EventNum, place: Place) -> Result<Event> {
    let pdu = &arrival.pdu;
    let auth_depth = arrival.auth.iter().map(|event| event.header.auth_depth.saturating_add(1)).max();
    let kind = match place.key {
        Some(key) => key.kind(),
        None => tx.intern_text(&pdu.kind)?,
    };
    let header = EventHeader {
        room: room.num,
        version: room.head.version,
        sender: tx.intern_user(&pdu.sender)?,
        kind,
        state_key: place.key.map(StateKeyId::state_key),
        prev: arrival.prev.clone(),
        auth: arrival.auth.iter().map(|event| event.num).collect(),
        depth: pdu.depth,
        auth_depth: auth_depth.unwrap_or_default(),
        origin_server_ts: pdu.origin_server_ts,
        status: place.status,
        redacted_by: None,
        state_before: arrival.state_before,
        state_after: place.state_after,
        room_state: place.room_state,
        partial_state: arrival.partial_state,
        after_gap: place.after_gap,
        transaction: arrival.transaction.clone(),
        is_filled_in: place.is_filled_in,
    };
    let event = Event::new(num, pdu.event_id.clone(), header, pdu.json.clone());
    event.set_pdu(pdu.clone());
    Ok(event)
}

fn write_rows(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, pos: Option<StreamPos>, was_known: bool) {
    tx.put(&schema::EVENT_NUMS, &event.event_id.to_string(), &event.num);
    let header = Positioned { pos: pos.unwrap_or(StreamPos::MAX), value: event.header.clone() };
    tx.put(&schema::EVENT_HEADERS, &event.num, &header);
    tx.put(&schema::EVENT_BODIES, &event.num, &encode_body(&event.event_id, &event.json));
    if let Some(pos) = pos {
        tx.put(&schema::TIMELINE, &(room.num, pos), &event.num);
        tx.made_event(event, pos);
        if was_known {
            tx.delete(&schema::OFF_TIMELINE, &(room.num, event.num));
        }
    } else {
        tx.put(&schema::OFF_TIMELINE, &(room.num, event.num), &());
    }
    tx.write_event(event, was_known);
}

/// Writes the event's header anew, after something in it changed. Only what is accepted keeps its position.
pub(super) fn rewrite_header(tx: &mut Tx, event: &Event, header: EventHeader) -> Result<(), StorageError> {
    let pos = match header.status {
        EventStatus::Accepted => tx.position_of(event),
        _ => StreamPos::MAX,
    };
    tx.put(&schema::EVENT_HEADERS, &event.num, &Positioned { pos, value: header.clone() });
    let anew = Arc::new(Event::new(event.num, event.event_id.clone(), header, event.json.clone()));
    anew.set_pdu(event.pdu()?);
    tx.made_event(&anew, pos);
    tx.write_event(&anew, true);
    Ok(())
}

/// Writes the event's body anew: it was pruned, and has come whole. What it relates to is known only now, and what it redacts.
pub(super) fn rewrite_body(
    tx: &mut Tx,
    room: &RoomCtx,
    event: &Event,
    whole: Arc<Pdu>,
) -> Result<Arc<Event>> {
    let was_redaction = event.pdu()?.redacts.is_some();
    let pos = tx.position_of(event);
    tx.put(&schema::EVENT_BODIES, &event.num, &encode_body(&event.event_id, &whole.json));
    let json = whole.json.clone();
    let anew = Arc::new(Event::new(event.num, event.event_id.clone(), event.header.clone(), json));
    anew.set_pdu(whole.clone());
    tx.made_event(&anew, pos);
    tx.write_event(&anew, true);
    if anew.header.status != EventStatus::Accepted {
        if !was_redaction {
            redactions::take_effect(tx, room, &anew)?;
        }
        return Ok(anew);
    }
    if relations::relation_of(&whole.content).is_some() {
        relations::end_thread(tx, room.num, anew.num)?;
    }
    match was_redaction {
        // It was applied by what pruning has left of it, or waits for its target.
        true => relations::apply(tx, room, &anew, pos)?,
        false => index(tx, room, &anew, pos)?,
    }
    // Whom it notifies is to be told anew.
    tx.touch(Touch::Withdrawn(room.num));
    Ok(anew)
}
