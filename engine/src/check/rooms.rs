//! Rooms: heads, current state and members must agree with the timeline and with each other.

use std::collections::BTreeMap;

use super::{
    pass::{Pass, Row, readable},
    snapshots::{are_equal, is_whole},
};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, UserNum},
    room::room_version,
    store::{
        StorageError, schema,
        schema::{EventStatus, Membership, RoomHead},
    },
};

mod members;

pub(super) fn passes() -> Vec<Pass> {
    let mut passes = vec![Pass::over(&schema::ROOM_HEADS, head).finish(missing_heads)];
    passes.extend(members::passes());
    passes
}

/// The members of a state: the membership of each user, and the event that says so.
type Members = BTreeMap<UserNum, (Membership, EventNum)>;

fn head(row: &mut Row<'_>, room: RoomNum, head: RoomHead) -> Result<(), StorageError> {
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
        row.put(&schema::ROOM_HEADS, &room, &right);
    }
    Ok(())
}

/// Rooms that have a timeline and no head.
fn missing_heads(row: &mut Row<'_>) -> Result<(), StorageError> {
    let rooms: Vec<RoomNum> =
        row.seen.rooms.iter().filter(|(_, seen)| !seen.has_head).map(|(room, _)| *room).collect();
    for room in rooms {
        row.subject = format!("{room:?}");
        row.found("the room has events but no head");
        let Some(version) = super::timeline::version_of(row, room)? else { continue };
        let none =
            RoomHead { version, extremities: Vec::new(), depth: 0, state: NodeId(0), joined: 0, invited: 0 };
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
    let depth = seen.depth;
    let mut open: Vec<EventNum> = seen.open.iter().copied().collect();
    open.sort_unstable();
    let mut found = Vec::new();
    for num in open {
        // An event without a body is told of elsewhere; it cannot be named, and so not be built upon.
        found.extend(row.body(num)?.map(|(id, _)| (num, id.to_string())));
    }
    let mut listed = head.extremities.clone();
    listed.sort_unstable();
    if !row.expect(listed == found, "the last events are not those that nothing follows") {
        right.extremities = found;
    }
    if !row.expect(head.depth >= depth, "an event is deeper than the room") {
        right.depth = depth;
    }
    for (num, _) in &right.extremities {
        let version = row.header(*num)?.map(|header| header.value.version);
        if !row.expect(version == Some(head.version), "the room has another version than its last event") {
            right.version = version.unwrap_or(head.version);
        }
    }
    Ok(())
}

/// The current state is whole; it is the one after the last event, or made of those after the last events. Returns
/// whether it can be read.
fn current_state(
    row: &mut Row<'_>,
    room: RoomNum,
    head: &RoomHead,
    right: &mut RoomHead,
) -> Result<bool, StorageError> {
    let mut after = Vec::new();
    for (num, _) in &right.extremities {
        if let Some(header) = row.header(*num)?
            && is_whole(row, room, header.value.state_after)?
        {
            after.push(header.value.state_after);
        }
    }
    let mut readable = is_whole(row, room, head.state)?;
    row.expect(readable, "the current state is not whole");
    if let [after] = after.as_slice()
        && right.extremities.len() == 1
    {
        let agrees = readable && are_equal(row, room, *after, head.state)?;
        if !row.expect(agrees, "the current state is not the one after the last event") {
            right.state = *after;
            readable = true;
        }
    }
    if readable {
        entries(row, room, right.state, &after)?;
    }
    Ok(readable)
}

/// Each entry is a state event of this type and key, and stands in one of the states after the last events.
fn entries(row: &mut Row<'_>, room: RoomNum, snapshot: NodeId, after: &[NodeId]) -> Result<(), StorageError> {
    let reader = row.reader();
    for (key, num) in reader.state_entries(room, snapshot)? {
        let agrees = row.header(num)?.is_some_and(|header| {
            let header = header.value;
            header.room == room && header.kind == key.kind() && header.state_key == Some(key.state_key())
        });
        row.expect(agrees, &format!("the state has event number {} under a key that is not its own", num.0));
        if after.len() > 1 {
            let mut is_from_one = false;
            for after in after {
                is_from_one |= reader.state_num_at(room, *after, key)? == Some(num);
            }
            row.expect(is_from_one, &format!("the state has event number {} from no last event", num.0));
        }
    }
    Ok(())
}
