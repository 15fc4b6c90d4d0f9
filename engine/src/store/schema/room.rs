//! Rooms and their events. Ids 10 to 49.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keyspaces;
pub use crate::core::membership::Membership;
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StateKeyId, StreamPos, TextNum, UserNum},
    store::{Positioned, Value, ValueWriter, read_record_before, record, write_record},
};

keyspaces! { TABLE:
    #[doc = "Event id to event."]
    10 EVENT_NUMS: Events, String => EventNum;
    #[doc = "An event's header, which walks, authorisation and filters read, behind its position."]
    11 EVENT_HEADERS: Events, EventNum => Positioned<EventHeader>;
    #[doc = "An event's id (with its length in two bytes) and canonical JSON."]
    12 EVENT_BODIES: Bodies, EventNum => Bytes;
    #[doc = "A room's events by position: live ones above zero, backfilled ones below."]
    13 TIMELINE: Events, (RoomNum, StreamPos) => EventNum;
    #[doc = "A room's forward extremities, current state and member counts."]
    14 ROOM_HEADS: Rooms, RoomNum => RoomHead;
    #[doc = "The nodes of a room's state trees."]
    15 STATE_NODES: Rooms, (RoomNum, NodeId) => Bytes;
    #[doc = "A room's users by membership (see Membership), with the membership event."]
    16 MEMBERS: Rooms, (RoomNum, u8, UserNum) => EventNum;
    #[doc = "A user's rooms, with the membership there and when it began."]
    17 USER_ROOMS: Users, (UserNum, RoomNum) => Positioned<UserRoom>;
    #[doc = "The event made for a client's transaction: user, device, endpoint and transaction id; positioned, so that old ones can go."]
    18 TRANSACTIONS: Users, (UserNum, TextNum, String) => Positioned<String>;
    #[doc = "Events that relate to an event, by class (see RelationClass) and position."]
    19 RELATIONS: Events, (RoomNum, u8, EventNum, StreamPos) => Relation;
    #[doc = "Redactions whose target was not there when they came, by the target's event id."]
    20 EARLY_REDACTIONS: Events, (RoomNum, String) => Vec<EventNum>;
    #[doc = "A user's receipt in a room by kind and thread, behind its position."]
    21 RECEIPTS: Rooms, (RoomNum, UserNum, u8, TextNum) => Positioned<Receipt>;
    #[doc = "Receipts of a room in the order in which they came."]
    22 RECEIPT_STREAM: Rooms, (RoomNum, StreamPos) => (UserNum, u8, TextNum);
    #[doc = "A room alias of this server."]
    23 ALIASES: Rooms, String => Alias;
    #[doc = "The local aliases of a room."]
    24 ROOM_ALIASES: Rooms, (RoomNum, String) => ();
    #[doc = "Rooms that are in the public directory."]
    25 PUBLIC_ROOMS: Rooms, RoomNum => ();
    #[doc = "A thread's root with its latest event and number of events."]
    26 THREADS: Events, (RoomNum, EventNum) => Positioned<Thread>;
    #[doc = "Threads of a room by the position of their latest event."]
    27 THREAD_STREAM: Events, (RoomNum, StreamPos) => EventNum;
    #[doc = "The user who took part in a thread."]
    28 THREAD_USERS: Events, (RoomNum, EventNum, UserNum) => ();
    #[doc = "What is the user's own news, by position: see UserNews."]
    29 USER_STREAM: Users, (UserNum, StreamPos) => UserNews;
    #[doc = "An event that is not here and that others follow, by its id, behind the place of the gap that it is in."]
    30 BACKWARD_EXTREMITIES: Events, (RoomNum, String) => Positioned<BackwardExtremity>;
    #[doc = "A gap in a room's timeline, by the position of the first event behind it: the next position to fill, downwards."]
    31 GAPS: Events, (RoomNum, StreamPos) => StreamPos;
    #[doc = "The events of a room, in the order in which they came, whose state is known in part only, since a join that left members out."]
    32 PARTIAL_STATES: Events, (RoomNum, StreamPos) => EventNum;
    #[doc = "A room's current state since a position at which it changed by no event that came then: history that healed a fork, members that became known, or a repair."]
    33 STATE_CHANGES: Events, (RoomNum, StreamPos) => NodeId;
    #[doc = "The state events that have an event, other than the create event, among their auth events, each with its entry of the state: the way up an auth chain."]
    34 CITATIONS: Events, (RoomNum, EventNum, EventNum) => StateKeyId;
    #[doc = "The events whose state is, in part, what another server told when the room was resynchronised: it does not follow from the events before them."]
    35 TOLD_STATES: Events, (RoomNum, EventNum) => ();
    #[doc = "A stretch of a room's timeline in which its current state lacked members, by the position of the join that left them out: where these became known, or the room was entered anew."]
    36 PARTIAL_STRETCHES: Events, (RoomNum, StreamPos) => StreamPos;
    #[doc = "Events that relate to one which was not there when they came, by that one's event id."]
    37 EARLY_RELATIONS: Events, (RoomNum, String) => Vec<EventNum>;
    #[doc = "Users of this server whose profile has changed, in rooms that are still to be told."]
    38 UNSHOWN_PROFILES: Rooms, (RoomNum, UserNum) => ();
    #[doc = "Rooms that guests of this server have to leave, whose policy server has to sign that."]
    39 GUESTS_TO_REMOVE: Rooms, RoomNum => ();
    #[doc = "Users of this server who came into a room by way of another server, and have not been given there what they set for the room that it replaces."]
    40 UNCARRIED_SETTINGS: Rooms, (RoomNum, UserNum) => ();
}

/// An event as graph walks, authorisation, filters and visibility see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHeader {
    /// The room.
    pub room: RoomNum,
    /// Index into `ROOM_VERSIONS`.
    pub version: u8,
    /// Who sent it.
    pub sender: UserNum,
    /// Its type.
    pub kind: TextNum,
    /// Its state key, if it is a state event.
    pub state_key: Option<TextNum>,
    /// The events that it follows.
    pub prev: Vec<EventNum>,
    /// The events that allow it.
    pub auth: Vec<EventNum>,
    /// Distance from the create event, as its server claims.
    pub depth: u64,
    /// One more than the greatest of its auth events'; zero for the create event. Nobody can claim it.
    pub auth_depth: u32,
    /// When its server says it was sent, in milliseconds since the epoch.
    pub origin_server_ts: u64,
    /// What became of it.
    pub status: EventStatus,
    /// The redaction that was applied to it.
    pub redacted_by: Option<EventNum>,
    /// The room's state before it.
    pub state_before: NodeId,
    /// The room's state after it: that before, and itself if it is accepted.
    pub state_after: NodeId,
    /// The room's current state once it was taken in, which is not the state after it where the room's graph is forked. Of
    /// what has no place in the graph, the empty one.
    pub room_state: NodeId,
    /// Whether the state before it lacks members (see [`PARTIAL_STATES`]).
    pub partial_state: bool,
    /// Whether there is, or was when it came, a gap in the timeline before it (see [`GAPS`]).
    pub after_gap: bool,
    /// The device and transaction of a local client that sent it.
    pub transaction: Option<(TextNum, String)>,
    /// Whether it was filled into a gap: it is history, of which nobody was told when it came. Stands behind the rest (see
    /// [`FILLED_IN`]), and is false in rows that are older than it.
    #[serde(skip)]
    pub is_filled_in: bool,
}

/// What stands behind the header of an event that was filled into a gap; behind others there is nothing.
const FILLED_IN: u8 = 1;

impl Value for EventHeader {
    fn write(&self, out: &mut ValueWriter) {
        write_record(self, out);
        if self.is_filled_in {
            out.bytes.push(FILLED_IN);
        }
    }

    fn read(bytes: &Bytes) -> Option<Self> {
        match read_record_before::<Self>(bytes)? {
            (header, []) => Some(header),
            (header, [FILLED_IN]) => Some(Self { is_filled_in: true, ..header }),
            _ => None,
        }
    }
}

impl EventHeader {
    /// Which entry of the state the event is, if it is a state event.
    pub fn state_key_id(&self) -> Option<StateKeyId> {
        self.state_key.map(|state_key| StateKeyId::new(self.kind, state_key))
    }

    /// Whether it takes effect as a redaction: it is shown, or it is history that the rules allow and that is not shown all the same.
    pub fn takes_effect(&self) -> bool {
        match self.status {
            EventStatus::Accepted => true,
            EventStatus::SoftFailed => self.is_filled_in,
            EventStatus::Rejected | EventStatus::Outlier => false,
        }
    }

    /// Whether it has a place in the room's graph here. Outliers have none; nor has what was rejected as one, for which there
    /// was no state of the room.
    pub fn is_in_graph(&self) -> bool {
        match self.status {
            EventStatus::Accepted | EventStatus::SoftFailed => true,
            EventStatus::Rejected => self.room_state != NodeId::default(),
            EventStatus::Outlier => false,
        }
    }
}

/// What became of an event. Specification: server-server API, "Checks performed on receipt of a PDU".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventStatus {
    /// Part of the room.
    Accepted,
    /// Allowed where it stands, not by the room's current state, or not signed by its policy server: not shown to clients, not built upon.
    SoftFailed,
    /// Refused.
    Rejected,
    /// Known outside of the graph, as part of an auth chain or of a state.
    Outlier,
}

/// Where a room stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomHead {
    /// Index into `ROOM_VERSIONS`.
    pub version: u8,
    /// The events that nothing follows yet, with their ids.
    pub extremities: Vec<(EventNum, String)>,
    /// The greatest depth of an event that came live: at least that of each forward extremity.
    pub depth: u64,
    /// The room's current state.
    pub state: NodeId,
    /// Joined members.
    pub joined: u64,
    /// Invited users.
    pub invited: u64,
    /// Other servers with joined members.
    pub other_servers: u64,
    /// Whether the current state lacks members.
    pub partial_state: bool,
    /// Whether the current state ever was another than that after the last event.
    pub forked: bool,
}

/// An event that is not here and that another follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackwardExtremity {
    /// An event that follows it.
    pub follower: EventNum,
    /// The depth that that one claims.
    pub depth: u64,
}

/// A room as one of its users sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRoom {
    /// The membership now.
    pub membership: Membership,
    /// The event that made it so.
    pub event: EventNum,
    /// Whether the user has forgotten the room.
    pub forgotten: bool,
    /// Whether the user was ever joined.
    pub ever_joined: bool,
    /// What an invite or knock showed of the room: stripped state as a JSON array.
    pub stripped_state: Option<Vec<u8>>,
}

impl UserRoom {
    /// As a room has a user that is entered with this membership of theirs.
    pub(crate) fn entered(membership: Membership, event: EventNum) -> Self {
        let ever_joined = membership == Membership::Join;
        Self { membership, event, forgotten: false, ever_joined, stripped_state: None }
    }
}

/// An event's relation to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The event that relates.
    pub event: EventNum,
    /// `rel_type`.
    pub rel_type: TextNum,
    /// The type of the event that relates.
    pub kind: TextNum,
    /// Its sender.
    pub sender: UserNum,
}

/// How far a user has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The event.
    pub event: EventNum,
    /// Its place in the timeline.
    pub event_pos: StreamPos,
    /// When the receipt came, in milliseconds since the epoch.
    pub ts: u64,
}

/// A local alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The room's id.
    pub room_id: String,
    /// Who made it.
    pub creator: UserNum,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its latest event.
    pub latest: EventNum,
    /// How many events are in it; the row's position is that of the latest, under which the thread stands in the stream.
    pub count: u64,
}

/// One entry of the per-user index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UserNews {
    /// The user's membership of a room changed.
    Membership(RoomNum),
    /// Global account data of this type changed.
    AccountData(String),
    /// Account data of this type in a room changed.
    RoomAccountData(RoomNum, String),
    /// The devices or keys of a user (perhaps this one) changed.
    DeviceList(UserNum),
    /// The user no longer shares a room with another, whose devices need not be followed.
    DeviceListLeft(UserNum),
    /// The user has signed a key of another, which all their devices are to see, whether they share a room with that one or not.
    KeySigned(UserNum),
}

record!(
    RoomHead,
    BackwardExtremity,
    UserRoom,
    Relation,
    Receipt,
    Alias,
    Thread,
    UserNews,
    (UserNum, u8, TextNum)
);

#[cfg(test)]
mod tests {
    use super::*;

    fn header(is_filled_in: bool) -> EventHeader {
        EventHeader {
            room: RoomNum(1),
            version: 9,
            sender: UserNum(2),
            kind: TextNum(3),
            state_key: None,
            prev: vec![EventNum(4)],
            auth: vec![EventNum(5)],
            depth: 6,
            auth_depth: 7,
            origin_server_ts: 8,
            status: EventStatus::Accepted,
            redacted_by: None,
            state_before: NodeId(9),
            state_after: NodeId(9),
            room_state: NodeId(9),
            partial_state: false,
            after_gap: true,
            transaction: None,
            is_filled_in,
        }
    }

    fn encoded(header: &EventHeader) -> Vec<u8> {
        let mut out = ValueWriter::default();
        header.write(&mut out);
        out.bytes
    }

    #[test]
    fn headers_of_before_there_was_a_mark_for_history_are_read() {
        // Version, then the fields in their order, as they were written then.
        let older = [1, 1, 9, 2, 3, 0, 1, 4, 1, 5, 6, 7, 8, 0, 0, 9, 9, 9, 0, 1, 0];
        assert_eq!(EventHeader::read(&Bytes::copy_from_slice(&older)), Some(header(false)));
        assert_eq!(encoded(&header(false)), older);
    }

    #[test]
    fn the_mark_is_kept_and_nothing_else_may_stand_in_its_place() {
        let mut bytes = encoded(&header(true));
        assert_eq!(EventHeader::read(&Bytes::from(bytes.clone())), Some(header(true)));
        bytes.push(FILLED_IN);
        assert_eq!(EventHeader::read(&Bytes::from(bytes.clone())), None);
        bytes.truncate(bytes.len() - 2);
        bytes.push(FILLED_IN + 1);
        assert_eq!(EventHeader::read(&Bytes::from(bytes)), None);
    }
}
