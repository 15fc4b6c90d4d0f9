//! State snapshots: every tree is whole, and says what the events before it make.
//!
//! A snapshot follows from the events: it is that of the event before, with the event in it. So a damaged one is made
//! anew by playing the events again, as far as each follows one other; where several come together, what state resolution
//! made of them stays as it is, and is reported when it is damaged.

use std::sync::Arc;

use bytes::Bytes;

use super::pass::{Pass, Row};
use crate::{
    core::{
        event::Pdu,
        num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos},
    },
    room::{
        RoomCtx,
        fork::{self, Side},
        room_version, state,
    },
    store::{
        Direction, Positioned, StorageError, Tx, schema,
        schema::{EventHeader, EventStatus, RoomHead},
    },
};

/// The root of the empty state.
const EMPTY: NodeId = NodeId(0);

pub(super) fn passes() -> Vec<Pass> {
    vec![Pass::over(&schema::STATE_NODES, |row, (room, id), bytes| {
        node(row, room, id, &bytes);
        Ok(())
    })]
}

/// Behind the events, which are looked at first.
pub(super) fn told() -> Vec<Pass> {
    vec![Pass::over(&schema::TOLD_STATES, |row, (room, num), ()| {
        if row.is_going(room) {
            return Ok(());
        }
        let is_its = row.header(num)?.is_some_and(|header| header.value.room == room);
        if !row.expect(is_its, "the event is not in the room") {
            row.delete(&schema::TOLD_STATES, &(room, num));
        }
        Ok(())
    })]
}

/// Notes the node if it is whole with everything below it. Nodes are visited in the order in which they were made, and a
/// node is made after its children. One that is not whole is told of where something uses it.
fn node(row: &mut Row<'_>, room: RoomNum, id: NodeId, bytes: &Bytes) {
    let seen = &mut *row.seen;
    seen.used.node = seen.used.node.max(id.0);
    if seen.nodes_of.0 != room {
        seen.nodes_of = (room, Default::default());
    }
    let nodes = &mut seen.nodes_of.1;
    let node = state::Node::decode(bytes).ok();
    let range = node.and_then(|node| {
        let entries = node.entries();
        let (first, last) = (entries.first()?, entries.last()?);
        if node.level() == 0 {
            return Some((0, first.0, last.0));
        }
        let mut greatest = 0;
        for (index, (low, child)) in entries.iter().enumerate() {
            let (level, smallest, child_greatest) = *nodes.get(&NodeId(*child))?;
            let is_below_next = entries.get(index + 1).is_none_or(|next| child_greatest < next.0);
            if level + 1 != node.level() || smallest != *low || !is_below_next {
                return None;
            }
            greatest = child_greatest;
        }
        Some((node.level(), first.0, greatest))
    });
    match range {
        Some(range) => drop(nodes.insert(id, range)),
        None => drop(seen.broken_nodes.insert((room, id))),
    }
}

/// Whether everything that the snapshot names is there.
pub(super) fn is_whole(row: &mut Row<'_>, room: RoomNum, snapshot: NodeId) -> Result<bool, StorageError> {
    if snapshot == EMPTY || row.seen.last_snapshot == Some((room, snapshot)) {
        return Ok(true);
    }
    let is_whole = !row.seen.broken_nodes.contains(&(room, snapshot))
        && row.reader().has(&schema::STATE_NODES, &(room, snapshot))?;
    if is_whole {
        row.seen.last_snapshot = Some((room, snapshot));
    }
    Ok(is_whole)
}

/// Whether two whole snapshots say the same.
pub(super) fn are_equal(
    row: &Row<'_>,
    room: RoomNum,
    one: NodeId,
    other: NodeId,
) -> Result<bool, StorageError> {
    Ok(one == other || row.reader().state_difference(room, one, other)?.is_empty())
}

/// The state before an event, as far as it follows from the event before it: `None` if there are several, or if the
/// one is not known with its state.
pub(super) fn before(
    row: &mut Row<'_>,
    pdu: &Pdu,
    header: &EventHeader,
) -> Result<Option<NodeId>, StorageError> {
    if pdu.prev_events.is_empty() {
        return Ok(Some(EMPTY));
    }
    let ([_], [parent]) = (pdu.prev_events.as_slice(), header.prev.as_slice()) else { return Ok(None) };
    let Some(parent) = row.header(*parent)?.map(|parent| parent.value) else { return Ok(None) };
    // One that is not shown keeps the state by which it was judged when the members are filled in.
    let is_known = parent.room == header.room
        && parent.status != EventStatus::Outlier
        && parent.partial_state == header.partial_state;
    Ok((is_known && is_whole(row, header.room, parent.state_after)?).then_some(parent.state_after))
}

/// The snapshots of an event.
pub(super) fn check_event(
    row: &mut Row<'_>,
    num: EventNum,
    pdu: &Arc<Pdu>,
    header: &Positioned<EventHeader>,
) -> Result<(), StorageError> {
    let (pos, header) = (header.pos, &header.value);
    if header.status == EventStatus::Outlier {
        return Ok(());
    }
    let room = header.room;
    // What another server told does not follow from anything.
    let follows = match row.reader().has(&schema::TOLD_STATES, &(room, num))? {
        true => None,
        false => before(row, pdu, header)?,
    };
    let mut right_before = is_whole(row, room, header.state_before)?;
    if !right_before {
        row.found("the state before the event is not whole");
    } else if let Some(follows) = follows {
        right_before = are_equal(row, room, header.state_before, follows)?;
        row.expect(right_before, "the state before the event is not the one after the event before it");
    }
    let known_before = if right_before { Some(header.state_before) } else { follows };
    let Some(state_before) = known_before else {
        return mend_merged(row, num, pdu, header);
    };
    let own = own_entry(header);
    let right_after = match is_whole(row, room, header.state_after)? {
        false => row.expect(false, "the state after the event is not whole"),
        true => {
            let holds = follows_with(row, num, room, (state_before, header.state_after), own)?;
            let problem = "the state after the event is not the state before it with the event in it";
            row.expect(holds, problem)
        }
    };
    let right_room_state = header.status != EventStatus::Accepted || is_whole(row, room, header.room_state)?;
    row.expect(right_room_state, "the room's state after the event is not whole");
    if right_before && right_after && right_room_state {
        return Ok(());
    }
    // In the line of a graph that is not forked this is one state.
    let is_in_line = header.room_state == header.state_after;
    let instead = match is_in_line || right_room_state {
        true => None,
        false => room_state_before(row, pos, header)?,
    };
    row.change_header(num, move |tx, header| {
        change_states(tx, header, num, state_before)?;
        if let Some(instead) = instead {
            header.value.room_state = instead;
        }
        Ok(())
    });
    Ok(())
}

/// The entry that an event is of the state after it, which is also that of a soft-failed one.
fn own_entry(header: &EventHeader) -> Option<StateKeyId> {
    let counts = matches!(header.status, EventStatus::Accepted | EventStatus::SoftFailed);
    header.state_key_id().filter(|_| counts)
}

/// Puts a state before an event in the place of the one that it had, and what follows from it.
fn change_states(
    tx: &mut Tx,
    header: &mut Positioned<EventHeader>,
    num: EventNum,
    state_before: NodeId,
) -> Result<(), StorageError> {
    let header = &mut header.value;
    let is_in_line = header.room_state == header.state_after;
    header.state_before = state_before;
    header.state_after = match own_entry(header) {
        Some(key) => state::set(tx, header.room, state_before, key, num)?,
        None => state_before,
    };
    if is_in_line {
        header.room_state = header.state_after;
    }
    Ok(())
}

/// Resolves the state before an event anew, whose own is damaged, from those after all the events that it follows.
fn mend_merged(
    row: &mut Row<'_>,
    num: EventNum,
    pdu: &Pdu,
    header: &EventHeader,
) -> Result<(), StorageError> {
    let mut distinct = pdu.prev_events.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let mut after = Vec::new();
    for prev in &header.prev {
        let Some(found) = row.header(*prev)?.map(|found| found.value) else { return Ok(()) };
        if found.status == EventStatus::Outlier || !is_whole(row, header.room, found.state_after)? {
            return Ok(());
        }
        after.push(Side { snapshot: found.state_after, lacks_members: found.partial_state });
    }
    if after.is_empty() || header.prev.len() != distinct.len() {
        // The state was told by another server.
        return Ok(());
    }
    row.change_header(num, move |tx, header| {
        let room = room(tx, &header.value)?;
        let state_before = fork::merged_sides(tx, &room, after)?;
        change_states(tx, header, num, state_before)
    });
    Ok(())
}

/// The room as resolution wants it, which reads nothing of the head.
fn room(tx: &Tx, header: &EventHeader) -> Result<RoomCtx, StorageError> {
    let head = RoomHead {
        version: header.version,
        extremities: Vec::new(),
        depth: header.depth,
        state: header.state_before,
        joined: 0,
        invited: 0,
        other_servers: 0,
        partial_state: header.partial_state,
        forked: true,
    };
    let (num, id) = (header.room, tx.room_id(header.room)?);
    Ok(RoomCtx { num, id, version: room_version(header.version)?, head })
}

/// The room's state before a message in a forked graph, which a message does not change. It is that after the event
/// before it in the timeline.
fn room_state_before(
    row: &mut Row<'_>,
    pos: StreamPos,
    header: &EventHeader,
) -> Result<Option<NodeId>, StorageError> {
    if header.state_key.is_some() {
        return Ok(None);
    }
    let (start, here) = ((header.room, StreamPos(i64::MIN)), (header.room, pos));
    let mut before = None;
    row.reader().scan_between(&schema::TIMELINE, &start, &here, Direction::Backward, |_, num| {
        before = Some(num);
        false
    })?;
    let Some(before) = before else { return Ok(None) };
    let Some(before) = row.header(before)?.map(|before| before.value.room_state) else { return Ok(None) };
    Ok(is_whole(row, header.room, before)?.then_some(before))
}

/// Whether the second snapshot is the first with the event under its own key, and nothing else.
fn follows_with(
    row: &Row<'_>,
    num: EventNum,
    room: RoomNum,
    (before, after): (NodeId, NodeId),
    own: Option<StateKeyId>,
) -> Result<bool, StorageError> {
    let changes = row.reader().state_difference(room, before, after)?;
    Ok(match (own, changes.as_slice()) {
        (None, []) => true,
        (Some(own), [change]) => change.key == own && change.after == Some(num),
        _ => false,
    })
}
