//! The last events of a room, listed once for all the members who ask at the same time.
//!
//! Invariant: a list is used as long as rows are only added behind its last one; what fetches or purges history touches
//! it ([`Touch::History`](crate::stream::Touch::History)).

use std::sync::Arc;

use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    store::{Cache, Direction, Reader, StorageError, schema},
};

/// How many events of a room are kept listed: a wake-up is for one or a few.
pub(crate) const TAIL_EVENTS_MAX: usize = 64;
/// What a list costs besides its events.
const TAIL_BYTES: usize = 128;
/// Before all events.
const BEGINNING: StreamPos = StreamPos(i64::MIN);

/// Lists by room.
pub(crate) type Tails = Cache<RoomNum, Tail>;

/// A row of a timeline.
pub(crate) type Row = (StreamPos, EventNum);

/// The events of a room behind `after` up to `up_to`.
pub(crate) struct Tail {
    after: StreamPos,
    up_to: StreamPos,
    /// The position of the reader that read its oldest part.
    read_at: StreamPos,
    events: Vec<Row>,
}

impl Tail {
    /// The events behind `after` up to `up_to`, which must be within the list.
    pub fn between(&self, after: StreamPos, up_to: StreamPos) -> &[Row] {
        let start = self.events.partition_point(|(pos, _)| *pos <= after);
        let end = self.events.partition_point(|(pos, _)| *pos <= up_to);
        self.events.get(start..end).unwrap_or_default()
    }

    /// A position before `pos` behind which no event comes before it.
    pub fn last_before(&self, pos: StreamPos) -> StreamPos {
        let before = self.events.partition_point(|(at, _)| *at < pos).checked_sub(1);
        before.and_then(|before| self.events.get(before)).map_or(self.after, |(at, _)| *at)
    }
}

/// The list of the room's events, if it reaches from `since` to the reader's position; read as far as it is not known yet.
pub(crate) fn since(
    reader: &Reader,
    room: RoomNum,
    since: StreamPos,
) -> Result<Option<Arc<Tail>>, StorageError> {
    let tail = match known(reader, room) {
        Some(tail) if tail.after > since => return Ok(None),
        Some(tail) => extended(reader, room, tail)?,
        None => remember(reader, room, read(reader, room, since, TAIL_EVENTS_MAX)?),
    };
    Ok(Some(tail).filter(|tail| tail.after <= since))
}

/// The numbers of the room's events behind `since`, ascending; not more than `events_max`, the last ones.
pub(crate) fn events_since(
    reader: &Reader,
    room: RoomNum,
    since: StreamPos,
    events_max: usize,
) -> Result<Vec<EventNum>, StorageError> {
    let Some(tail) = known(reader, room).filter(|tail| tail.after <= since) else {
        let tail = remember(reader, room, read(reader, room, since, events_max)?);
        return Ok(tail.events.iter().map(|(_, num)| *num).collect());
    };
    let tail = extended(reader, room, tail)?;
    Ok(tail.between(since, reader.pos).iter().map(|(_, num)| *num).collect())
}

/// The room's last events up to the reader's position, ascending: `count` of them, at most [`TAIL_EVENTS_MAX`], or all.
pub(crate) fn last(reader: &Reader, room: RoomNum, count: usize) -> Result<Vec<Row>, StorageError> {
    let count = count.min(TAIL_EVENTS_MAX);
    let known = known(reader, room).map(|tail| extended(reader, room, tail)).transpose()?;
    let is_enough =
        |tail: &Arc<Tail>| tail.after == BEGINNING || tail.between(BEGINNING, reader.pos).len() >= count;
    let tail = match known.filter(is_enough) {
        Some(tail) => tail,
        None => remember(reader, room, read(reader, room, BEGINNING, count)?),
    };
    let rows = tail.between(BEGINNING, reader.pos);
    Ok(rows.get(rows.len().saturating_sub(count)..).unwrap_or_default().to_vec())
}

/// The list that is kept, unless history has changed since it was read.
fn known(reader: &Reader, room: RoomNum) -> Option<Arc<Tail>> {
    let tail = reader.shared.memo.tails.get(&room)?;
    let is_other = reader.shared.watch.marks.may_have_other_history(room, tail.read_at);
    (!is_other).then_some(tail)
}

/// The list with what has come until the reader's position.
fn extended(reader: &Reader, room: RoomNum, tail: Arc<Tail>) -> Result<Arc<Tail>, StorageError> {
    if tail.up_to >= reader.pos {
        return Ok(tail);
    }
    let mut events = tail.events.clone();
    events.extend(read(reader, room, tail.up_to, usize::MAX)?.events);
    Ok(remember(reader, room, Tail { up_to: reader.pos, events, ..*tail }))
}

/// Keeps the list, without what is too much of it, unless a later one is kept already. Returns it whole.
fn remember(reader: &Reader, room: RoomNum, tail: Tail) -> Arc<Tail> {
    let tails = &reader.shared.memo.tails;
    let is_behind = known(reader, room).is_some_and(|kept| kept.up_to > tail.up_to);
    let surplus = tail.events.len().saturating_sub(TAIL_EVENTS_MAX);
    let whole = Arc::new(tail);
    if is_behind {
        return whole;
    }
    let kept = match surplus.checked_sub(1).and_then(|last| whole.events.get(last)) {
        None => whole.clone(),
        Some((after, _)) => {
            let events = whole.events.get(surplus..).unwrap_or_default().to_vec();
            Arc::new(Tail { after: *after, events, ..*whole })
        }
    };
    let weight = TAIL_BYTES + kept.events.len() * size_of::<Row>();
    tails.replace(room, kept, weight);
    whole
}

/// The list of what is behind `since`; of more than `events_max` events, of the last ones.
fn read(reader: &Reader, room: RoomNum, since: StreamPos, events_max: usize) -> Result<Tail, StorageError> {
    let mut events = Vec::new();
    let (start, end) = ((room, behind(since)), (room, behind(reader.pos)));
    reader.scan_between(&schema::TIMELINE, &start, &end, Direction::Backward, |(_, pos), num| {
        events.push((pos, num));
        events.len() < events_max
    })?;
    events.reverse();
    let first = events.first().filter(|_| events.len() >= events_max);
    let after = first.map_or(since, |(first, _)| StreamPos(first.0.saturating_sub(1)));
    Ok(Tail { after, up_to: reader.pos, read_at: reader.pos, events })
}

fn behind(pos: StreamPos) -> StreamPos {
    StreamPos(pos.0.saturating_add(1))
}
