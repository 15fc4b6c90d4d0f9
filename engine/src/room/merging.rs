//! Dummy events: they bring the ends of a room together that nobody's next event does.
//!
//! Whatever comes into a room is judged by the states after all of its ends, and the next event here names them, so that
//! many ends cost everybody. Where somebody of this server speaks, what they send follows the ends; in a room where local
//! users only read, an event that says nothing does, as on other servers. Clients are not shown such events, ours or
//! others'. Other servers are not sent them: each of these makes its own, which would be a new end for all.

use super::{NewEvent, RoomCtx, append};
use crate::{
    core::{event::JsonObject, limits::OWN_PREV_EVENTS_MAX, num::RoomNum},
    error::{Error, Result},
    store::{Direction, Reader, StorageError, Tx, schema, schema::Membership},
};

/// The type of such events, as other servers know it.
pub(crate) const DUMMY_EVENT: &str = "org.matrix.dummy_event";

/// A room with more ends than this is merged: as many as one event follows.
const ENDS_MAX: usize = OWN_PREV_EVENTS_MAX;

/// A room with more ends than this is merged at once: each end is looked at for each event that comes, and stands in the
/// room's head, which is written with each. One transaction brings fifty.
const ENDS_AT_ONCE_MAX: usize = 100;

/// How many dummy events are sent at once. Each merges ten ends: more than come
/// with two transactions. A room that has more of them waits for the next time.
const EVENTS_MAX: usize = 12;

/// How many local members are tried, should the first not be allowed to send.
const SENDERS_MAX: usize = 100;

/// Merges the room's ends if they are too many and a local member may send. Returns how many events that took.
pub(crate) fn merge_ends(tx: &mut Tx, room: &mut RoomCtx) -> Result<usize> {
    let mut sent = 0;
    if room.head.extremities.len() <= ENDS_MAX {
        return Ok(sent);
    }
    let mut senders = local_members(tx, room.num)?.into_iter();
    let mut sender = senders.next();
    while let Some(user_id) = &sender
        && sent < EVENTS_MAX
        && room.head.extremities.len() > ENDS_MAX
    {
        match send(tx, room, user_id) {
            Ok(()) => sent += 1,
            Err(Error::Denied(_)) => sender = senders.next(),
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

fn send(tx: &mut Tx, room: &mut RoomCtx, sender: &str) -> Result<()> {
    let new = NewEvent {
        sender,
        kind: DUMMY_EVENT,
        state_key: None,
        content: JsonObject::new(),
        redacts: None,
        origin_server_ts: tx.shared.clock.now_ms(),
        transaction: None,
    };
    append(tx, room, new).map(drop)
}

fn local_members(reader: &Reader, room: RoomNum) -> Result<Vec<String>, StorageError> {
    let mut joined = Vec::new();
    for user in reader.users_of_server(&reader.shared.server_name, room)? {
        if joined.len() < SENDERS_MAX && reader.membership(user, room)? == Some(Membership::Join) {
            joined.push(reader.user_id(user)?.to_string());
        }
    }
    Ok(joined)
}

/// Whether the room's ends are so many that they are not to wait for somebody to speak.
pub(crate) fn has_many_ends(room: &RoomCtx) -> bool {
    room.head.extremities.len() > ENDS_AT_ONCE_MAX
}

/// The rooms with too many ends. O(rooms).
pub(crate) fn rooms_to_merge(reader: &Reader) -> Result<Vec<String>, StorageError> {
    let mut rooms: Vec<RoomNum> = Vec::new();
    reader.scan(&schema::ROOM_HEADS, &(), Direction::Forward, |room, head| {
        if head.extremities.len() > ENDS_MAX {
            rooms.push(room);
        }
        true
    })?;
    rooms.into_iter().map(|room| Ok(reader.room_id(room)?.to_string())).collect()
}
