//! What was part of the room and turns out not to be allowed: its acceptance is taken back.
//!
//! Invariant: afterwards all is as if it had been rejected when it came, but that clients may have been told of it. They are
//! told what stands instead, so what they were told stays known: the room's state as it was then.
//! Not here: the rows of members and the current state, which follow from the forward extremities (`settle`).

use std::{collections::HashSet, sync::Arc};

use crate::{
    core::{
        identifiers::server_name,
        limits::SET_ASIDE_MAX,
        num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    },
    error::Result,
    room::{Event, RoomCtx, gap, relations},
    store::{
        Direction, Positioned, Reader, StorageError, Tx, schema,
        schema::{EventStatus, Receipt},
    },
    stream::Touch,
};

/// An event at an end of the room, and its id.
type End = (EventNum, String);

/// Takes an accepted event, which stands at `pos`, out of the timeline and the indexes. Its header is for the caller.
pub(super) fn withdraw(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, pos: StreamPos) -> Result<()> {
    relations::remove(tx, event)?;
    tx.delete(&schema::TIMELINE, &(room.num, pos));
    if tx.has(&schema::OUTGOING_EVENTS, &(room.num, pos))? {
        tx.delete(&schema::OUTGOING_EVENTS, &(room.num, pos));
    }
    tx.put(&schema::OFF_TIMELINE, &(room.num, event.num), &());
    // Of history nobody was told.
    if !event.header.is_filled_in {
        tx.put(&schema::STATE_CHANGES, &(room.num, pos), &event.header.room_state);
    }
    gap::hand_on(tx, room.num, pos)?;
    tx.touch(Touch::Withdrawn(room.num));
    Ok(())
}

/// Puts right what hangs on all that was withdrawn after `join`, and perhaps with it, or has been let in there after all: the
/// room's forward extremities, and who has read how far.
pub(super) fn end_changes(
    tx: &mut Tx,
    room: &mut RoomCtx,
    join: &Event,
    withdrawn: &[EventNum],
    has_reinstated: bool,
) -> Result<()> {
    if withdrawn.is_empty() && !has_reinstated {
        return Ok(());
    }
    if !withdrawn.is_empty() {
        move_receipts(tx, room.num, withdrawn)?;
    }
    // What this server left behind when it entered with the join is not at an end of the room, unless it was kept as one, or the
    // join is not.
    let from = match withdrawn.contains(&join.num) {
        true => StreamPos(i64::MIN),
        false => tx.position_of(join),
    };
    let kept = ends_before(tx, room, from, withdrawn)?;
    let held = held(tx, room, withdrawn)?;
    room.head.extremities = ends(tx, room, (from, &held), kept)?;
    // One that was filled in may claim to be deeper than all that came live.
    for (num, _) in &room.head.extremities {
        room.head.depth = room.head.depth.max(tx.event(*num)?.header.depth);
    }
    tx.touch(Touch::Room(room.num));
    Ok(())
}

/// The room's ends before `from`, as far as they were not withdrawn: what the server by way of which this one entered had not been
/// told of then.
fn ends_before(tx: &Tx, room: &RoomCtx, from: StreamPos, withdrawn: &[EventNum]) -> Result<Vec<End>> {
    let mut ends = Vec::new();
    for (num, event_id) in &room.head.extremities {
        if !withdrawn.contains(num) && tx.position_of(&*tx.event(*num)?) < from {
            ends.push((*num, event_id.clone()));
        }
    }
    Ok(ends)
}

/// The events that were the room's ends, or were followed live by nothing but what was withdrawn: the state rests on them, also where
/// something behind a gap, or in it, follows them.
fn held(reader: &Reader, room: &RoomCtx, withdrawn: &[EventNum]) -> Result<HashSet<EventNum>> {
    let mut held: HashSet<EventNum> = room.head.extremities.iter().map(|(num, _)| *num).collect();
    for num in withdrawn {
        let followed = followed_by(reader, &reader.event(*num)?)?;
        held.extend(followed.into_iter().filter(|(_, is_late)| !is_late).map(|(num, _)| num));
    }
    Ok(held)
}

/// The accepted events from `from` on, and the ends before, that no accepted one follows, or that are held. O(events since).
fn ends(
    reader: &Reader,
    room: &RoomCtx,
    (from, held): (StreamPos, &HashSet<EventNum>),
    mut open: Vec<End>,
) -> Result<Vec<End>> {
    let mut nums: Vec<EventNum> = Vec::new();
    let (start, end) = ((room.num, from), RoomNum(room.num.0 + 1));
    reader.scan_between(
        &schema::TIMELINE,
        &start,
        &end,
        Direction::Forward,
        |_: (RoomNum, StreamPos), num| {
            nums.push(num);
            true
        },
    )?;
    let mut followed: HashSet<EventNum> = HashSet::new();
    for num in nums {
        let event = reader.event(num)?;
        for (prev, is_late) in followed_by(reader, &event)? {
            // What is behind a gap, or in it, did not end what the state rests on (`accept::leave_behind`).
            let is_of_gap = event.header.is_filled_in || is_late;
            if !is_of_gap || !held.contains(&prev) {
                followed.insert(prev);
            }
        }
        if is_entry(reader, &event)? {
            open.retain(|(num, _)| room.head.extremities.iter().any(|(end, _)| end == num));
        }
        open.push((num, event.event_id.to_string()));
    }
    open.retain(|(num, _)| !followed.contains(num));
    Ok(open)
}

/// The accepted events that an event follows, if need be by way of such as are not shown, and whether each came later than what names it.
/// Those that it names are followed all the same; what is not shown leads on only if it was there before, as where an event comes live.
fn followed_by(reader: &Reader, event: &Arc<Event>) -> Result<Vec<(EventNum, bool)>> {
    let mut followed = Vec::new();
    let mut to_look_at = vec![event.clone()];
    let mut looked_through = 0;
    while let Some(event) = to_look_at.pop() {
        for event_id in &event.pdu()?.prev_events {
            let Some(prev) = gap::in_graph(reader, event.header.room, event_id)? else { continue };
            let is_late = !event.header.prev.contains(&prev.num);
            if prev.header.status == EventStatus::Accepted {
                followed.push((prev.num, is_late));
            } else if !is_late && looked_through < SET_ASIDE_MAX {
                looked_through += 1;
                to_look_at.push(prev);
            }
        }
    }
    Ok(followed)
}

/// Whether the event is a join by which this server entered the room, leaving behind what it knew of it.
fn is_entry(reader: &Reader, event: &Event) -> Result<bool> {
    let pdu = event.pdu()?;
    let is_own_join =
        pdu.membership() == Some("join") && server_name(&pdu.sender) == Some(&*reader.shared.server_name);
    Ok(is_own_join && event.lacks_prev_events()?)
}

/// Whoever has read up to an event that is withdrawn has read up to the one before it.
fn move_receipts(tx: &mut Tx, room: RoomNum, withdrawn: &[EventNum]) -> Result<(), StorageError> {
    type ReceiptKey = (RoomNum, UserNum, u8, TextNum);
    let mut found: Vec<(ReceiptKey, Positioned<Receipt>)> = Vec::new();
    tx.scan(&schema::RECEIPTS, &room, Direction::Forward, |key: ReceiptKey, receipt| {
        if withdrawn.contains(&receipt.value.event) {
            found.push((key, receipt));
        }
        true
    })?;
    for (key, Positioned { pos, value }) in found {
        let mut before = None;
        let (start, here) = ((room, StreamPos(i64::MIN)), (room, value.event_pos));
        tx.scan_between(&schema::TIMELINE, &start, &here, Direction::Backward, |(_, pos), num| {
            before = Some((pos, num));
            false
        })?;
        match before {
            Some((event_pos, event)) => {
                let value = Receipt { event, event_pos, ..value };
                tx.put(&schema::RECEIPTS, &key, &Positioned { pos, value });
            }
            None => {
                tx.delete(&schema::RECEIPTS, &key);
                tx.delete(&schema::RECEIPT_STREAM, &(room, pos));
            }
        }
    }
    Ok(())
}
