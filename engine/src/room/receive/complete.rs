//! A state that lacked members becomes whole.
//!
//! Invariant: what was taken in meanwhile is judged again, in the order in which it came, by the states that it would have
//! been judged by; afterwards nothing tells that members were ever missing.

use std::sync::Arc;

use super::{AtHand, GivenState, given_entries, judge_by_state};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos},
    error::{Missing, Result},
    room::{
        Event, RoomCtx,
        accept::{rewrite_header, settle},
        fork, state,
    },
    store::{
        Direction, Tx, schema,
        schema::{EventHeader, EventStatus},
    },
    stream::Touch,
};

/// Puts the whole state before the join, `given`, in the place of the one that lacked members, and what followed on top.
/// Returns whether it was done: if events of the state are not here, they are told as missing.
pub(crate) fn complete_state(
    tx: &mut Tx,
    room: &mut RoomCtx,
    given: &GivenState,
    missing: &mut Missing,
) -> Result<bool> {
    let at_hand = AtHand::default();
    let Some(entries) = given_entries(tx, room, &given.state, &at_hand, missing)? else {
        return Ok(false);
    };
    let whole = state::build(tx, room.num, entries)?;
    let mut partial: Vec<(StreamPos, EventNum)> = Vec::new();
    tx.scan(
        &schema::PARTIAL_STATES,
        &room.num,
        Direction::Forward,
        |(_, pos): (RoomNum, StreamPos), num| {
            partial.push((pos, num));
            true
        },
    )?;
    let mut last = None;
    for (pos, num) in partial {
        let event = tx.event(num)?;
        let before = if event.event_id == given.event_id { whole } else { state_before(tx, room, &event)? };
        judge_again(tx, room, &event, pos, before)?;
        tx.delete(&schema::PARTIAL_STATES, &(room.num, pos));
        last = Some(event);
    }
    if let Some(last) = last {
        settle(tx, room, &last)?;
    }
    room.head.partial_state = false;
    Ok(true)
}

fn state_before(tx: &mut Tx, room: &RoomCtx, event: &Event) -> Result<NodeId> {
    let mut snapshots = Vec::with_capacity(event.header.prev.len());
    for num in &event.header.prev {
        snapshots.push(tx.event(*num)?.header.state_after);
    }
    Ok(fork::merged(tx, room, snapshots)?)
}

/// Judges an event by the state that is known now. One that is not allowed any more is no part of the room.
fn judge_again(
    tx: &mut Tx,
    room: &mut RoomCtx,
    event: &Arc<Event>,
    pos: StreamPos,
    before: NodeId,
) -> Result<()> {
    let allowed = judge_by_state(tx, room, &*event.pdu()?, before, &[])?.is_ok();
    let after = match event.state_key_id() {
        Some(key) if allowed => state::set(tx, room.num, before, key, event.num)?,
        _ => before,
    };
    if !allowed {
        tx.delete(&schema::TIMELINE, &(room.num, pos));
        tx.touch(Touch::History(room.num));
        tx.put(&schema::OFF_TIMELINE, &(room.num, event.num), &());
        if tx.has(&schema::OUTGOING_EVENTS, &(room.num, pos))? {
            tx.delete(&schema::OUTGOING_EVENTS, &(room.num, pos));
        }
    }
    let header = EventHeader {
        state_before: before,
        state_after: after,
        room_state: after,
        partial_state: false,
        status: if allowed { event.header.status } else { EventStatus::Rejected },
        ..event.header.clone()
    };
    Ok(rewrite_header(tx, event, header)?)
}
