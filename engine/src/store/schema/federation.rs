//! What rooms have to do with other servers. Ids 41 to 49, 57 and 58.

use serde::{Deserialize, Serialize};

use super::{Membership, keyspaces};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    store::record,
};

keyspaces! { TABLE:
    #[doc = "A join that left members out, by its id, of a stay before the one that `PARTIAL_JOINS` tells of or since which the room is whole."]
    41 EARLIER_JOINS: Rooms, (RoomNum, String) => ();
    #[doc = "An invite of a local user that this server has signed, for a room that it is in, until the room's events tell of it."]
    42 SIGNED_INVITES: Rooms, (RoomNum, UserNum) => SignedInvite;
    #[doc = "A room whose members are still being asked for, since a join that left them out."]
    43 PARTIAL_JOINS: Rooms, RoomNum => PartialJoin;
    #[doc = "An event of another server that waits for what it takes to judge it, by its id and the server that sent it."]
    44 PARKED_PDUS: Rooms, (RoomNum, String) => ParkedPdu;
    #[doc = "The servers (ours, too) that have joined members in a room, with how many."]
    45 ROOM_SERVERS: Rooms, (RoomNum, TextNum) => u64;
    #[doc = "A room's users by server: everybody who has or had a membership there."]
    46 SERVER_USERS: Rooms, (RoomNum, TextNum, UserNum) => ();
    #[doc = "What another server says of a local user's membership in a room that this server is not in, or in which it has not heard of it."]
    47 OUT_OF_BAND: Users, (UserNum, RoomNum) => OutOfBand;
    #[doc = "The events of a room that this server has to send to the others, by their positions."]
    48 OUTGOING_EVENTS: Events, (RoomNum, StreamPos) => EventNum;
    #[doc = "A receipt of another server's user for an event that is not here yet, by its thread (empty for the whole room)."]
    49 EARLY_RECEIPTS: Rooms, (RoomNum, UserNum, String) => EarlyReceipt;
    #[doc = "An event of a state that another server told, or of what allows one, that cannot be checked without keys: by the server whose they are, and the event's id."]
    57 UNCHECKED_EVENTS: Rooms, (RoomNum, TextNum, String) => UncheckedEvent;
    #[doc = "A user whose membership is told by one of these, by their id."]
    58 UNCHECKED_MEMBERS: Rooms, (RoomNum, String) => UncheckedMember;
}

/// A membership event of a room whose graph is elsewhere: an invite, a knock, or a leave that ends one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfBand {
    /// What the room's own rows here say of the user, from a time in which this server was in it.
    pub in_room: Option<Membership>,
    /// The event's id.
    pub event_id: String,
    /// The room's version, an index into `ROOM_VERSIONS`.
    pub version: u8,
    /// The event in canonical JSON.
    pub json: Vec<u8>,
    /// The servers that may help to answer it: of who invited, or where it was knocked.
    pub servers: Vec<String>,
}

/// An invite that waits for the room's events to tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedInvite {
    /// When it was signed, in milliseconds since the epoch.
    pub since_ms: u64,
    /// The room's version, an index into `ROOM_VERSIONS`.
    pub version: u8,
    /// The event in canonical JSON.
    pub json: Vec<u8>,
    /// A JSON array of what the user may know of the room.
    pub stripped_state: Vec<u8>,
    /// The server that invites.
    pub server: String,
}

/// Whom to ask for the members of a room that this server has joined without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialJoin {
    /// The join's id.
    pub event_id: String,
    /// The servers that were in the room before it, as the one says that let it in.
    pub servers: Vec<String>,
}

/// The key of an event that waits in a room: of each server that sends it there is one, since nobody has looked yet whether they
/// are the same. A server name has no space in it.
pub fn parked_key(event_id: &str, origin: &str) -> String {
    format!("{event_id} {origin}")
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedPdu {
    /// The server that sent it, which the key ends with.
    pub origin: String,
    /// When it came, in milliseconds since the epoch.
    pub since_ms: u64,
    /// The event as JSON. Nothing of it has been believed yet.
    pub json: Vec<u8>,
}

/// An event that waits for the keys of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncheckedEvent {
    /// The id of the event before which the state is that was told.
    pub before: String,
    /// Whether it is part of that state; else it allows something that is.
    pub is_state: bool,
    /// When it came, in milliseconds since the epoch.
    pub since_ms: u64,
    /// The event as JSON. Nothing of it has been believed yet.
    pub json: Vec<u8>,
}

/// Where the event waits that tells of a user's membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncheckedMember {
    /// The server whose keys it waits for.
    pub server: TextNum,
    /// Its id.
    pub event_id: String,
}

/// A receipt that came before its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyReceipt {
    /// The event's id.
    pub event_id: String,
    /// When the user has read it, as their server says, in milliseconds since the epoch.
    pub ts: u64,
    /// When the receipt came, in milliseconds since the epoch.
    pub since_ms: u64,
}

impl ParkedPdu {
    /// The event's id, of the key that it has.
    pub fn event_id<'k>(&self, key: &'k str) -> &'k str {
        // Of what was parked before one server's copy was told from another's the key is the id alone.
        key.strip_suffix(&*self.origin).and_then(|key| key.strip_suffix(' ')).unwrap_or(key)
    }
}

record!(OutOfBand, SignedInvite, PartialJoin, ParkedPdu, UncheckedEvent, UncheckedMember, EarlyReceipt);
