//! What another server was not told of yet, or goes on as if it had not been, that users of this one did in a room.
//!
//! Where this server enters a room again by way of one that is still to be told, that is still to come to the others, who will merge
//! it; so it does here. Who was told of a leave and sends events of the room all the same has refused it, as everybody does while the
//! room's access list denies this server, or has lost it since.

use std::sync::Arc;

use super::{Event, RoomCtx};
use crate::{
    core::{
        identifiers::server_name,
        num::{EventNum, TextNum},
    },
    error::Result,
    outbox::{self, CROSSING_MS_MAX, delivery::OWN_EVENTS_MAX},
    store::{Reader, StorageError, schema, schema::Membership},
};

/// The forward extremities of the room that are events of users of this server, and still to be delivered to `server`; what one
/// that is not among those servers has heard of is not known, and nothing is. O(extremities).
pub(crate) fn ends(reader: &Reader, room: &RoomCtx, server: &str) -> Result<Vec<Arc<Event>>> {
    let Some(server) = reader.text_num(server)? else { return Ok(Vec::new()) };
    let delivered_to = outbox::destination(reader, server)?.delivered_to;
    let mut untold = Vec::new();
    for (num, _) in &room.head.extremities {
        let event = reader.event(*num)?;
        if !is_own(reader, &event)? {
            continue;
        }
        let pos = event.pos();
        let is_still_to_go = pos > delivered_to
            && reader.has(&schema::OUTGOING_EVENTS, &(room.num, pos))?
            && outbox::is_owed(reader, server, room.num, pos)?;
        // Or once more.
        if is_still_to_go || outbox::is_queued(reader, server, *num)? {
            untold.push(event);
        }
    }
    Ok(untold)
}

/// The forward extremities of the room that are events of users of this server, the oldest first; of more than are told at once the
/// newest. A dummy event is one, which leads to what it follows. O(extremities).
pub(super) fn own_ends(reader: &Reader, room: &RoomCtx) -> Result<Vec<Arc<Event>>> {
    let nums: Vec<EventNum> = room.head.extremities.iter().map(|(num, _)| *num).collect();
    let mut own = Vec::new();
    for event in reader.events(&nums)? {
        if is_own(reader, &event)? {
            own.push(event);
        }
    }
    own.sort_unstable_by_key(|event| event.num);
    Ok(own.split_off(own.len().saturating_sub(OWN_EVENTS_MAX)))
}

/// How the last users of this server left the room, if they left it and were not turned out: of the forward extremities those that
/// were delivered to `server`, which was there then. Nothing while what it sent before that may still be on its way, nor while a user
/// of this server is in the room. O(extremities).
pub(crate) fn delivered_leave(reader: &Reader, room: &RoomCtx, server: TextNum) -> Result<Vec<Arc<Event>>> {
    let mut delivered = Vec::new();
    if reader.is_server_in_room(&reader.shared.server_name, room.num)? {
        return Ok(delivered);
    }
    let (now_ms, mut have_left) = (reader.shared.clock.now_ms(), false);
    let delivered_to = outbox::destination(reader, server)?.delivered_to;
    for event in own_ends(reader, room)? {
        let (pdu, pos) = (event.pdu()?, event.pos());
        // If it is of later than now, the clock was set back.
        let may_have_crossed = now_ms.abs_diff(pdu.origin_server_ts) < CROSSING_MS_MAX;
        if may_have_crossed || pos > delivered_to || !outbox::is_owed(reader, server, room.num, pos)? {
            continue;
        }
        have_left |= &*pdu.kind == "m.room.member" && pdu.membership() == Some(Membership::Leave.name());
        delivered.push(event);
    }
    Ok(if have_left { delivered } else { Vec::new() })
}

fn is_own(reader: &Reader, event: &Event) -> Result<bool, StorageError> {
    let sender = reader.user_id(event.header.sender)?;
    Ok(server_name(&sender) == Some(&*reader.shared.server_name))
}
