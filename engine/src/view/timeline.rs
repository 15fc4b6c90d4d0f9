//! A stretch of a room's timeline as one user may see it: what `/messages`, `/context` and searches by time have in common.
//!
//! Invariant: following a page's end in one direction shows every visible event once, in order, and those that are filled
//! into a gap meanwhile; a page reads a bounded number of events, however few of them match. Every page that has an end either looked
//! at an event, so that reading on comes to an end, or awaits what is asked for. But for one case: where the room's graph forks, an
//! event of a gap may wait for its state while what is less deep is filled in below the place that is kept for it. A client that
//! reads on below that place before the state has come is not given the event; one that reads the stretch again is.

use std::sync::Arc;

use crate::{
    core::{
        filter::{RoomEventFilter, content_has_url},
        num::{EventNum, RoomNum, StreamPos},
    },
    error::Result,
    room::{Event, gap, relations::RelationClass, tail, visibility::Viewer},
    store::{Direction, Reader, StorageError, schema},
};

/// How many events one page looks at before it is given as it is, with a token to go on: some 30 ms of work.
const LOOKED_AT_MAX: usize = 10_000;
/// How many events are read at once at least when most of them are not wanted.
const READ_AT_ONCE_MIN: usize = 100;

/// Which stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Positions above this one …
    pub after: StreamPos,
    /// … up to this one.
    pub up_to: StreamPos,
    /// From which end.
    pub direction: Direction,
    /// Most events to find.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// In the direction of reading.
    pub events: Vec<Arc<Event>>,
    /// Behind which position to go on, if there may be more: for backwards the upper end of the rest, for forwards the
    /// lower one.
    pub rest: Option<StreamPos>,
    /// Whether there are state events between these that are not among them.
    pub passes_over_state: bool,
    /// Whether the filter lets some of those through, and only the viewer may not see them.
    pub hides_state: bool,
}

/// Where gaps end a page.
#[derive(Debug)]
pub(crate) enum AtGaps {
    /// With the first event behind one, shown or not.
    Behind,
    /// Where what is missing would stand.
    AtFree {
        /// The first position to fill of each gap of the room, in order.
        free: Vec<StreamPos>,
        /// Whether a page that begins there goes beyond: what is missing is not to be had.
        passes_first: bool,
    },
}

impl AtGaps {
    /// The gaps of a room as they are now.
    pub fn of(reader: &Reader, room: RoomNum, passes_first: bool) -> Result<Self, StorageError> {
        let mut free = Vec::new();
        reader.scan(
            &schema::GAPS,
            &room,
            Direction::Forward,
            |_: (RoomNum, StreamPos), first: StreamPos| {
                free.push(first);
                true
            },
        )?;
        free.sort_unstable();
        Ok(Self::AtFree { free, passes_first })
    }

    /// Whether the page is not to go on to the event that is the `next` one of its `rest`, or to the end of that if there is none.
    fn end_before(&self, next: Option<StreamPos>, rest: Stretch, is_beginning: bool) -> bool {
        let Self::AtFree { free, passes_first } = self else { return false };
        // What was filled in last stands just above what is free, and before that is what is missing.
        let (after, up_to) = match rest.direction {
            Direction::Backward => (next.unwrap_or(rest.after), rest.up_to),
            // Who begins with the first event that is here has left nothing out.
            Direction::Forward if rest.after == StreamPos(i64::MIN) => return false,
            Direction::Forward => (rest.after, next.unwrap_or(rest.up_to)),
        };
        let first = free.get(free.partition_point(|free| *free <= after));
        first.is_some_and(|free| *free <= up_to) && !(is_beginning && *passes_first)
    }

    /// Whether the page is not to go on from the event, whether or not it is shown.
    fn end_behind(&self, reader: &Reader, event: &Event) -> Result<bool, StorageError> {
        match self {
            Self::Behind => gap::is_open_before(reader, event),
            Self::AtFree { .. } => Ok(false),
        }
    }
}

impl Stretch {
    /// What is left of it beyond `pos`, which was looked at last.
    fn beyond(self, pos: StreamPos) -> Self {
        match self.direction {
            Direction::Backward => Self { up_to: StreamPos(pos.0.saturating_sub(1)), ..self },
            Direction::Forward => Self { after: pos, ..self },
        }
    }

    /// The token to go on from.
    fn edge(self) -> StreamPos {
        match self.direction {
            Direction::Backward => self.up_to,
            Direction::Forward => self.after,
        }
    }
}

/// The events of `stretch` that the viewer may see and the filter lets through.
pub(crate) fn page(
    reader: &Reader,
    viewer: &mut Viewer<'_>,
    stretch: Stretch,
    filter: &RoomEventFilter,
    gaps: &AtGaps,
) -> Result<Page> {
    let mut page = Page::default();
    let room_id = reader.room_id(viewer.room)?;
    if filter.is_nothing() || !filter.includes_room(&room_id) {
        page.passes_over_state = true;
        return Ok(page);
    }
    let mut rest = stretch;
    let mut looked_at = 0;
    loop {
        let wanted = stretch.limit - page.events.len();
        let batch = if looked_at == 0 { wanted } else { wanted.max(READ_AT_ONCE_MIN) };
        // One more than is looked at, to know whether there is more.
        let mut rows = rows(reader, viewer.room, rest, batch + 1)?;
        let is_end = rows.len() <= batch;
        rows.truncate(batch);
        let nums: Vec<EventNum> = rows.iter().map(|(_, num)| *num).collect();
        for ((pos, _), event) in rows.iter().zip(reader.events(&nums)?) {
            if page.events.len() == stretch.limit || gaps.end_before(Some(*pos), rest, rest == stretch) {
                page.rest = Some(rest.edge());
                return Ok(page);
            }
            rest = rest.beyond(*pos);
            let is_last = gaps.end_behind(reader, &event)?;
            page.take(reader, viewer, filter, &room_id, event)?;
            if is_last {
                page.rest = Some(rest.edge());
                return Ok(page);
            }
        }
        looked_at += rows.len();
        if is_end {
            // Whatever became of the events that were looked at: what is missing may be visible, and wanted.
            if gaps.end_before(None, rest, rest == stretch) {
                page.rest = Some(rest.edge());
            }
            return Ok(page);
        }
        if page.events.len() == stretch.limit || looked_at >= LOOKED_AT_MAX {
            page.rest = Some(rest.edge());
            return Ok(page);
        }
    }
}

impl Page {
    /// Takes the event in if the filter lets it through and the viewer may see it.
    fn take(
        &mut self,
        reader: &Reader,
        viewer: &mut Viewer<'_>,
        filter: &RoomEventFilter,
        room_id: &str,
        event: Arc<Event>,
    ) -> Result<()> {
        // What is not shown is nothing to ask for either.
        let redacted = match filter.is_everything() {
            true => None,
            false => viewer.redacted(&event)?,
        };
        let is_wanted = matches(reader, filter, room_id, redacted.as_ref().unwrap_or(&event))?;
        if is_wanted && viewer.may_see(&event)? {
            self.events.push(event);
            return Ok(());
        }
        if event.header.state_key.is_some() {
            self.passes_over_state = true;
            self.hides_state |= is_wanted;
        }
        Ok(())
    }
}

/// The first `count` rows of a stretch, whoever may see them.
pub(crate) fn rows(
    reader: &Reader,
    room: RoomNum,
    stretch: Stretch,
    count: usize,
) -> Result<Vec<(StreamPos, EventNum)>, StorageError> {
    let mut rows = Vec::with_capacity(count);
    let from = (room, StreamPos(stretch.after.0.saturating_add(1)));
    let to = (room, StreamPos(stretch.up_to.0.saturating_add(1)));
    if from.1 >= to.1 {
        return Ok(rows);
    }
    // What has just come is listed in memory; older stretches would only drive that out.
    if stretch.direction == Direction::Backward && stretch.up_to == reader.pos {
        if stretch.after > StreamPos(i64::MIN) {
            if let Some(tail) = tail::since(reader, room, stretch.after)? {
                let rows = tail.between(stretch.after, stretch.up_to);
                return Ok(rows.iter().rev().take(count).copied().collect());
            }
        } else if count <= tail::TAIL_EVENTS_MAX {
            let mut rows = tail::last(reader, room, count)?;
            rows.reverse();
            return Ok(rows);
        }
    }
    reader.scan_between(&schema::TIMELINE, &from, &to, stretch.direction, |(_, pos), num| {
        rows.push((pos, num));
        rows.len() < count
    })?;
    Ok(rows)
}

/// Whether the filter lets the event through.
pub(crate) fn matches(
    reader: &Reader,
    filter: &RoomEventFilter,
    room_id: &str,
    event: &Event,
) -> Result<bool> {
    if filter.is_everything() {
        return Ok(true);
    }
    let kind = reader.text(event.header.kind)?;
    let sender = reader.user_id(event.header.sender)?;
    let has_url = || event.pdu().is_ok_and(|pdu| content_has_url(&pdu.content));
    if !filter.matches(&kind, &sender, room_id, has_url) {
        return Ok(false);
    }
    if !filter.needs_relations() {
        return Ok(true);
    }
    for class in RelationClass::ALL {
        for related in reader.relations_to(event.header.room, class, &[event.num])? {
            let rel_type = reader.text(related.relation.rel_type)?;
            let sender = reader.user_id(related.relation.sender)?;
            if listed(&filter.related_by_rel_types, &rel_type) && listed(&filter.related_by_senders, &sender)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the list has the name; an empty list asks for nothing.
fn listed(list: &[Box<str>], name: &str) -> bool {
    list.is_empty() || list.iter().any(|entry| **entry == *name)
}

/// Whether events of the room behind `after` have been purged.
pub(crate) fn is_cut(reader: &Reader, room: RoomNum, after: StreamPos) -> Result<bool, StorageError> {
    let start = reader.get(&schema::HISTORY_STARTS, &room)?;
    Ok(start.is_some_and(|start| start.0 > after.0.saturating_add(1)))
}

/// The last event of a room at or before `until`. O(1).
pub(crate) fn last_at(
    reader: &Reader,
    room: RoomNum,
    until: StreamPos,
) -> Result<Option<EventNum>, StorageError> {
    let stretch =
        Stretch { after: StreamPos(i64::MIN), up_to: until, direction: Direction::Backward, limit: 1 };
    Ok(rows(reader, room, stretch, 1)?.first().map(|(_, num)| *num))
}
