//! Where a room ends for a server that was silent for long: from there it fetches what it missed.
//!
//! Invariant: whatever went out in the room meanwhile comes before one of these, as far as it is looked. What other servers
//! said is theirs to tell.

use std::collections::{BTreeSet, HashSet};

use super::delivery::{Span, is_for, outgoing};
use crate::{
    core::num::{EventNum, StreamPos},
    store::{Direction, Positioned, Reader, StorageError, schema, schema::EventHeader},
};

/// Events that are looked at from the room's ends backwards, behind what other servers said last. What is not found then, in a
/// room with as many ends or of as much talk, comes before the last event that went out, or before what will be said next.
const WALKED_MAX: usize = 100;
/// The most rows that are looked at together for the last that is not of the server's own making.
const ROWS_AT_ONCE_MAX: usize = 64;

/// The events of the span with which the server is to begin, in order.
pub(super) fn ends(
    reader: &Reader,
    server: &str,
    span: Span,
) -> Result<BTreeSet<(StreamPos, EventNum)>, StorageError> {
    let mut found = BTreeSet::new();
    // All that went out may be of its own making.
    let Some(last) = last(reader, server, span)? else { return Ok(found) };
    found.insert(last);
    let Some(head) = reader.get(&schema::ROOM_HEADS, &span.room)? else { return Ok(found) };
    let mut next: Vec<EventNum> = head.extremities.iter().map(|(num, _)| *num).collect();
    // The newest first.
    next.sort_unstable_by(|one, other| other.cmp(one));
    let mut seen = HashSet::new();
    while !next.is_empty() {
        next.retain(|num| seen.len() < WALKED_MAX && seen.insert(*num));
        let mut before = Vec::new();
        for (num, header) in headers(reader, &next)? {
            let (pos, header) = (header.pos, header.value);
            if pos < span.from {
                continue;
            }
            let goes_out = reader.has(&schema::OUTGOING_EVENTS, &(span.room, pos))?;
            if !goes_out || !is_for(reader, server, &header)? {
                before.extend(header.prev);
            } else if pos <= span.to {
                found.insert((pos, num));
            }
        }
        next = before;
    }
    Ok(found)
}

/// The last event of the span that is for the server. Of its own making are only memberships that were passed on.
fn last(
    reader: &Reader,
    server: &str,
    mut span: Span,
) -> Result<Option<(StreamPos, EventNum)>, StorageError> {
    let mut limit = 1;
    loop {
        let mut rows = Vec::new();
        outgoing(reader, span, Direction::Backward, limit, &mut rows)?;
        let nums: Vec<EventNum> = rows.iter().map(|(_, num)| *num).collect();
        let mut of_others = HashSet::new();
        for (num, header) in headers(reader, &nums)? {
            if is_for(reader, server, &header.value)? {
                of_others.insert(num);
            }
        }
        if let Some(row) = rows.iter().find(|(_, num)| of_others.contains(num)) {
            return Ok(Some(*row));
        }
        match rows.last() {
            Some((pos, _)) if rows.len() == limit => span.to = StreamPos(pos.0.saturating_sub(1)),
            _ => return Ok(None),
        }
        limit = (limit * 2).min(ROWS_AT_ONCE_MAX);
    }
}

/// What is known of the events without what they say, of those that are there.
fn headers(
    reader: &Reader,
    nums: &[EventNum],
) -> Result<Vec<(EventNum, Positioned<EventHeader>)>, StorageError> {
    let headers = reader.get_many(&schema::EVENT_HEADERS, nums.iter().copied())?;
    Ok(nums.iter().zip(headers).filter_map(|(num, header)| Some((*num, header?))).collect())
}
