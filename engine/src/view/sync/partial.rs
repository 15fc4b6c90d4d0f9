//! Rooms that lack members, in a sync for a client that does not load members lazily.
//!
//! It takes the state that it is given for whole, and would encrypt for nobody. So such a room is left out while the user is in
//! it, and told as one that they have just come into once it is whole. That they are out of it is told in any case.
//!
//! Invariant: whether a room was left out at a position follows from the store at any later one: it is while the room has a
//! row in `PARTIAL_JOINS`; the stretch from that join's position to where the row goes stands in `PARTIAL_STRETCHES` from
//! then on.
//! Costs: a look into memory for each room of the answer; more for rooms that were once joined without their members.

use super::{Request, Rooms};
use crate::{core::num::RoomNum, error::Result, store::schema, view::members::lacked_members};

/// Takes out the rooms that lack members, and marks those as newly joined that did at the last sync. What is told outside of
/// rooms goes on meanwhile: whose devices are to be followed is told as to any other client, and whose no more.
pub(super) fn sort(request: &Request<'_>, rooms: &mut Rooms) -> Result<()> {
    if request.sync.filter.room.state.lazy_load_members {
        return Ok(());
    }
    let marks = &request.reader.shared.watch.marks;
    let concerned: Vec<RoomNum> =
        rooms.joined.iter().copied().filter(|room| marks.partial(*room).is_some()).collect();
    for room in concerned {
        if request.reader.has(&schema::PARTIAL_JOINS, &room)? {
            rooms.joined.retain(|other| *other != room);
        } else if was_left_out(request, room)? && !rooms.newly_joined.contains(&room) {
            rooms.newly_joined.push(room);
        }
    }
    Ok(())
}

/// Whether the room, which is whole, lacked members at the last sync.
fn was_left_out(request: &Request<'_>, room: RoomNum) -> Result<bool> {
    let (reader, Some(since)) = (request.reader, request.since) else { return Ok(false) };
    let may_have_lacked = reader.shared.watch.marks.partial(room).is_some_and(|whole| since < whole);
    Ok(may_have_lacked && lacked_members(reader, room, since)?)
}
