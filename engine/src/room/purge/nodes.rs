//! Mark and sweep of a room's state trees after a purge of its history.
//!
//! Invariant: a node is swept only if it was made before marking began and no snapshot refers to it that an event of the
//! room, or its head, has. Snapshots made since are made of nodes that are marked, and of new ones, which are not swept.
//! Marks are in memory: after a crash marking begins anew, and sweeping goes on where it was.

use std::{collections::HashSet, sync::atomic::Ordering};

use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos},
    error::Result,
    room::RoomCtx,
    store::{
        Direction, StorageError, Tx, schema,
        schema::{EventStatus, PurgeWork},
    },
};

/// Which nodes are in use, as far as that is known.
pub(super) struct Marks {
    /// Nodes from here on were made after marking began.
    new_from: u64,
    nodes: HashSet<u64>,
    timeline: StreamPos,
    off_timeline: EventNum,
    is_whole: bool,
}

/// Looks at `limit` rows; `None` when nothing is left to do.
pub(super) fn step(tx: &mut Tx, room_id: &str, from: NodeId, limit: usize) -> Result<Option<PurgeWork>> {
    let room = RoomCtx::load(tx, room_id)?;
    let shared = tx.shared.clone();
    let mut memo = shared.memo.purges.0.lock();
    let marks = memo.entry(room.num).or_insert_with(|| {
        // What was resolved of states that no event has any more is resolved anew, should it be asked for.
        shared.resolved.clear();
        Marks {
            new_from: shared.counters.nodes.load(Ordering::Relaxed),
            nodes: HashSet::new(),
            timeline: StreamPos(i64::MIN),
            off_timeline: EventNum(0),
            is_whole: false,
        }
    });
    if !marks.is_whole {
        let mut beside_events = vec![room.head.state];
        tx.scan(
            &schema::STATE_CHANGES,
            &room.num,
            Direction::Forward,
            |_: (RoomNum, StreamPos), snapshot| {
                beside_events.push(snapshot);
                true
            },
        )?;
        for snapshot in beside_events {
            tx.mark_snapshot(room.num, snapshot, &mut marks.nodes)?;
        }
        marks.is_whole = mark(tx, room.num, marks, limit)?;
        return Ok(Some(PurgeWork::Nodes(from)));
    }
    let mut unused = Vec::new();
    let mut looked_at = 0;
    let mut next = None;
    let (start, end) = ((room.num, from), RoomNum(room.num.0 + 1));
    tx.scan_between(&schema::STATE_NODES, &start, &end, Direction::Forward, |(_, node), _| {
        if node.0 >= marks.new_from {
            return false;
        }
        if !marks.nodes.contains(&node.0) {
            unused.push(node);
        }
        looked_at += 1;
        let goes_on = looked_at < limit;
        next = (!goes_on).then_some(NodeId(node.0 + 1));
        goes_on
    })?;
    for node in unused {
        tx.delete(&schema::STATE_NODES, &(room.num, node));
    }
    Ok(next.map(PurgeWork::Nodes))
}

/// Marks the snapshots of more events. Returns whether all are marked.
fn mark(tx: &Tx, room: RoomNum, marks: &mut Marks, limit: usize) -> Result<bool, StorageError> {
    let mut found = Vec::new();
    let end = RoomNum(room.0 + 1);
    tx.scan_between(
        &schema::TIMELINE,
        &(room, marks.timeline),
        &end,
        Direction::Forward,
        |(_, pos), num| {
            found.push(num);
            marks.timeline = StreamPos(pos.0.saturating_add(1));
            found.len() < limit
        },
    )?;
    let room_for = limit - found.len();
    if room_for > 0 {
        let before = found.len();
        let start = (room, marks.off_timeline);
        tx.scan_between(&schema::OFF_TIMELINE, &start, &end, Direction::Forward, |(_, num), ()| {
            found.push(num);
            marks.off_timeline = EventNum(num.0 + 1);
            found.len() - before < room_for
        })?;
    }
    let is_whole = found.len() < limit;
    for header in tx.get_many(&schema::EVENT_HEADERS, found)?.into_iter().flatten() {
        if header.value.status == EventStatus::Outlier {
            continue;
        }
        for snapshot in [header.value.state_before, header.value.state_after, header.value.room_state] {
            tx.mark_snapshot(room, snapshot, &mut marks.nodes)?;
        }
    }
    if is_whole {
        mark_changes(tx, room, &mut marks.nodes)?;
    }
    Ok(is_whole)
}

/// Marks the states that the room came to by no event.
fn mark_changes(tx: &Tx, room: RoomNum, nodes: &mut HashSet<u64>) -> Result<(), StorageError> {
    let mut changed = Vec::new();
    tx.scan(&schema::STATE_CHANGES, &room, Direction::Forward, |_: (RoomNum, StreamPos), state| {
        changed.push(state);
        true
    })?;
    changed.into_iter().try_for_each(|state| tx.mark_snapshot(room, state, nodes))
}
