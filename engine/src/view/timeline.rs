//! Stretches of a room's timeline.

use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    store::{Direction, Reader, StorageError, schema},
};

/// A stretch of a timeline.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// The events with their positions, oldest first.
    pub events: Vec<(StreamPos, EventNum)>,
    /// Whether there are more that did not fit.
    pub limited: bool,
}

/// The last `limit` events after `after` and up to `until`. O(limit).
pub(crate) fn tail(
    reader: &Reader,
    room: RoomNum,
    after: StreamPos,
    until: StreamPos,
    limit: usize,
) -> Result<Stretch, StorageError> {
    let mut events = Vec::with_capacity(limit.min(64));
    let mut limited = false;
    let (start, end) = ((room, StreamPos(after.0.saturating_add(1))), (room, StreamPos(until.0.saturating_add(1))));
    reader.scan_between(&schema::TIMELINE, &start, &end, Direction::Backward, |(_, pos), event| {
        limited = events.len() == limit;
        if !limited {
            events.push((pos, event));
        }
        !limited
    })?;
    events.reverse();
    Ok(Stretch { events, limited })
}

/// The last event at or before `until`.
pub(crate) fn last_at(reader: &Reader, room: RoomNum, until: StreamPos) -> Result<Option<EventNum>, StorageError> {
    Ok(tail(reader, room, StreamPos(i64::MIN), until, 1)?.events.first().map(|(_, event)| *event))
}
