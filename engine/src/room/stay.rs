//! How far a user's last time in a room went, where the membership event that ended it does not tell: it is known by a state
//! that another server told, with no place in the timeline, or it won against their join where the graph was forked.
//!
//! Invariant: the end that is found is a position at which the room's current state, as it was then and as clients were told of
//! it, was not yet that by which the user was out. What came to be known together with their removal is behind it, and so is
//! what is filled in before that, until the membership event itself is among it.

use std::sync::Arc;

use super::{Event, gap};
use crate::{
    core::num::{NodeId, RoomNum, StreamPos, UserNum},
    store::{
        Direction, Reader, StorageError, schema,
        schema::{MemberChange, Move},
    },
};

/// How many events that were filled into a gap are passed over to find the last one before it. There are none where the
/// positions that were kept free for the gap are known; else, for a user for whom it takes more, no end is found.
const FILLED_IN_PASSED_MAX: usize = 100;

/// How many changes of a room's members are looked through for the user's own. For a user since whose removal there were more, no
/// end is found: each request of theirs would look through them all.
pub(crate) const MEMBER_CHANGES_MAX: usize = 10_000;

/// The last moment before a user was out of a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StayEnd {
    /// The last position of that moment.
    pub until: StreamPos,
    /// The room's current state then.
    pub state: NodeId,
}

/// Where the row of a user last went out of `join`.
enum LastOut {
    /// Not there: the row did not, or has come back.
    Never,
    /// At this position.
    At(StreamPos),
    /// Further back than is looked.
    TooFar,
}

/// The last moment before a user, who is not in the room now, was last taken out of it, if that was behind `after`. Whether the state
/// then has them joined is for the caller to see: it does not where more than is known here happened at once.
/// Nothing for a room that was never forked, where a user's membership events tell it all. O(changes of members behind `after`).
pub(crate) fn end(
    reader: &Reader,
    room: RoomNum,
    user: UserNum,
    after: StreamPos,
) -> Result<Option<StayEnd>, StorageError> {
    if !reader.get(&schema::ROOM_HEADS, &room)?.is_some_and(|head| head.forked) {
        return Ok(None);
    }
    let LastOut::At(out) = last_removal(reader, room, user, after)? else { return Ok(None) };
    let Some(last) = last_event(reader, room, out)? else { return Ok(None) };
    // The rows of members follow a change of the state at once: by an event, or by none.
    let until = match last_change(reader, room, last.pos(), out)? {
        Some((changed, _)) => before(changed),
        None => {
            // Not all of the positions need have been free: what came live is no part of a gap.
            let live = last_live(reader, room, before(last.pos()))?;
            let not_free = gap::last_not_free_before(&last);
            live.map_or(not_free, |(_, live)| not_free.max(live.pos()))
        }
    };
    let Some((until, event)) = last_live(reader, room, until)? else { return Ok(None) };
    let changed = last_change(reader, room, event.pos(), until)?;
    let state = changed.map_or(event.header.room_state, |(_, state)| state);
    Ok(Some(StayEnd { until, state }))
}

/// Whether a user, who is not in the room now, was out of it before `leave` came, by which they left their last join: they were told
/// of nothing between. So it is where it won against another leave that came before it, and where it was known before from a
/// state that another server told. One that took them out itself is told by a look-up; else O(changes of members since they went out).
pub(crate) fn is_late(
    reader: &Reader,
    room: RoomNum,
    user: UserNum,
    leave: &Event,
) -> Result<bool, StorageError> {
    if !reader.get(&schema::ROOM_HEADS, &room)?.is_some_and(|head| head.forked) {
        return Ok(false);
    }
    let own = reader.get(&schema::MEMBER_STREAM, &(room, leave.pos()))?;
    if own.is_some_and(|change| change.user == user && change.to == Move::Out) {
        return Ok(false);
    }
    Ok(match last_removal(reader, room, user, StreamPos(i64::MIN))? {
        LastOut::Never => false,
        LastOut::At(out) => out < leave.pos(),
        LastOut::TooFar => true,
    })
}

/// Where the row of a user last went out of `join`, behind `after`. The last such entry is never pruned.
fn last_removal(
    reader: &Reader,
    room: RoomNum,
    user: UserNum,
    after: StreamPos,
) -> Result<LastOut, StorageError> {
    let (mut found, mut looked_at) = (LastOut::Never, 0);
    let (start, end) = ((room, StreamPos(after.0.saturating_add(1))), (room, StreamPos::MAX));
    reader.scan_between(
        &schema::MEMBER_STREAM,
        &start,
        &end,
        Direction::Backward,
        |(_, pos): (RoomNum, StreamPos), change: MemberChange| {
            // To be invited after it ends nothing.
            if change.user == user && change.to != Move::Asked {
                found = if change.to == Move::In { LastOut::Never } else { LastOut::At(pos) };
                return false;
            }
            looked_at += 1;
            if looked_at == MEMBER_CHANGES_MAX {
                found = LastOut::TooFar;
                return false;
            }
            true
        },
    )?;
    Ok(found)
}

/// The last event at or before `until` that came live, and the last position before what was filled in behind it.
fn last_live(
    reader: &Reader,
    room: RoomNum,
    mut until: StreamPos,
) -> Result<Option<(StreamPos, Arc<Event>)>, StorageError> {
    for _ in 0..FILLED_IN_PASSED_MAX {
        let Some(event) = last_event(reader, room, until)? else { return Ok(None) };
        if !event.header.is_filled_in {
            return Ok(Some((until, event)));
        }
        until = before(event.pos());
    }
    Ok(None)
}

/// The last event of the room's timeline at or before `pos`.
fn last_event(reader: &Reader, room: RoomNum, pos: StreamPos) -> Result<Option<Arc<Event>>, StorageError> {
    let mut last = None;
    let (start, end) = ((room, StreamPos(i64::MIN)), (room, StreamPos(pos.0.saturating_add(1))));
    reader.scan_between(
        &schema::TIMELINE,
        &start,
        &end,
        Direction::Backward,
        |_: (RoomNum, StreamPos), num| {
            last = Some(num);
            false
        },
    )?;
    last.map(|num| reader.event(num)).transpose()
}

/// The last change of the room's current state by no event that came then, from `since` up to `until`, and the state since.
pub(crate) fn last_change(
    reader: &Reader,
    room: RoomNum,
    since: StreamPos,
    until: StreamPos,
) -> Result<Option<(StreamPos, NodeId)>, StorageError> {
    let mut last = None;
    let (start, end) = ((room, since), (room, StreamPos(until.0.saturating_add(1))));
    reader.scan_between(
        &schema::STATE_CHANGES,
        &start,
        &end,
        Direction::Backward,
        |(_, pos): (RoomNum, StreamPos), changed| {
            last = Some((pos, changed));
            false
        },
    )?;
    Ok(last)
}

fn before(pos: StreamPos) -> StreamPos {
    StreamPos(pos.0.saturating_sub(1))
}
