//! `/timestamp_to_event`: the event of a room that is closest to a time.
//!
//! Invariant: exact where timestamps ascend along the timeline, as they do but for the clocks of other servers. Events of wrong times
//! mislead nobody who asks for another time, as long as they are the lesser part of what stands around them; a longer run of them, such
//! as a history that was brought in behind later events, may. O(log n) reads.
//! Specification: client-server API, `GET /rooms/{roomId}/timestamp_to_event`.

use std::sync::Arc;

use crate::{
    core::{
        filter::RoomEventFilter,
        num::{RoomNum, StreamPos},
    },
    error::Result,
    room::{Event, gap, visibility::Viewer},
    store::{Direction, Reader, StorageError, schema},
    view::{
        View, timeline,
        timeline::{AtGaps, Stretch},
    },
};

/// How many events are compared where others would look at one, which may be of a wrong time.
pub(crate) const EVENTS_COMPARED: usize = 32;

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
        let stretch = split.stretch(self.forwards, last);
        // One page looks at thousands of events; what is not visible within one is too far away to be of use.
        let no_gaps = AtGaps::AtFree { free: Vec::new(), passes_first: true };
        let page = timeline::page(reader, &mut viewer, stretch, &RoomEventFilter::default(), &no_gaps)?;
        let found = closest(&page.events, self.ts, self.forwards, split.pos);
        let event = found.map(|event| (event.event_id.to_string(), event.header.origin_server_ts));
        Ok(ClosestEvent { event, gap: gap::between(reader, viewer.room, split.pos)? })
    }
}

/// Where the timeline has passed a time, as most events around tell.
#[derive(Clone, Copy)]
pub(crate) struct Split {
    /// The last position before.
    pub pos: StreamPos,
    /// The positions before the first, and of the last, of the events that were compared.
    compared: (StreamPos, StreamPos),
}

impl Split {
    /// The stretch in which the event closest to the time is looked for, in the timeline up to `last`: also among those that were
    /// compared and stand on the other side.
    pub fn stretch(&self, forwards: bool, last: StreamPos) -> Stretch {
        let (first, up_to) = self.compared;
        let limit = 3 * EVENTS_COMPARED;
        match forwards {
            true => Stretch { after: first, up_to: last, direction: Direction::Forward, limit },
            false => Stretch { after: StreamPos(i64::MIN), up_to, direction: Direction::Backward, limit },
        }
    }
}

/// The event among those of a stretch, in their order, whose time is the closest to `ts` in the direction that is asked for. Where
/// none is in that direction, the one next to where the timeline has passed the time.
pub(crate) fn closest(
    found: &[Arc<Event>],
    ts: u64,
    forwards: bool,
    split: StreamPos,
) -> Option<&Arc<Event>> {
    let distance = |event: &Event| {
        let event_ts = event.header.origin_server_ts;
        if forwards { event_ts.checked_sub(ts) } else { ts.checked_sub(event_ts) }
    };
    let in_direction = found.iter().filter_map(|event| distance(event).map(|distance| (distance, event)));
    let next = || found.iter().find(|event| (event.pos() > split) == forwards);
    in_direction.min_by_key(|(distance, _)| *distance).map(|(_, event)| event).or_else(next)
}

/// The position behind which the timeline no longer satisfies `is_before`: halving the range of positions, each time
/// looking at the first events behind the middle, of which the most decide.
pub(crate) fn first_not_before(
    reader: &Reader,
    room: RoomNum,
    last: StreamPos,
    is_before: impl Fn(u64) -> bool,
) -> Result<Split, StorageError> {
    let look = |after, up_to, direction| events_at(reader, room, (after, up_to), direction, &is_before);
    let first = timeline::rows(reader, room, stretch_of(StreamPos(i64::MIN), last), 1)?;
    let Some((first, _)) = first.first() else { return Ok(Split { pos: last, compared: (last, last) }) };
    // Most of what stands around `low` is before; most of what is around `high` is not.
    let (mut low, mut high) = (StreamPos(first.0.saturating_sub(1)), last);
    while low < high {
        let middle = StreamPos(low.0 + (high.0 - low.0) / 2);
        let found = look(middle, high, Direction::Forward)?;
        let before = found.iter().filter(|(_, is_before)| *is_before).count();
        match found.iter().find(|(_, is_before)| *is_before) {
            Some((pos, _)) if before * 2 > found.len() => low = *pos,
            _ => high = middle,
        }
    }
    let mut around = look(StreamPos(i64::MIN), low, Direction::Backward)?;
    around.reverse();
    around.extend(look(low, last, Direction::Forward)?);
    let first = around.first().map_or(low, |(pos, _)| StreamPos(pos.0.saturating_sub(1)));
    let compared = (first, around.last().map_or(low, |(pos, _)| *pos));
    Ok(Split { pos: best_split(&around).unwrap_or(low), compared })
}

/// The place among events, in their order, that has the fewest on the wrong side of it: what is not before on this side, and what is
/// on the other.
fn best_split(events: &[(StreamPos, bool)]) -> Option<StreamPos> {
    let (first, _) = events.first()?;
    let mut wrong = events.iter().filter(|(_, is_before)| *is_before).count();
    let mut best = (wrong, StreamPos(first.0.saturating_sub(1)));
    for (pos, is_before) in events {
        wrong = if *is_before { wrong.saturating_sub(1) } else { wrong + 1 };
        if wrong < best.0 {
            best = (wrong, *pos);
        }
    }
    Some(best.1)
}

/// Some events of a stretch, with whether they are before.
fn events_at(
    reader: &Reader,
    room: RoomNum,
    (after, up_to): (StreamPos, StreamPos),
    direction: Direction,
    is_before: impl Fn(u64) -> bool,
) -> Result<Vec<(StreamPos, bool)>, StorageError> {
    let stretch = Stretch { direction, ..stretch_of(after, up_to) };
    let rows = timeline::rows(reader, room, stretch, EVENTS_COMPARED)?;
    let headers = reader.get_many(&schema::EVENT_HEADERS, rows.iter().map(|(_, num)| *num))?;
    let times = headers.into_iter().map(|header| header.map(|header| header.value.origin_server_ts));
    let timed = rows.into_iter().zip(times);
    Ok(timed.filter_map(|((pos, _), ts)| Some((pos, is_before(ts?)))).collect())
}

fn stretch_of(after: StreamPos, up_to: StreamPos) -> Stretch {
    Stretch { after, up_to, direction: Direction::Forward, limit: EVENTS_COMPARED }
}
