//! What another server was not told of yet that users of this one did in a room which they have left since.
//!
//! Where this server enters the room by way of it, that is still to come to the others, who will merge it; so it does here.

use std::sync::Arc;

use super::{Event, RoomCtx};
use crate::{
    core::identifiers::server_name,
    error::Result,
    outbox,
    store::{Reader, schema},
};

/// The forward extremities of the room that are events of users of this server, and still to be delivered to `server`; what one
/// that is not among those servers has heard of is not known, and nothing is. O(extremities).
pub(crate) fn ends(reader: &Reader, room: &RoomCtx, server: &str) -> Result<Vec<Arc<Event>>> {
    let Some(server) = reader.text_num(server)? else { return Ok(Vec::new()) };
    let delivered_to = outbox::destination(reader, server)?.delivered_to;
    let mut untold = Vec::new();
    for (num, _) in &room.head.extremities {
        let event = reader.event(*num)?;
        let (sender, pos) = (reader.user_id(event.header.sender)?, event.pos());
        if server_name(&sender) == Some(&*reader.shared.server_name)
            && pos > delivered_to
            && reader.has(&schema::OUTGOING_EVENTS, &(room.num, pos))?
            && outbox::is_owed(reader, server, room.num, pos)?
        {
            untold.push(event);
        }
    }
    Ok(untold)
}
