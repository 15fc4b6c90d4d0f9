//! What a server that catches up is sent of rooms that it leaves meanwhile: it was to fetch what it missed there from where they
//! end, and nobody gives it anything there any more.
//!
//! Invariant: of each stay that ends before the server has taken all with which it catches up it is sent what went out since that
//! began, up to where it had been brought when the end was seen; what is behind comes with all others. How far this is stands in the server's row.

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
/// where it is once the server has them. What it was sent last while it caught up may still have been under way when a stay
/// ended, so that this goes on until it has taken that. O(rooms that the server ever was in) until then.
pub(crate) fn next(
    reader: &Reader,
    server: TextNum,
    row: &mut Destination,
    known_to: StreamPos,
    events_max: usize,
) -> Result<Vec<EventNum>, StorageError> {
    let catches_up = row.catch_up_to > row.delivered_to;
    // Behind where it catches up to it is sent everything.
    let brought_to = row.delivered_to.min(row.catch_up_to);
    let Some(making_up) = &mut row.making_up else { return Ok(Vec::new()) };
    let name = reader.text(server)?;
    let ended = ended(reader, server, making_up)?;
    let (seen, later) = ended.split_at(ended.partition_point(|(end, ..)| *end <= known_to));
    for (end, start, room) in seen.iter().copied() {
        let sent_to = if end == making_up.end { making_up.sent_to } else { StreamPos::ZERO };
        let mut from = start.max(behind(making_up.from)).max(behind(sent_to));
        loop {
            let (span, mut found) = (Span { room, from, to: end.min(brought_to) }, Vec::new());
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
    if catches_up || !later.is_empty() {
        // What the server is sent of these stays from now on comes with all the rest.
        (making_up.end, making_up.sent_to) = (known_to, known_to);
    } else {
        row.making_up = None;
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
) -> Result<Vec<(StreamPos, StreamPos, RoomNum)>, StorageError> {
    let mut ended = Vec::new();
    reader.scan(&schema::SERVER_STAYS, &server, Direction::Forward, |(_, room, start), end| {
        if (making_up.end..StreamPos::MAX).contains(&end) {
            ended.push((end, start, room));
        }
        true
    })?;
    ended.sort_unstable();
    Ok(ended)
}
