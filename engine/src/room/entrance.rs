//! Where the present stay of this server in a room begins: what was said before that is history, and clients are not told of
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

impl Entrance {
    /// The gap that what is missing before history of this depth is in, which is itself in `gap`: that before the entrance, if the
    /// event is less deep than that, and no deeper than all that lacks something there, so that history stays below the join. Where
    /// the gap is filled up to less depth, what it follows may stand behind what is missing there.
    pub fn gap_before(
        &self,
        reader: &Reader,
        room: RoomNum,
        depth: u64,
        gap: StreamPos,
    ) -> Result<StreamPos, StorageError> {
        // In a room of the greatest depth there is, all are as deep.
        if gap <= self.pos || depth >= self.depth {
            return Ok(gap);
        }
        let deepest = gap::depth_of_missing(reader, room, self.pos)?;
        Ok(if deepest.is_some_and(|deepest| depth <= deepest) { self.pos } else { gap })
    }
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
