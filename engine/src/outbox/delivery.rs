//! Which events are next for a server.
//!
//! Invariant: events go out in the order of their positions, so those of one room in the order of the room; an event goes to
//! a server that was in the room when it came, never back to the server whose user made it. After a long silence a server
//! is sent of each room that it is in only where the room ends (`catch_up`), from which it fetches what it missed; of a room
//! that it has left, where nobody would give it anything, all up to that, and of one that this server has left, which nobody
//! asks for anything any more, all that it was not sent. Then too in the order of positions, so that one position says how far
//! it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{Failure, FirstEnds, Pause, catch_up, making_up};
use crate::{
    core::{
        identifiers::server_name,
        limits::OWN_PREV_EVENTS_MAX,
        num::{EventNum, RoomNum, StreamPos, TextNum},
    },
    store::{
        Direction, Reader, RestOfKey, StorageError, schema,
        schema::{Destination, EventHeader, EventStatus, Keyspace},
    },
};

/// Events in one transaction. Specification: "at most 50 PDUs and 100 EDUs".
pub(crate) const EVENTS_MAX: usize = 50;
/// How many of these are for the server alone: as many as it is told of when it comes into one room. The others leave room for
/// what all are told.
pub(crate) const OWN_EVENTS_MAX: usize = OWN_PREV_EVENTS_MAX;
/// Other parts in one transaction.
pub(crate) const EDUS_MAX: usize = 100;
/// The most bytes of messages to devices in one transaction, the last one over it: with fifty events of the greatest size
/// that makes less than eight MiB, which is less than others take.
pub(crate) const MESSAGES_BYTES_MAX: usize = 4 << 20;
/// Who could not be reached for this long, in milliseconds, is sent only where each room ends, and nothing of what is soon stale:
/// an hour, as on other servers.
const CATCH_UP_AFTER_MS: u64 = 60 * 60 * 1000;

/// Events for a server.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// The events, in order.
    pub events: Vec<EventNum>,
    /// Everything up to here is delivered with them.
    pub delivers_to: StreamPos,
}

/// Lets a server that was silent for long catch up to `known_to`, instead of sending it everything.
pub(crate) fn begin_catching_up(row: &mut Destination, known_to: StreamPos, now_ms: u64) {
    if is_long_silent(row.failing_since_ms, now_ms) && row.delivered_to < known_to {
        // What it missed before counts from where it first began, also while it is not known whether it has taken that in.
        if row.making_up.is_none() {
            making_up::begin(row, known_to);
        }
        row.catch_up_to = known_to;
    }
}

/// Whether that is for a server that cannot be reached since `failing_since_ms`; zero if it can, or if that is not known.
pub(super) fn is_long_silent(failing_since_ms: u64, now_ms: u64) -> bool {
    failing_since_ms > 0 && failing_since_ms.saturating_add(CATCH_UP_AFTER_MS) <= now_ms
}

/// The next events for the server in `rooms`, up to `known_to`, at most `events_max`.
pub(crate) fn next(
    reader: &Reader,
    server: TextNum,
    row: &Destination,
    rooms: &[RoomNum],
    known_to: StreamPos,
    events_max: usize,
) -> Result<Next, StorageError> {
    let catches_up = row.catch_up_to > row.delivered_to;
    let until = if catches_up { row.catch_up_to } else { known_to };
    let after = behind(row.delivered_to);
    let name = reader.text(server)?;
    let (mut found, fetched) = match catches_up {
        true => ends(reader, server, row, rooms, known_to, events_max + 1)?,
        false => FirstEnds::default(),
    };
    for room in rooms.iter().copied() {
        // Of a room to which this server has come back since it was looked, the events go out one by one, as those before did.
        let is_fetched = fetched.contains(&room) && is_here(reader, room)?;
        for (start, end) in stays(reader, server, room)? {
            let span = Span { room, from: start.max(after), to: end.min(until) };
            // A stay that ends behind what is known lasts: its end is seen the next time.
            if !is_fetched || end <= known_to {
                outgoing(reader, span, Direction::Forward, events_max + 1, &mut found)?;
            }
        }
    }
    found.sort_unstable();
    // A room that it has left since it was seen where that ends.
    found.dedup();
    let is_cut = found.len() > events_max;
    found.truncate(events_max);
    let last = found.last().map(|(pos, _)| *pos).filter(|_| is_cut);
    Ok(Next { events: events_for(reader, &name, found)?, delivers_to: last.unwrap_or(until) })
}

/// Where the rooms end for a server that catches up, behind what it has, at most `limit`, with the rooms in which this server is. They
/// are looked for once, whatever is said meanwhile: O(rooms), and otherwise for each transaction.
fn ends(
    reader: &Reader,
    server: TextNum,
    row: &Destination,
    rooms: &[RoomNum],
    known_to: StreamPos,
    limit: usize,
) -> Result<FirstEnds, StorageError> {
    let (after, until) = (behind(row.delivered_to), row.catch_up_to);
    let waiting = &reader.shared.outbox;
    if let Some(known) = waiting.ends(server, until, after, limit) {
        return Ok(known);
    }
    let (name, mut found, mut fetched) = (reader.text(server)?, BTreeSet::new(), BTreeSet::new());
    for room in rooms.iter().copied() {
        if !is_here(reader, room)? {
            continue;
        }
        fetched.insert(room);
        for (start, end) in stays(reader, server, room)? {
            if end > known_to {
                let span = Span { room, from: start.max(after), to: until };
                found.append(&mut catch_up::ends(reader, &name, span)?);
            }
        }
    }
    let (first, fetched) = (found.iter().take(limit).copied().collect(), Arc::new(fetched));
    waiting.found_ends(server, until, fetched.clone(), found);
    Ok((first, fetched))
}

/// Whether this server is in the room, and is asked for what others missed there.
fn is_here(reader: &Reader, room: RoomNum) -> Result<bool, StorageError> {
    reader.is_server_in_room(&reader.shared.server_name, room)
}

/// Those of the events that the server is sent. Those that were purged meanwhile are not there, or not in the room.
pub(super) fn events_for(
    reader: &Reader,
    server: &str,
    found: Vec<(StreamPos, EventNum)>,
) -> Result<Vec<EventNum>, StorageError> {
    let nums: Vec<EventNum> = found.into_iter().map(|(_, num)| num).collect();
    let mut events = Vec::with_capacity(nums.len());
    for event in reader.events_left(&nums)? {
        if is_for(reader, server, &event.header)? {
            events.push(event.num);
        }
    }
    Ok(events)
}

/// The position behind.
pub(super) fn behind(pos: StreamPos) -> StreamPos {
    StreamPos(pos.0.saturating_add(1))
}

/// Whether the event is one that the server is sent: part of the room, and not of its own making.
pub(super) fn is_for(reader: &Reader, server: &str, header: &EventHeader) -> Result<bool, StorageError> {
    let is_its_own = server_name(&reader.user_id(header.sender)?) == Some(server);
    Ok(header.status == EventStatus::Accepted && !is_its_own)
}

/// The rooms in which there are events for the server behind `after`, up to `known_to`, with the position of the last.
/// O(rooms that the server ever was in).
pub(crate) fn rooms_with_events(
    reader: &Reader,
    server: TextNum,
    after: StreamPos,
    known_to: StreamPos,
) -> Result<BTreeMap<RoomNum, StreamPos>, StorageError> {
    let mut stays = Vec::new();
    reader.scan(&schema::SERVER_STAYS, &server, Direction::Forward, |(_, room, start), end| {
        if end > after {
            stays.push((room, start, end));
        }
        true
    })?;
    let mut rooms: BTreeMap<RoomNum, StreamPos> = BTreeMap::new();
    for (room, start, end) in stays {
        let mut found = Vec::new();
        let from = start.max(behind(after));
        let span = Span { room, from, to: end.min(known_to) };
        outgoing(reader, span, Direction::Backward, 1, &mut found)?;
        if let Some((pos, _)) = found.first() {
            let last = rooms.entry(room).or_default();
            *last = (*last).max(*pos);
        }
    }
    Ok(rooms)
}

/// When the server was in the room.
pub(super) fn stays(
    reader: &Reader,
    server: TextNum,
    room: RoomNum,
) -> Result<Vec<(StreamPos, StreamPos)>, StorageError> {
    let mut stays = Vec::new();
    reader.scan(&schema::SERVER_STAYS, &(server, room), Direction::Forward, |(_, _, start), end| {
        stays.push((start, end));
        true
    })?;
    Ok(stays)
}

/// A part of what goes out of a room, both ends included.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub room: RoomNum,
    pub from: StreamPos,
    pub to: StreamPos,
}

/// Adds the outgoing events of the span, at most `limit`.
pub(super) fn outgoing(
    reader: &Reader,
    span: Span,
    direction: Direction,
    limit: usize,
    found: &mut Vec<(StreamPos, EventNum)>,
) -> Result<(), StorageError> {
    if span.from > span.to {
        return Ok(());
    }
    let (start, end) = ((span.room, span.from), (span.room, behind(span.to)));
    let mut left = limit;
    reader.scan_between(&schema::OUTGOING_EVENTS, &start, &end, direction, |(_, pos), num| {
        found.push((pos, num));
        left -= 1;
        left > 0
    })
}

/// Every server that has been in a room, or was sent something, with how long it is left alone. A pause that began
/// after now is over: the clock was set back. O(them).
pub(crate) fn known_servers(reader: &Reader, now_ms: u64) -> Result<BTreeMap<TextNum, Pause>, StorageError> {
    let mut servers = BTreeMap::new();
    for keyspace in [schema::SERVER_STAYS.raw(), schema::OUTGOING_EDUS.raw()] {
        for server in servers_with_rows(reader, &keyspace)? {
            servers.insert(server, Pause::default());
        }
    }
    reader.scan(&schema::DESTINATIONS, &(), Direction::Forward, |server, row| {
        let is_over = row.failed_ms > now_ms;
        let due_ms = if is_over { row.retry_ms.min(now_ms) } else { row.retry_ms };
        let (receipts_told_to, lacks_receipts) = (row.receipts_told_to, row.lacks_receipts || row.was_away());
        servers
            .insert(server, Pause { due_ms, failure: Failure::of(&row), receipts_told_to, lacks_receipts });
        true
    })?;
    Ok(servers)
}

/// The servers that keys begin with; from each it is leapt to the next.
fn servers_with_rows(
    reader: &Reader,
    keyspace: &Keyspace<RestOfKey, Bytes>,
) -> Result<Vec<TextNum>, StorageError> {
    let (mut servers, mut from) = (Vec::new(), Some(TextNum(0)));
    while let Some(start) = from {
        let mut found = None;
        reader.scan_between(
            keyspace,
            &start,
            &TextNum(u32::MAX),
            Direction::Forward,
            |key: RestOfKey, _| {
                found = key.0.first_chunk().map(|server| TextNum(u32::from_be_bytes(*server)));
                false
            },
        )?;
        servers.extend(found);
        from = found.map(|server| TextNum(server.0.saturating_add(1)));
    }
    Ok(servers)
}
