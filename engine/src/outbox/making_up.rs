//! What a server that catches up is sent of rooms that it leaves meanwhile: it was to fetch what it missed there from where they
//! end, and nobody gives it anything there any more.
//!
//! Invariant: of each stay that ends while the server catches up it is sent what went out since that began, up to where it had
//! been brought when the end was seen; what is behind comes with all others. How far this is stands in the server's row.

use super::delivery::{Span, behind, events_for, outgoing};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos, TextNum},
    store::{
        Direction, Reader, StorageError, schema,
        schema::{Destination, MakingUp},
    },
};

/// The server catches up from where it is, to `known_to`. Stays that have ended by then are sent in their places.
pub(super) fn begin(row: &mut Destination, known_to: StreamPos) {
    let (from, end, sent_to) = (row.delivered_to, known_to, known_to);
    row.making_up = Some(MakingUp { from, end, sent_to, in_flight: None });
}

/// The next events that are made up for, at most `events_max`; none if there is nothing to make up for. It is noted in the row
/// where it is once the server has them. O(rooms that the server ever was in) while it catches up.
pub(crate) fn next(
    reader: &Reader,
    server: TextNum,
    row: &mut Destination,
    known_to: StreamPos,
    events_max: usize,
) -> Result<Vec<EventNum>, StorageError> {
    let (delivered_to, catches_up) = (row.delivered_to, row.catch_up_to > row.delivered_to);
    let Some(making_up) = row.making_up.as_mut().filter(|_| catches_up) else { return Ok(Vec::new()) };
    let name = reader.text(server)?;
    for (end, start, room) in ended(reader, server, making_up, known_to)? {
        let sent_to = if end == making_up.end { making_up.sent_to } else { StreamPos::ZERO };
        let mut from = start.max(behind(making_up.from)).max(behind(sent_to));
        loop {
            let (span, mut found) = (Span { room, from, to: end.min(delivered_to) }, Vec::new());
            outgoing(reader, span, Direction::Forward, events_max, &mut found)?;
            let Some((last, _)) = found.last().copied() else { break };
            let events = events_for(reader, &name, found)?;
            if !events.is_empty() {
                making_up.in_flight = Some((end, last));
                return Ok(events);
            }
            from = behind(last);
        }
    }
    Ok(Vec::new())
}

/// The server has taken what was in flight.
pub(crate) fn taken(row: &mut Destination) {
    if let Some(making_up) = &mut row.making_up
        && let Some((end, sent_to)) = making_up.in_flight.take()
    {
        (making_up.end, making_up.sent_to) = (end, sent_to);
    }
}

/// The stays that ended since what is made up for, by their ends.
fn ended(
    reader: &Reader,
    server: TextNum,
    making_up: &MakingUp,
    known_to: StreamPos,
) -> Result<Vec<(StreamPos, StreamPos, RoomNum)>, StorageError> {
    let mut ended = Vec::new();
    reader.scan(&schema::SERVER_STAYS, &server, Direction::Forward, |(_, room, start), end| {
        if (making_up.end..=known_to).contains(&end) {
            ended.push((end, start, room));
        }
        true
    })?;
    ended.sort_unstable();
    Ok(ended)
}
