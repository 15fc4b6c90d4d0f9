//! Gaps in a room's timeline: events that others follow and that are not here.
//!
//! Invariant: a backward extremity is an event that is not part of the graph here and that some event here follows; it
//! belongs to the gap before that event. What is filled in takes the positions that were kept free for the gap, from the
//! top, so that the timeline stays in order and no client that has read past it is told anew.

use std::{collections::HashSet, sync::Arc};

use super::{Event, RoomCtx, accept::rewrite_header};
use crate::{
    core::{
        event::Pdu,
        limits::{SET_ASIDE_MAX, SET_ASIDE_MISSING_MAX},
        num::{EventNum, RoomNum, StreamPos},
    },
    store::{
        Direction, Positioned, Reader, StorageError, Tx, schema,
        schema::{BackwardExtremity, EventHeader, EventStatus},
    },
};

/// Positions kept free for a gap: more events than a room has during any outage. Of 2^63 positions two million million
/// gaps can have as many.
const GAP_POSITIONS: u32 = 1 << 22;

/// Positions of a gap that are never taken: who finds fewer between two events of the timeline knows that there is no gap.
const GAP_LEFT_MIN: i64 = 1 << 14;

/// Positions on either side of an event that is placed within a gap: as many again as are left for ever. An event that
/// would leave fewer is not placed there.
const WITHIN_GAP_MIN: i64 = GAP_LEFT_MIN * 2;

/// An event that is not part of the graph here, and the event that names it.
pub(crate) type MissingPrev = (Arc<str>, BackwardExtremity);

/// What is missing before the event `num`, which is `pdu` and follows `prev`, as far as that is part of the graph here: what it names,
/// and what is named by events between that are not shown, behind which nothing else would lead to it. O(1) for what follows the room's
/// ends.
pub(crate) fn missing_prev_events(
    reader: &Reader,
    room: &RoomCtx,
    num: EventNum,
    prev: &[EventNum],
    pdu: &Pdu,
) -> Result<Vec<MissingPrev>, StorageError> {
    let mut missing = Vec::new();
    let mut to_look_at = prev.to_vec();
    if prev.len() != pdu.prev_events.len() {
        let by = BackwardExtremity { follower: num, depth: pdu.depth };
        note_absent(reader, room.num, &pdu.prev_events, by, &mut missing)?;
    }
    let named = missing.len();
    let is_end = |num: EventNum| room.head.extremities.iter().any(|(end, _)| *end == num);
    let (mut seen, mut purged): (HashSet<EventNum>, Option<bool>) = (HashSet::new(), None);
    while let Some(num) = to_look_at.pop() {
        let is_enough = seen.len() >= SET_ASIDE_MAX || missing.len() - named >= SET_ASIDE_MISSING_MAX;
        if is_enough || is_end(num) || seen.contains(&num) {
            continue;
        }
        let event = reader.event(num)?;
        if event.header.status == EventStatus::Accepted {
            continue;
        }
        // What a purge removed is not missed. History came into a gap that the purge left open: what is before it may never have been here.
        if !event.header.is_filled_in {
            let is_purged = match purged {
                Some(is_purged) => is_purged,
                None => reader.has(&schema::HISTORY_STARTS, &room.num)?,
            };
            purged = Some(is_purged);
            if is_purged {
                continue;
            }
        }
        seen.insert(num);
        let prev_events = &event.pdu()?.prev_events;
        if prev_events.len() == event.header.prev.len() {
            to_look_at.extend(&event.header.prev);
        } else {
            let by = BackwardExtremity { follower: num, depth: event.header.depth };
            to_look_at.extend(note_absent(reader, room.num, prev_events, by, &mut missing)?);
        }
    }
    // In the oldest versions an event that is not shown may name this one.
    missing.retain(|(event_id, _)| *event_id != pdu.event_id);
    Ok(missing)
}

/// Adds those of the events that are not part of the graph here. Answers the others.
fn note_absent(
    reader: &Reader,
    room: RoomNum,
    event_ids: &[Arc<str>],
    by: BackwardExtremity,
    missing: &mut Vec<MissingPrev>,
) -> Result<Vec<EventNum>, StorageError> {
    let mut here = Vec::with_capacity(event_ids.len());
    for event_id in event_ids {
        match in_graph(reader, room, event_id)? {
            Some(event) => here.push(event.num),
            None if missing.iter().any(|(other, _)| other == event_id) => {}
            None => missing.push((event_id.clone(), by)),
        }
    }
    Ok(here)
}

/// Those of the events that are in no gap yet.
pub(super) fn noted_nowhere(
    reader: &Reader,
    room: RoomNum,
    missing: Vec<MissingPrev>,
) -> Result<Vec<MissingPrev>, StorageError> {
    let ids = missing.iter().map(|(event_id, _)| event_id.clone()).collect();
    let new = in_no_gap(reader, room, ids)?;
    Ok(missing.into_iter().filter(|(event_id, _)| new.contains(event_id)).collect())
}

/// Those of `missing` that are in no gap yet.
pub(super) fn in_no_gap(
    reader: &Reader,
    room: RoomNum,
    missing: Vec<Arc<str>>,
) -> Result<Vec<Arc<str>>, StorageError> {
    let mut new = Vec::with_capacity(missing.len());
    for event_id in missing {
        if !reader.has(&schema::BACKWARD_EXTREMITIES, &(room, event_id.to_string()))? {
            new.push(event_id);
        }
    }
    Ok(new)
}

/// The event, if it is part of the room's graph here and not only known from outside of it. In the oldest versions an id that the room's
/// events name may stand for an event of another room, which is no more part of this one's than if it were not here.
pub(super) fn in_graph(
    reader: &Reader,
    room: RoomNum,
    event_id: &str,
) -> Result<Option<Arc<Event>>, StorageError> {
    let Some(num) = reader.event_num(event_id)? else { return Ok(None) };
    let is_in_it = |event: &Arc<Event>| event.header.room == room && event.header.is_in_graph();
    Ok(Some(reader.event(num)?).filter(is_in_it))
}

/// Keeps positions free for what is missing before the event that comes next. Returns the first to fill; nothing if
/// nothing is missing.
pub(super) fn keep_free(
    tx: &mut Tx,
    room: RoomNum,
    missing: &[MissingPrev],
) -> Result<Option<StreamPos>, StorageError> {
    if missing.is_empty() {
        return Ok(None);
    }
    let mut is_first = true;
    tx.scan(&schema::TIMELINE, &room, Direction::Forward, |(_, _): (RoomNum, StreamPos), _| {
        is_first = false;
        false
    })?;
    // Before the first event of a room there is all the room below zero.
    Ok(Some(if is_first { StreamPos(-1) } else { tx.keep_positions_free(GAP_POSITIONS) }))
}

/// The last position before an event that came live which is kept free for no gap before it.
pub(super) fn last_not_free_before(event: &Event) -> StreamPos {
    let kept = if event.header.after_gap { i64::from(GAP_POSITIONS) } else { 0 };
    StreamPos(event.pos().0.saturating_sub(kept).saturating_sub(1))
}

/// Notes a gap before the event that stands at `pos`.
pub(super) fn open(
    tx: &mut Tx,
    room: RoomNum,
    pos: StreamPos,
    first_free: StreamPos,
    missing: &[MissingPrev],
) -> Result<(), StorageError> {
    tx.put(&schema::GAPS, &(room, pos), &first_free);
    note_missing(tx, room, pos, missing)
}

/// Notes what is missing before an event that is in, or behind, the gap. What is missing in an earlier one already stays there.
fn note_missing(
    tx: &mut Tx,
    room: RoomNum,
    gap: StreamPos,
    missing: &[MissingPrev],
) -> Result<(), StorageError> {
    for (event_id, value) in missing {
        let key = (room, event_id.to_string());
        let noted = tx.get(&schema::BACKWARD_EXTREMITIES, &key)?;
        if noted.is_some_and(|noted| noted.pos <= gap) {
            continue;
        }
        tx.put(&schema::BACKWARD_EXTREMITIES, &key, &Positioned { pos: gap, value: *value });
        if let Some(noted) = noted {
            close_if_filled(tx, room, noted.pos)?;
        }
    }
    Ok(())
}

/// The same before one that was filled in. The gap may have been filled in the same batch, and is open again then, below it.
pub(super) fn note_missing_of_past(
    tx: &mut Tx,
    room: RoomNum,
    gap: StreamPos,
    missing: &[MissingPrev],
) -> Result<(), StorageError> {
    let key = (room, gap);
    if !missing.is_empty() && !tx.has(&schema::GAPS, &key)? {
        let free = next_free(tx, room, gap)?;
        tx.put(&schema::GAPS, &key, &free);
        note_missing(tx, room, gap, missing)?;
        // All of it may be noted in another gap.
        return close_if_filled(tx, room, gap);
    }
    note_missing(tx, room, gap, missing)
}

/// Looks for what is missing in a later gap in this one, which is open, as what something of that `depth` follows. Returns whether
/// it was noted in a later one.
pub(super) fn move_down(
    tx: &mut Tx,
    room: RoomNum,
    event_id: &str,
    gap: StreamPos,
    depth: u64,
) -> Result<bool, StorageError> {
    let key = (room, event_id.to_owned());
    let Some(row) = tx.get(&schema::BACKWARD_EXTREMITIES, &key)?.filter(|row| row.pos > gap) else {
        return Ok(false);
    };
    if !tx.has(&schema::GAPS, &(room, gap))? {
        return Ok(false);
    }
    let value = BackwardExtremity { depth: depth.min(row.value.depth), ..row.value };
    tx.put(&schema::BACKWARD_EXTREMITIES, &key, &Positioned { pos: gap, value });
    close_if_filled(tx, room, row.pos)?;
    Ok(true)
}

/// Where the gap before the event at `pos` goes on: below what was filled in of it. O(what was filled in).
pub(crate) fn next_free(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<StreamPos, StorageError> {
    let (below, above) = edges(reader, room, pos)?;
    let is_before_all = above == pos && below.is_none();
    // As in `keep_free`.
    let next = if is_before_all { pos.min(StreamPos::ZERO) } else { above };
    Ok(StreamPos(next.0.saturating_sub(1)))
}

/// The events around what is free of the gap before the event at `pos`: the last before it, and the place of the first behind it
/// that is there or was filled in. Where history stands below zero and nothing from there to the event, the gap goes on below zero.
/// O(what was filled in).
pub(crate) fn edges(
    reader: &Reader,
    room: RoomNum,
    pos: StreamPos,
) -> Result<(Option<StreamPos>, StreamPos), StorageError> {
    let start = (room, StreamPos(i64::MIN));
    let last = first_of(reader, &start, &(room, pos), Direction::Backward)?;
    let is_below_zero = pos > StreamPos::ZERO && last.is_some_and(|last| last < StreamPos::ZERO);
    let mut above = if is_below_zero { StreamPos::ZERO } else { pos };
    let mut below = None;
    let visit = |(_, at): (RoomNum, StreamPos), _: EventNum| {
        if above.0.saturating_sub(at.0) > GAP_LEFT_MIN {
            below = Some(at);
            return false;
        }
        above = at;
        true
    };
    reader.scan_between(&schema::TIMELINE, &start, &(room, pos), Direction::Backward, visit)?;
    Ok((below, above))
}

/// Notes that an event is part of the graph now. Returns whether it was missing.
pub(super) fn arrived(tx: &mut Tx, event: &Event) -> Result<bool, StorageError> {
    let key = (event.header.room, event.event_id.to_string());
    let Some(row) = tx.get(&schema::BACKWARD_EXTREMITIES, &key)? else { return Ok(false) };
    tx.delete(&schema::BACKWARD_EXTREMITIES, &key);
    close_if_filled(tx, event.header.room, row.pos)?;
    Ok(true)
}

/// The event behind the gap at `pos` stands in the timeline no more: the gap is before the first of what was filled in, or
/// before what comes next. With nothing behind it there is no gap.
pub(super) fn hand_on(tx: &mut Tx, room: RoomNum, pos: StreamPos) -> Result<(), StorageError> {
    let Some(free) = tx.get(&schema::GAPS, &(room, pos))? else { return Ok(()) };
    tx.delete(&schema::GAPS, &(room, pos));
    let missing = missing_in(tx, room, pos)?;
    let mut next = None;
    let (start, end) = ((room, StreamPos(free.0.saturating_add(1))), RoomNum(room.0 + 1));
    tx.scan_between(
        &schema::TIMELINE,
        &start,
        &end,
        Direction::Forward,
        |(_, pos): (RoomNum, StreamPos), num| {
            next = Some((pos, num));
            false
        },
    )?;
    let Some((to, num)) = next else {
        for (event_id, _) in missing {
            tx.delete(&schema::BACKWARD_EXTREMITIES, &(room, event_id));
        }
        return Ok(());
    };
    // One that has a gap before it already goes on with its own free places.
    if !tx.has(&schema::GAPS, &(room, to))? {
        tx.put(&schema::GAPS, &(room, to), &free);
    }
    for (event_id, value) in missing {
        tx.put(&schema::BACKWARD_EXTREMITIES, &(room, event_id), &Positioned { pos: to, value });
    }
    let event = tx.event(num)?;
    rewrite_header(tx, &event, EventHeader { after_gap: true, ..event.header.clone() })
}

/// The gap for what is missing before the event at `pos` and is noted late: the one within which the event stands or, of the stretches below
/// it that no event of the room stands in, the nearest that has room for one, by the event behind it. At the latest that is all the room
/// before the first event. O(the room's events up to there).
pub(crate) fn place_before(
    reader: &Reader,
    room: RoomNum,
    pos: StreamPos,
) -> Result<StreamPos, StorageError> {
    let mut behind = pos;
    let visit = |(_, at): (RoomNum, StreamPos), _: EventNum| {
        if behind.0.saturating_sub(at.0) > WITHIN_GAP_MIN {
            return false;
        }
        behind = at;
        true
    };
    let (start, end) = ((room, StreamPos(i64::MIN)), (room, pos));
    reader.scan_between(&schema::TIMELINE, &start, &end, Direction::Backward, visit)?;
    // What was filled in of a gap that is open stands below the event that this is noted for.
    let mut gap = behind;
    let visit = |(_, of): (RoomNum, StreamPos), free: StreamPos| {
        if free < behind {
            gap = of;
        }
        false
    };
    let (start, end) = ((room, behind), (room, StreamPos::MAX));
    reader.scan_between(&schema::GAPS, &start, &end, Direction::Forward, visit)?;
    Ok(gap)
}

/// An event here that follows one that is missing.
pub(super) fn follower(
    reader: &Reader,
    room: RoomNum,
    event_id: &str,
) -> Result<Option<Arc<Event>>, StorageError> {
    let row = reader.get(&schema::BACKWARD_EXTREMITIES, &(room, event_id.to_owned()))?;
    row.map(|row| reader.event(row.value.follower)).transpose()
}

/// The gap that the event is missing in.
pub(super) fn of(reader: &Reader, room: RoomNum, event_id: &str) -> Result<Option<StreamPos>, StorageError> {
    let row = reader.get(&schema::BACKWARD_EXTREMITIES, &(room, event_id.to_owned()))?;
    Ok(row.map(|row| row.pos))
}

/// The highest free position of a gap, below what is kept for events that wait, if it has `count` of them to give.
pub(super) fn free_positions(
    reader: &Reader,
    room: RoomNum,
    gap: StreamPos,
    kept: Option<StreamPos>,
    count: usize,
) -> Result<Option<StreamPos>, StorageError> {
    let free = reader.get(&schema::GAPS, &(room, gap))?;
    let free =
        free.ok_or_else(|| StorageError::Corrupt(format!("room {} has no gap at {}", room.0, gap.0)))?;
    let free = kept.map_or(free, |kept| free.min(StreamPos(kept.0.saturating_sub(1))));
    let lowest = free.0.saturating_sub(count as i64).saturating_sub(GAP_LEFT_MIN);
    let is_enough = last_before(reader, room, free)?.is_none_or(|below| below.0 < lowest);
    Ok(is_enough.then_some(free))
}

/// How deep the events are at most that follow what is missing in a gap; nothing if it is not open.
pub(super) fn depth_of_missing(
    reader: &Reader,
    room: RoomNum,
    gap: StreamPos,
) -> Result<Option<u64>, StorageError> {
    let mut deepest: Option<u64> = None;
    let visit = |_: (RoomNum, String), row: Positioned<BackwardExtremity>| {
        if row.pos == gap {
            deepest = deepest.max(Some(row.value.depth));
        }
        true
    };
    reader.scan(&schema::BACKWARD_EXTREMITIES, &room, Direction::Forward, visit)?;
    Ok(deepest)
}

/// Notes that a gap's position was taken: what is filled in next comes below it.
pub(super) fn taken(tx: &mut Tx, room: RoomNum, gap: StreamPos, pos: StreamPos) -> Result<(), StorageError> {
    if let Some(free) = tx.get(&schema::GAPS, &(room, gap))?
        && pos <= free
    {
        tx.put(&schema::GAPS, &(room, gap), &StreamPos(pos.0.saturating_sub(1)));
    }
    Ok(())
}

/// A position in the middle of what is free of a gap, for an event that is somewhere in it. Nothing if the gap is not there
/// any more, or too little of it is free.
pub(super) fn position_within(
    reader: &Reader,
    room: RoomNum,
    gap: StreamPos,
) -> Result<Option<StreamPos>, StorageError> {
    let Some(free) = reader.get(&schema::GAPS, &(room, gap))? else { return Ok(None) };
    let half = i64::from(GAP_POSITIONS / 2);
    let half = match last_before(reader, room, free)? {
        Some(below) => half.min(free.0.saturating_sub(below.0) / 2),
        None => half,
    };
    Ok((half >= WITHIN_GAP_MIN).then(|| StreamPos(free.0.saturating_sub(half))))
}

/// The gap between the first event behind `pos` and the one before that, if there is one: the position of the event that
/// it is noted for.
pub(crate) fn between(
    reader: &Reader,
    room: RoomNum,
    pos: StreamPos,
) -> Result<Option<StreamPos>, StorageError> {
    let next = first_behind(reader, room, pos)?;
    let mut gaps: Vec<(StreamPos, StreamPos)> = Vec::new();
    reader.scan(&schema::GAPS, &room, Direction::Forward, |(_, pos): (RoomNum, StreamPos), free| {
        gaps.push((pos, free));
        true
    })?;
    for (gap, free) in gaps {
        // What was filled in stands below the event behind the gap; what is missing is below that.
        if next.is_some() && first_behind(reader, room, free)? == next {
            return Ok(Some(gap));
        }
    }
    Ok(None)
}

/// Whether what stands at `pos` was filled into a gap in which something is missing still, so that what follows it may be.
pub(crate) fn is_filled_in(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<bool, StorageError> {
    let mut is_in = false;
    let (from, to) = ((room, StreamPos(pos.0.saturating_add(1))), (room, StreamPos::MAX));
    let visit = |_: (RoomNum, StreamPos), free: StreamPos| {
        is_in = free < pos;
        false
    };
    reader.scan_between(&schema::GAPS, &from, &to, Direction::Forward, visit)?;
    Ok(is_in)
}

/// The position of the last event of the timeline at or before `pos`.
fn last_before(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<Option<StreamPos>, StorageError> {
    let (from, to) = ((room, StreamPos(i64::MIN)), (room, StreamPos(pos.0.saturating_add(1))));
    first_of(reader, &from, &to, Direction::Backward)
}

/// The position of the first event of the timeline behind `after`.
pub(crate) fn first_behind(
    reader: &Reader,
    room: RoomNum,
    after: StreamPos,
) -> Result<Option<StreamPos>, StorageError> {
    let (from, to) = ((room, StreamPos(after.0.saturating_add(1))), (room, StreamPos::MAX));
    first_of(reader, &from, &to, Direction::Forward)
}

fn first_of(
    reader: &Reader,
    from: &(RoomNum, StreamPos),
    to: &(RoomNum, StreamPos),
    direction: Direction,
) -> Result<Option<StreamPos>, StorageError> {
    let mut found = None;
    let visit = |(_, pos): (RoomNum, StreamPos), _: EventNum| {
        found = Some(pos);
        false
    };
    reader.scan_between(&schema::TIMELINE, from, to, direction, visit)?;
    Ok(found)
}

/// Forgets a gap in which nothing is missing any more.
pub(super) fn close_if_filled(tx: &mut Tx, room: RoomNum, gap: StreamPos) -> Result<(), StorageError> {
    let mut is_filled = true;
    tx.scan(&schema::BACKWARD_EXTREMITIES, &room, Direction::Forward, |_: (RoomNum, String), row| {
        is_filled = row.pos != gap;
        is_filled
    })?;
    if is_filled {
        tx.delete(&schema::GAPS, &(room, gap));
    }
    Ok(())
}

/// What is missing in the gap before `pos`, with what follows it.
fn missing_in(
    reader: &Reader,
    room: RoomNum,
    pos: StreamPos,
) -> Result<Vec<(String, BackwardExtremity)>, StorageError> {
    let mut missing = Vec::new();
    let visit = |(_, event_id): (RoomNum, String), row: Positioned<BackwardExtremity>| {
        if row.pos == pos {
            missing.push((event_id, row.value));
        }
        true
    };
    reader.scan(&schema::BACKWARD_EXTREMITIES, &room, Direction::Forward, visit)?;
    Ok(missing)
}

/// What is missing before the timeline's event at `pos`, if there is a gap: ids of events, those with the deepest
/// followers first.
pub fn missing_before(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<Vec<String>, StorageError> {
    let missing = missing_in(reader, room, pos)?.into_iter();
    let mut missing: Vec<(u64, String)> = missing.map(|(event_id, row)| (row.depth, event_id)).collect();
    missing.sort_unstable_by(|one, other| other.cmp(one));
    Ok(missing.into_iter().map(|(_, event_id)| event_id).collect())
}

/// Whether a timeline read backwards ends at this event, because of what is missing before it.
pub fn is_open_before(reader: &Reader, event: &Event) -> Result<bool, StorageError> {
    Ok(event.header.after_gap && reader.has(&schema::GAPS, &(event.header.room, event.pos()))?)
}
