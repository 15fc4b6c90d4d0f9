//! `/timestamp_to_event`: the event of a room that is closest to a time.
//!
//! Invariant: exact where timestamps ascend along the timeline, as they do but for the clocks of other servers; close to
//! it otherwise. O(log n) reads.
//! Specification: client-server API, `GET /rooms/{roomId}/timestamp_to_event`.

use crate::{
    core::{
        filter::RoomEventFilter,
        num::{EventNum, RoomNum, StreamPos},
    },
    error::Result,
    room::{gap, visibility::Viewer},
    store::{Direction, Reader, StorageError, schema},
    view::{
        View, timeline,
        timeline::{AtGaps, Stretch},
    },
};

/// The event closest to a time, in one direction from it.
pub struct EventByTimestamp {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user: String,
    /// Milliseconds since the epoch.
    pub ts: u64,
    /// The first event at or after the time, or the last at or before it.
    pub forwards: bool,
}

/// What there is at a time, as far as it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosestEvent {
    /// The closest event's id and its timestamp in milliseconds since the epoch.
    pub event: Option<(String, u64)>,
    /// The gap in the timeline at that time, where closer ones may be missing: the position of the event behind it.
    pub gap: Option<StreamPos>,
}

impl EventByTimestamp {
    /// Whether an event with a timestamp is closer than what was found, in the direction that is asked for.
    pub fn is_closer(&self, origin_server_ts: u64, than: &ClosestEvent) -> bool {
        let found = than.event.as_ref().map(|(_, found)| *found);
        match self.forwards {
            true => origin_server_ts >= self.ts && found.is_none_or(|found| origin_server_ts < found),
            false => origin_server_ts <= self.ts && found.is_none_or(|found| origin_server_ts > found),
        }
    }
}

impl View for EventByTimestamp {
    type Output = ClosestEvent;

    fn read(&self, reader: &Reader) -> Result<ClosestEvent> {
        let (mut viewer, access) = Viewer::enter(reader, &self.room_id, &self.user)?;
        let last = access.last(reader);
        let split = first_not_before(reader, viewer.room, last, |event_ts| match self.forwards {
            true => event_ts < self.ts,
            false => event_ts <= self.ts,
        })?;
        let stretch = match self.forwards {
            true => Stretch { after: split, up_to: last, direction: Direction::Forward, limit: 1 },
            false => {
                Stretch { after: StreamPos(i64::MIN), up_to: split, direction: Direction::Backward, limit: 1 }
            }
        };
        // One page looks at thousands of events; what is not visible within one is too far away to be of use.
        let page =
            timeline::page(reader, &mut viewer, stretch, &RoomEventFilter::default(), &AtGaps::Behind)?;
        let found = page.events.first();
        let event = found.map(|event| (event.event_id.to_string(), event.header.origin_server_ts));
        Ok(ClosestEvent { event, gap: gap::between(reader, viewer.room, split)? })
    }
}

/// The position behind which the timeline no longer satisfies `is_before`: halving the range of positions, each time
/// looking at the first event at or behind the middle.
pub(crate) fn first_not_before(
    reader: &Reader,
    room: RoomNum,
    last: StreamPos,
    is_before: impl Fn(u64) -> bool,
) -> Result<StreamPos, StorageError> {
    let Some((first, _)) = next_event(reader, room, StreamPos(i64::MIN), last)? else { return Ok(last) };
    // All events up to `low` are before; none behind `high` is.
    let (mut low, mut high) = (StreamPos(first.0.saturating_sub(1)), last);
    while low < high {
        let middle = StreamPos(low.0 + (high.0 - low.0) / 2);
        match next_event(reader, room, middle, high)? {
            Some((pos, num)) if is_before(reader.event(num)?.header.origin_server_ts) => low = pos,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first event behind `after`, up to `up_to`.
fn next_event(
    reader: &Reader,
    room: RoomNum,
    after: StreamPos,
    up_to: StreamPos,
) -> Result<Option<(StreamPos, EventNum)>, StorageError> {
    let mut found = None;
    let (from, to) =
        ((room, StreamPos(after.0.saturating_add(1))), (room, StreamPos(up_to.0.saturating_add(1))));
    reader.scan_between(&schema::TIMELINE, &from, &to, Direction::Forward, |(_, pos), num| {
        found = Some((pos, num));
        false
    })?;
    Ok(found)
}
