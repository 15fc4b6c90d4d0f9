//! The timeline: each accepted event stands in it once, where its header says; nothing else does.

use std::collections::HashSet;

use super::{
    events::rebuilt_header,
    pass::{Pass, Row, readable},
};
use crate::{
    core::{
        event::Pdu,
        identifiers::server_name,
        limits::SET_ASIDE_MAX,
        num::{EventNum, RoomNum, StreamPos},
    },
    room::room_version,
    store::{
        Direction, Positioned, StorageError, schema,
        schema::{EventHeader, EventStatus},
    },
};

pub(super) fn passes() -> Vec<Pass> {
    vec![Pass::over_derived(&schema::TIMELINE, |row, (room, pos), num| place(row, room, pos, num))]
}

fn place(row: &mut Row<'_>, room: RoomNum, pos: StreamPos, num: EventNum) -> Result<(), StorageError> {
    if row.is_going(room) {
        return Ok(());
    }
    let Some(header) = row.header(num)? else {
        row.found("the event that stands here has no header");
        return lost_header(row, room, pos, num);
    };
    let problem = match &header {
        header if header.value.room != room => "the event that stands here is of another room",
        header if header.value.status != EventStatus::Accepted => {
            "the event that stands here is not part of the room"
        }
        header if header.pos != pos => {
            row.found("the event that stands here says that it stands elsewhere");
            // Where it does not stand there, the visit to its header has settled it.
            if row.reader().get(&schema::TIMELINE, &(room, header.pos))? == Some(num) {
                row.delete(&schema::TIMELINE, &(room, pos));
            }
            return Ok(());
        }
        _ => {
            row.seen.uses_position(pos);
            return follow(row, room, num, &header);
        }
    };
    row.found(problem);
    row.delete(&schema::TIMELINE, &(room, pos));
    Ok(())
}

/// Makes the header anew from the body. Whether another device of the sender's is told the transaction id is lost.
fn lost_header(row: &mut Row<'_>, room: RoomNum, pos: StreamPos, num: EventNum) -> Result<(), StorageError> {
    let Some((id, json)) = row.body(num)? else {
        if row.reader().has(&schema::EVENT_BODIES, &num)? {
            return Ok(());
        }
        // Nothing is left of the event.
        row.delete(&schema::TIMELINE, &(room, pos));
        return Ok(());
    };
    let Some(version) = version_of(row, room)? else { return Ok(()) };
    if let Some(value) = rebuilt_header(row, version, (room, pos), &id, &json)? {
        row.put(&schema::EVENT_HEADERS, &num, &Positioned { pos, value });
    }
    Ok(())
}

/// The version of a room, from its head or any of its events.
pub(super) fn version_of(row: &Row<'_>, room: RoomNum) -> Result<Option<u8>, StorageError> {
    if let Some(head) = readable(row.reader().get(&schema::ROOM_HEADS, &room))? {
        return Ok(Some(head.version));
    }
    let mut nums = Vec::new();
    row.reader().scan(&schema::TIMELINE, &room, Direction::Forward, |_: (RoomNum, StreamPos), num| {
        nums.push(num);
        nums.len() < 16
    })?;
    for num in nums {
        if let Some(header) = row.header(num)? {
            return Ok(Some(header.value.version));
        }
    }
    Ok(None)
}

/// Keeps track of the events that nothing follows.
fn follow(
    row: &mut Row<'_>,
    room: RoomNum,
    num: EventNum,
    header: &Positioned<EventHeader>,
) -> Result<(), StorageError> {
    let mut early = Vec::new();
    let mut to_look_at = header.value.prev.clone();
    let mut looked_through = 0;
    while let Some(prev) = to_look_at.pop() {
        let seen = row.seen.rooms.entry(room).or_default();
        if seen.open.remove(&prev) | seen.doubtful.remove(&prev) {
            // The room's state may still rest on what something in a gap follows.
            if header.value.is_filled_in {
                seen.doubtful.insert(prev);
            }
            continue;
        }
        let Some(prev_header) = row.header(prev)? else { continue };
        match prev_header.value.status {
            // The room's state may rest on that as well.
            EventStatus::Accepted if prev_header.pos > header.pos && header.value.is_filled_in => {
                row.seen.followed.insert(prev);
            }
            EventStatus::Accepted if prev_header.pos > header.pos => early.push(prev),
            EventStatus::Accepted | EventStatus::Outlier => {}
            // What follows an event that is not shown follows what that one follows.
            _ if looked_through < SET_ASIDE_MAX => {
                looked_through += 1;
                to_look_at.extend(prev_header.value.prev);
            }
            _ => {}
        }
    }
    let is_cut =
        readable(row.reader().get(&schema::HISTORY_STARTS, &room))?.is_some_and(|starts| header.pos < starts);
    let is_entry = is_entry(row, room, num, header)?;
    // What leads from an event within a gap to what is behind the gap is missing, or not shown and came later than that.
    let is_doubtful =
        is_cut || header.value.after_gap || header.value.is_filled_in || row.seen.followed.contains(&num);
    let seen = row.seen.rooms.entry(room).or_default();
    if is_entry {
        // The room may have been entered anew here, which leaves behind what was before.
        seen.doubtful.extend(seen.open.drain());
    }
    seen.followed_early.extend(early);
    if !seen.followed_early.remove(&num) {
        let ends = if is_doubtful { &mut seen.doubtful } else { &mut seen.open };
        ends.insert(num);
    }
    seen.was_forked |= header.value.room_state != header.value.state_after;
    Ok(())
}

/// Whether the event may be a join by which this server entered the room. It follows nothing that is here, or not all that it
/// names; where nothing is left open by it, it makes no difference.
fn is_entry(
    row: &Row<'_>,
    room: RoomNum,
    num: EventNum,
    header: &Positioned<EventHeader>,
) -> Result<bool, StorageError> {
    if header.value.prev.is_empty() {
        return Ok(true);
    }
    let is_open = row.seen.rooms.get(&room).is_some_and(|seen| !seen.open.is_empty());
    if !is_open || header.value.state_key.is_none() {
        return Ok(false);
    }
    let Some((id, json)) = row.body(num)? else { return Ok(false) };
    let Ok(pdu) = Pdu::from_stored(room_version(header.value.version)?, id, json) else { return Ok(false) };
    let own = &*row.reader().shared.server_name;
    let is_own_join = pdu.membership() == Some("join") && server_name(&pdu.sender) == Some(own);
    let named: HashSet<_> = pdu.prev_events.iter().collect();
    Ok(is_own_join && header.value.prev.len() < named.len())
}

/// Proposes what settles that an accepted event does not stand where its header says, but `stands` or nothing does.
///
/// Where it stands elsewhere, either may be wrong: the events of a room were numbered in the order in which they came,
/// which tells where it belongs. O(events of the room), for what is wrong alone.
pub(super) fn mend_position(
    row: &mut Row<'_>,
    num: EventNum,
    header: &Positioned<EventHeader>,
    stands: Option<EventNum>,
) -> Result<(), StorageError> {
    let room = header.value.room;
    let mut elsewhere = None;
    row.reader().scan(
        &schema::TIMELINE,
        &room,
        Direction::Forward,
        |(_, pos): (RoomNum, StreamPos), at| {
            elsewhere = (at == num).then_some(pos);
            elsewhere.is_none()
        },
    )?;
    if let Some(other) = stands
        && row.header(other)?.is_some_and(|other| other.pos == header.pos && other.value.room == room)
        && elsewhere.is_none()
    {
        // Two events claim the place.
        return Ok(());
    }
    if let Some(elsewhere) = elsewhere {
        if fits(row, room, num, elsewhere)? && !fits(row, room, num, header.pos)? {
            row.change_header(num, move |_, header| {
                header.pos = elsewhere;
                Ok(())
            });
            return Ok(());
        }
        row.delete(&schema::TIMELINE, &(room, elsewhere));
    }
    row.put(&schema::TIMELINE, &(room, header.pos), &num);
    Ok(())
}

/// Whether the event's number lies between those of its neighbors at a place.
fn fits(row: &Row<'_>, room: RoomNum, num: EventNum, pos: StreamPos) -> Result<bool, StorageError> {
    let (start, here) = ((room, StreamPos(i64::MIN)), (room, pos));
    let (mut below, mut above) = (None, None);
    let other = |at: EventNum| (at != num).then_some(at);
    row.reader().scan_between(&schema::TIMELINE, &start, &here, Direction::Backward, |_, at| {
        below = other(at);
        below.is_none()
    })?;
    let end = (room, StreamPos::MAX);
    row.reader().scan_between(&schema::TIMELINE, &here, &end, Direction::Forward, |_, at| {
        above = other(at);
        above.is_none()
    })?;
    Ok(below.is_none_or(|below| below < num) && above.is_none_or(|above| num < above))
}
