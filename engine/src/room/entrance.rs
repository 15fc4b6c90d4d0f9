//! Where the stays of this server in a room begin: what was said before the present one is history, and clients are not told of
//! it as of something new.
//!
//! Invariant: what the graph shows comes before what events claim. What is in a gap that is noted, or behind it, is history;
//! what follows an event of this stay is none. Only where nothing leads to either, depths decide.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{RoomCtx, gap};
use crate::{
    core::{
        checked::CheckedPdu,
        event::Pdu,
        identifiers::server_name,
        num::{EventNum, RoomNum, StreamPos},
    },
    store::{Direction, Reader, StorageError, Tx, schema, schema::EventStatus},
};

/// The first event of a stay that is still here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    /// Where it stands.
    pub pos: StreamPos,
    /// Its depth. Whatever follows it is deeper, unless its server lies; where a depth is the greatest there is, as deep.
    pub depth: u64,
}

/// Notes that this server has come back to a room, by the event at `pos`.
pub(crate) fn note(tx: &mut Tx, room: RoomNum, pos: StreamPos) {
    tx.put(&schema::ENTRANCES, &room, &pos);
}

/// Where this server's stay in the room begins, or what a purge has left of it; nothing if nothing of the room is here.
pub(crate) fn of(reader: &Reader, room: RoomNum) -> Result<Option<Entrance>, StorageError> {
    let came_back = reader.get(&schema::ENTRANCES, &room)?;
    let purged = reader.get(&schema::HISTORY_STARTS, &room)?;
    // History that was fetched of a room that was entered once stands below zero.
    let from = came_back.into_iter().chain(purged).max().unwrap_or(StreamPos(1));
    let (start, end) = ((room, from), RoomNum(room.0 + 1));
    let mut first = None;
    let visit = |(_, pos): (RoomNum, StreamPos), num: EventNum| {
        first = Some((pos, num));
        false
    };
    reader.scan_between(&schema::TIMELINE, &start, &end, Direction::Forward, visit)?;
    let Some((pos, num)) = first else { return Ok(None) };
    Ok(Some(Entrance { pos, depth: reader.event(num)?.header.depth }))
}

/// Where this server's stays begin, as far as something is missing before that and that gap is before `before`: the first one first,
/// each with the highest position that is free before it.
pub(crate) fn open(
    reader: &Reader,
    room: RoomNum,
    before: StreamPos,
) -> Result<Vec<(Entrance, StreamPos)>, StorageError> {
    let Some(present) = of(reader, room)? else { return Ok(Vec::new()) };
    let mut gaps: Vec<(StreamPos, StreamPos)> = Vec::new();
    let end = before.min(StreamPos(present.pos.0.saturating_add(1)));
    let visit = |(_, pos): (RoomNum, StreamPos), free: StreamPos| {
        gaps.push((pos, free));
        true
    };
    let (start, end) = ((room, StreamPos(i64::MIN)), (room, end));
    reader.scan_between(&schema::GAPS, &start, &end, Direction::Forward, visit)?;
    let mut open = Vec::with_capacity(gaps.len());
    for (pos, free) in gaps {
        if pos == present.pos {
            open.push((present, free));
        } else if let Some(num) = reader.get(&schema::TIMELINE, &(room, pos))? {
            let event = reader.event(num)?;
            // What is missing before the first of them is below zero.
            let is_first = pos > StreamPos::ZERO && free < StreamPos::ZERO;
            if is_first || is_own_join(reader, &event.pdu()?) {
                open.push((Entrance { pos, depth: event.header.depth }, free));
            }
        }
    }
    Ok(open)
}

/// A server that is in a room has no gap before a join of its own users.
fn is_own_join(reader: &Reader, pdu: &Pdu) -> bool {
    pdu.membership() == Some("join") && server_name(&pdu.sender) == Some(&*reader.shared.server_name)
}

/// The gap that what is missing before history of this depth is in, which is itself in `gap`: that before the first entrance which
/// is deeper than the event, and where that is no deeper than all that lacks something, so that history stays below the join. Where
/// the gap is filled up to less depth, what it follows may stand behind what is missing there.
pub(crate) fn gap_before(
    reader: &Reader,
    room: RoomNum,
    depth: u64,
    gap: StreamPos,
) -> Result<StreamPos, StorageError> {
    for (entrance, _) in open(reader, room, gap)? {
        // In a room of the greatest depth there is, all are as deep.
        if depth < entrance.depth
            && gap::depth_of_missing(reader, room, entrance.pos)?.is_some_and(|deepest| depth <= deepest)
        {
            return Ok(entrance.pos);
        }
    }
    Ok(gap)
}

/// Those of the events, each after what it follows, that are history: of the `told`, which nobody has sent, but another server has
/// answered when it was asked what lies between.
pub(crate) fn history_among(
    reader: &Reader,
    room: &RoomCtx,
    ordered: &[Arc<CheckedPdu>],
    told: &BTreeSet<Arc<str>>,
) -> Result<HashSet<Arc<str>>, StorageError> {
    let mut history = HashSet::new();
    if told.is_empty() {
        return Ok(history);
    }
    let mut behind: HashSet<&str> = HashSet::new();
    for pdu in ordered.iter().rev().map(|checked| &checked.pdu).filter(|pdu| told.contains(&pdu.event_id)) {
        let key = (room.num, pdu.event_id.to_string());
        if behind.contains(&*pdu.event_id)
            || pdu.prev_events.is_empty()
            || reader.has(&schema::BACKWARD_EXTREMITIES, &key)?
        {
            behind.extend(pdu.prev_events.iter().map(|event_id| &**event_id));
            history.insert(pdu.event_id.clone());
        }
    }
    by_depth(reader, room, (ordered, told), &mut history)?;
    // What is here is here.
    let mut known = Vec::new();
    for event_id in &history {
        if gap::in_graph(reader, event_id)?.is_some() {
            known.push(event_id.clone());
        }
    }
    for event_id in known {
        history.remove(&event_id);
    }
    Ok(history)
}

/// Adds those that are not as deep as the entrance, and follow nothing of the stay.
fn by_depth(
    reader: &Reader,
    room: &RoomCtx,
    (ordered, told): (&[Arc<CheckedPdu>], &BTreeSet<Arc<str>>),
    history: &mut HashSet<Arc<str>>,
) -> Result<(), StorageError> {
    let Some(entrance) = of(reader, room.num)? else { return Ok(()) };
    let mut of_stay: HashSet<&str> = HashSet::new();
    for pdu in ordered.iter().map(|checked| &checked.pdu) {
        if follows_stay(reader, (room, entrance), pdu, &of_stay)? {
            of_stay.insert(&pdu.event_id);
        } else if told.contains(&pdu.event_id) && pdu.depth < entrance.depth {
            history.insert(pdu.event_id.clone());
        }
    }
    Ok(())
}

/// Whether the event follows one of the stay, of those here or of these, or where the room ends here.
fn follows_stay(
    reader: &Reader,
    (room, entrance): (&RoomCtx, Entrance),
    pdu: &Pdu,
    of_stay: &HashSet<&str>,
) -> Result<bool, StorageError> {
    for event_id in &pdu.prev_events {
        if of_stay.contains(&**event_id) {
            return Ok(true);
        }
        let Some(known) = gap::in_graph(reader, event_id)? else { continue };
        let is_shown = known.header.status == EventStatus::Accepted;
        let is_end = room.head.extremities.iter().any(|(end, _)| *end == known.num);
        if is_end || is_shown && known.pos() >= entrance.pos {
            return Ok(true);
        }
    }
    Ok(false)
}
