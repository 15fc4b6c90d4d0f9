//! Purges: what is being removed, and what was; and where else a history begins. Ids 51 to 56.

use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos, UserNum},
    store::record,
};

keyspaces! { TABLE:
    #[doc = "A room's events that have no place in its timeline: outliers, soft-failed and rejected ones."]
    51 OFF_TIMELINE: Events, (RoomNum, EventNum) => ();
    #[doc = "Where a room's history begins because what was before has been purged."]
    52 HISTORY_STARTS: Rooms, RoomNum => StreamPos;
    #[doc = "The purge that is under way in a room, and how far it is."]
    53 PURGES: Rooms, RoomNum => Purge;
    #[doc = "Where the present stay of this server begins in a room that it had been in before: the position of its join."]
    55 ENTRANCES: Rooms, RoomNum => StreamPos;
    #[doc = "State events that a purge of the history has left as outliers, and that the history visibility hid from who was not there."]
    56 HIDDEN_OUTLIERS: Events, (RoomNum, EventNum) => ();
}

/// A purge that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// What is left to do, and from where.
    pub work: PurgeWork,
    /// Events removed so far.
    pub done: u64,
    /// About how many events there are to remove.
    pub estimate: u64,
    /// The first and the last number of an event that was removed.
    pub removed: Option<(EventNum, EventNum)>,
}

/// What a purge has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PurgeWork {
    /// The whole room: the rows of its members, from this membership and user on.
    Members(u8, UserNum),
    /// The whole room: its local aliases.
    Aliases,
    /// The whole room: the events of its timeline, from this position on.
    Events(StreamPos),
    /// The whole room: the events off its timeline, from this one on.
    OffTimeline(EventNum),
    /// The whole room: what else is kept under its number.
    Rows,
    /// The history before a position.
    History(HistoryPurge),
    /// The history: the nodes of state trees that no event that is left refers to, from this one on.
    Nodes(NodeId),
    /// The whole room: what other servers said of the memberships of users of this one, from this user on.
    OutOfBand(UserNum),
}

/// How far a purge of history is. What stays is looked at first, so that nothing in it refers to what goes; what comes
/// meanwhile is looked at before more goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPurge {
    /// What stands before this goes.
    pub before: StreamPos,
    /// Off the timeline, where there are no positions, what is less deep than this goes.
    pub depth: u64,
    /// Events of the timeline from here on have not been looked at.
    pub kept: StreamPos,
    /// Events off the timeline from here on have not been looked at.
    pub kept_off_timeline: EventNum,
    /// Receipts from here on have not been looked at.
    pub receipts: StreamPos,
    /// Events of the timeline before this have not been removed.
    pub events: StreamPos,
    /// Events off the timeline from here on have not been removed.
    pub off_timeline: EventNum,
}

record!(Purge);
