//! Rooms: heads, current state and members must agree with the timeline and with each other.

use std::collections::BTreeMap;

use super::{
    pass::{Pass, Row, readable},
    snapshots::{are_equal, is_whole},
};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos, UserNum},
    room::{
        RoomCtx,
        fork::{self, Side},
        gap, room_version, stay,
    },
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{EventStatus, Membership, RoomHead},
    },
};

mod members;
mod servers;

pub(super) fn passes() -> Vec<Pass> {
    let mut passes = vec![Pass::over(&schema::ROOM_HEADS, head).finish(missing_heads)];
    passes.extend(members::passes());
    passes.extend(servers::passes());
    passes
}

/// The members of a state: the membership of each user, and the event that says so.
type Members = BTreeMap<UserNum, (Membership, EventNum)>;

fn head(row: &mut Row<'_>, room: RoomNum, head: RoomHead) -> Result<(), StorageError> {
    if row.is_going(room) {
        return Ok(());
    }
    let named = row.room_id(room)?.is_some();
    row.expect(named, "the room's number has no name");
    room_version(head.version)?;
    let Some(seen) = row.seen.rooms.get_mut(&room) else {
        row.found("the room has no events");
        return Ok(());
    };
    seen.has_head = true;
    let mut right = head.clone();
    extremities(row, room, &head, &mut right)?;
    let is_readable = current_state(row, room, &head, &mut right)?;
    if is_readable {
        members::check(row, room, &mut right, &head)?;
    }
    if right != head {
        row.mend(schema::ROOM_HEADS.name, move |tx| save(tx, room, right));
    }
    Ok(())
}

/// Writes a head that is right now. Where the current state is another than clients were told last, they are told of it.
fn save(tx: &mut Tx, room: RoomNum, mut right: RoomHead) -> Result<(), StorageError> {
    if is_told_otherwise(tx, room, right.state)? {
        right.forked = true;
        let pos = tx.next_position();
        tx.put(&schema::STATE_CHANGES, &(room, pos), &right.state);
    }
    tx.put(&schema::ROOM_HEADS, &room, &right);
    Ok(())
}

/// Whether clients were told last that the current state is another than this. Where that cannot be read, nobody can be told what changed.
fn is_told_otherwise(reader: &Reader, room: RoomNum, state: NodeId) -> Result<bool, StorageError> {
    let Some(told) = readable(told_last(reader, room))? else { return Ok(false) };
    let changes = readable(reader.state_difference(room, told, state).map(Some))?;
    Ok(changes.is_some_and(|changes| !changes.is_empty()))
}

/// The current state as clients were told of it last: that after the last event, or since a change by none.
fn told_last(reader: &Reader, room: RoomNum) -> Result<Option<NodeId>, StorageError> {
    let mut last = None;
    reader.scan(&schema::TIMELINE, &room, Direction::Backward, |(_, pos): (RoomNum, StreamPos), num| {
        last = Some((pos, num));
        false
    })?;
    let Some((pos, num)) = last else { return Ok(None) };
    if let Some((_, changed)) = stay::last_change(reader, room, pos, StreamPos::MAX)? {
        return Ok(Some(changed));
    }
    Ok(reader.get(&schema::EVENT_HEADERS, &num)?.map(|header| header.value.room_state))
}

/// Rooms that have a timeline and no head.
fn missing_heads(row: &mut Row<'_>) -> Result<(), StorageError> {
    let rooms: Vec<RoomNum> =
        row.seen.rooms.iter().filter(|(_, seen)| !seen.has_head).map(|(room, _)| *room).collect();
    for room in rooms {
        row.subject = format!("{room:?}");
        row.found("the room has events but no head");
        let Some(version) = super::timeline::version_of(row, room)? else { continue };
        let none = RoomHead {
            version,
            extremities: Vec::new(),
            depth: 0,
            state: NodeId(0),
            joined: 0,
            invited: 0,
            other_servers: 0,
            partial_state: false,
            forked: false,
        };
        // What stands in it is put right when it is visited.
        row.put(&schema::ROOM_HEADS, &room, &none);
    }
    Ok(())
}

/// The extremities are the accepted events that no accepted one follows.
fn extremities(
    row: &mut Row<'_>,
    room: RoomNum,
    head: &RoomHead,
    right: &mut RoomHead,
) -> Result<(), StorageError> {
    let Some(seen) = row.seen.rooms.get(&room) else { return Ok(()) };
    let was_forked = seen.was_forked;
    let mut ends: Vec<(EventNum, bool)> = seen.open.iter().map(|num| (*num, true)).collect();
    ends.extend(seen.doubtful.iter().map(|num| (*num, false)));
    ends.sort_unstable();
    let mut found = Vec::new();
    for (num, is_sure) in &ends {
        let is_listed = head.extremities.iter().any(|(listed, _)| listed == num);
        if is_listed || *is_sure && !is_filled_in(row, room, *num)? {
            // An event without a body is told of elsewhere; it cannot be named, and so not be built upon.
            found.extend(row.body(*num)?.map(|(id, _)| (*num, id.to_string())));
        }
    }
    if found.is_empty()
        && let Some((last, _)) = ends.last()
    {
        found.extend(row.body(*last)?.map(|(id, _)| (*last, id.to_string())));
    }
    let mut listed = head.extremities.clone();
    listed.sort_unstable();
    if !row.expect(listed == found, "the last events are not those that nothing follows") {
        right.extremities = found;
    }
    if !row.expect(head.forked || !was_forked, "the room has been forked and does not say so") {
        right.forked = true;
    }
    let (mut partial_state, mut depth) = (false, 0);
    for (num, _) in &right.extremities.clone() {
        let header = row.header(*num)?.map(|header| header.value);
        partial_state |= header.as_ref().is_some_and(|header| header.partial_state);
        depth = depth.max(header.as_ref().map_or(0, |header| header.depth));
        let version = header.map(|header| header.version);
        if !row.expect(version == Some(head.version), "the room has another version than its last event") {
            right.version = version.unwrap_or(head.version);
        }
    }
    // What comes next has to be deeper than what it follows. Before that, history may claim any depth.
    if !row.expect(head.depth >= depth, "a last event is deeper than the room") {
        right.depth = depth;
    }
    right.partial_state = partial_state;
    let problem = "whether the current state lacks members is not what its last events say";
    row.expect(head.partial_state == partial_state, problem);
    Ok(())
}

/// Whether the event is of the past, and may be followed by one that is missing there.
fn is_filled_in(row: &Row<'_>, room: RoomNum, num: EventNum) -> Result<bool, StorageError> {
    match row.header(num)? {
        Some(header) => gap::is_filled_in(row.reader(), room, header.pos),
        None => Ok(false),
    }
}

/// The current state is whole, and what resolution makes of those after the last events. Returns whether it can be read.
fn current_state(
    row: &mut Row<'_>,
    room: RoomNum,
    head: &RoomHead,
    right: &mut RoomHead,
) -> Result<bool, StorageError> {
    let mut ends = Vec::new();
    for (num, _) in &right.extremities {
        if let Some(header) = row.header(*num)?
            && is_whole(row, room, header.value.state_after)?
        {
            let lacks_members = header.value.partial_state;
            ends.push(Side { snapshot: header.value.state_after, lacks_members });
        }
    }
    let all_known = ends.len() == right.extremities.len();
    let mut after: Vec<NodeId> = ends.iter().map(|end| end.snapshot).collect();
    after.sort_unstable();
    after.dedup();
    let mut readable = is_whole(row, room, head.state)?;
    row.expect(readable, "the current state is not whole");
    match after.as_slice() {
        [after] if all_known => {
            let agrees = readable && are_equal(row, room, *after, head.state)?;
            if !row.expect(agrees, "the current state is not the one after the last event") {
                right.state = *after;
                readable = true;
            }
        }
        [_, _, ..] if all_known => {
            // Those that the other ends have stand in for members that one lacks, until they have come.
            let agrees = readable && (right.partial_state || is_resolved(row, room, right, &after)?);
            if !row.expect(agrees, "the current state is not what those after the last events make") {
                let right = right.clone();
                row.mend(schema::ROOM_HEADS.name, move |tx| {
                    let (id, version) = (tx.room_id(room)?, room_version(right.version)?);
                    let mut ctx = RoomCtx { num: room, id, version, head: right };
                    ctx.head.state = fork::merged_sides(tx, &ctx, ends)?;
                    save(tx, room, ctx.head)
                });
                // Members are looked at when the state is right.
                row.is_unfinished = true;
                return Ok(false);
            }
        }
        _ => {}
    }
    if readable {
        entries(row, room, right.state)?;
    }
    Ok(readable)
}

/// Whether the current state is what state resolution makes of several snapshots.
fn is_resolved(
    row: &Row<'_>,
    room: RoomNum,
    head: &RoomHead,
    snapshots: &[NodeId],
) -> Result<bool, StorageError> {
    let Some(first) = snapshots.first().copied() else { return Ok(true) };
    let reader = row.reader();
    let version = room_version(head.version)?;
    let mut expected: BTreeMap<StateKeyId, Option<EventNum>> =
        fork::resolved(reader, version, room, snapshots)?.into_iter().collect();
    for change in reader.state_difference(room, first, head.state)? {
        if expected.remove(&change.key) != Some(change.after) {
            return Ok(false);
        }
    }
    for (key, value) in expected {
        if reader.state_num_at(room, first, key)? != value {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Each entry is a state event of this type and key.
fn entries(row: &mut Row<'_>, room: RoomNum, snapshot: NodeId) -> Result<(), StorageError> {
    for (key, num) in row.reader().state_entries(room, snapshot)? {
        let agrees = row.header(num)?.is_some_and(|header| {
            let header = header.value;
            header.room == room && header.kind == key.kind() && header.state_key == Some(key.state_key())
        });
        row.expect(agrees, &format!("the state has event number {} under a key that is not its own", num.0));
    }
    Ok(())
}
