//! The last events of a room, listed once for all the members who ask at the same time.

use std::sync::Arc;

use super::LOOK_BACK_EVENTS_MAX;
use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    error::Result,
    store::{Direction, Reader, schema},
};

/// How many events of a room are kept listed: a wake-up is for one or a few.
const TAIL_EVENTS_MAX: usize = 64;
/// What a list costs besides its entries.
const TAIL_BYTES: usize = 128;

/// The events of a room behind `after` up to `upto`.
pub(super) struct Tail {
    after: StreamPos,
    upto: StreamPos,
    events: Vec<(StreamPos, EventNum)>,
}

/// The room's events behind `since`, ascending; not more than [`LOOK_BACK_EVENTS_MAX`], the last ones.
pub(super) fn events_since(reader: &Reader, room: RoomNum, since: StreamPos) -> Result<Vec<EventNum>> {
    let tails = &reader.shared.memo.unread.tails;
    let Some(tail) = tails.get(&room).filter(|tail| tail.after <= since) else {
        let events = scan(reader, room, since)?;
        let nums = events.iter().map(|(_, num)| *num).collect();
        remember(reader, room, Tail { after: since, upto: reader.pos, events });
        return Ok(nums);
    };
    let tail = if tail.upto >= reader.pos {
        tail
    } else {
        let mut events = tail.events.clone();
        events.extend(scan(reader, room, tail.upto)?);
        remember(reader, room, Tail { after: tail.after, upto: reader.pos, events })
    };
    let wanted = tail.events.iter().filter(|(pos, _)| *pos > since && *pos <= reader.pos);
    Ok(wanted.map(|(_, num)| *num).collect())
}

/// Keeps the list, without what is too much of it, unless a later one is kept already. Returns it whole.
fn remember(reader: &Reader, room: RoomNum, tail: Tail) -> Arc<Tail> {
    let tails = &reader.shared.memo.unread.tails;
    if tails.get(&room).is_some_and(|kept| kept.upto > tail.upto) {
        return Arc::new(tail);
    }
    let surplus = tail.events.len().saturating_sub(TAIL_EVENTS_MAX);
    let kept = match surplus.checked_sub(1).and_then(|last| tail.events.get(last)) {
        None => Arc::new(tail),
        Some((after, _)) => {
            let events = tail.events.get(surplus..).unwrap_or_default().to_vec();
            let kept = Tail { after: *after, upto: tail.upto, events };
            tails.replace(room, Arc::new(kept), weight());
            return Arc::new(tail);
        }
    };
    tails.replace(room, kept.clone(), weight());
    kept
}

/// Every list counts as a full one: it becomes one.
fn weight() -> usize {
    TAIL_BYTES + TAIL_EVENTS_MAX * size_of::<(StreamPos, EventNum)>()
}

fn scan(reader: &Reader, room: RoomNum, since: StreamPos) -> Result<Vec<(StreamPos, EventNum)>> {
    let mut events = Vec::new();
    let (start, end) = ((room, behind(since)), (room, behind(reader.pos)));
    reader.scan_between(&schema::TIMELINE, &start, &end, Direction::Backward, |(_, pos), num| {
        events.push((pos, num));
        events.len() < LOOK_BACK_EVENTS_MAX
    })?;
    events.reverse();
    Ok(events)
}

fn behind(pos: StreamPos) -> StreamPos {
    StreamPos(pos.0.saturating_add(1))
}
