//! What a check remembers from row to row and from pass to pass. What grows with the store is kept for one room at a time.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::core::num::{EventNum, NodeId, RoomNum, StreamPos};

/// What passes tell those that come after them.
#[derive(Default)]
pub(super) struct Seen {
    /// Numbers that a name leads to which is not their own.
    pub disputed_names: HashSet<(u8, u64)>,
    /// Rooms that are being removed.
    pub going: HashSet<RoomNum>,
    /// Events that others followed before they came, by what those name, or that something in a gap before them follows.
    pub followed: HashSet<EventNum>,
    /// State nodes below which something is missing or out of place.
    pub broken_nodes: HashSet<(RoomNum, NodeId)>,
    /// The room whose state nodes are being visited, and its nodes: level, smallest and greatest key.
    pub nodes_of: (RoomNum, HashMap<NodeId, (u8, u64, u64)>),
    /// What the timeline says of each room.
    pub rooms: BTreeMap<RoomNum, RoomSeen>,
    /// The snapshot that was found whole last.
    pub last_snapshot: Option<(RoomNum, NodeId)>,
    /// The greatest numbers in use.
    pub used: Used,
}

/// What the timeline says of a room.
#[derive(Default)]
pub(super) struct RoomSeen {
    /// Events that no accepted one follows: the forward extremities.
    pub open: HashSet<EventNum>,
    /// Events that may be extremities or not: what this server left when it left the room, what a purge cut off, what was filled
    /// into a gap, and what only something in a gap follows.
    pub doubtful: HashSet<EventNum>,
    /// Events that are followed by one that stands before them.
    pub followed_early: HashSet<EventNum>,
    /// Whether the room's state ever was another than that after its last event.
    pub was_forked: bool,
    /// Whether the room's head was visited.
    pub has_head: bool,
}

/// The greatest numbers that occur.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub pos: StreamPos,
    pub event: u64,
    pub node: u64,
}

impl Seen {
    /// Notes that a position is in use.
    pub fn uses_position(&mut self, pos: StreamPos) {
        self.used.pos = self.used.pos.max(pos);
    }

    /// Notes that an event's number is in use.
    pub fn uses_event(&mut self, num: EventNum) {
        self.used.event = self.used.event.max(num.0);
    }
}
