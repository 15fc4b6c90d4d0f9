//! What follows history that is sent, of which nothing is kept: no state need be asked for to tell that it is history as well.

use std::{collections::HashSet, sync::Arc};

use super::judge_by_state;
use crate::{
    core::{auth::Denied, event::Pdu},
    room::{RoomCtx, entrance, gap},
    store::{Reader, StorageError},
};

/// Whether an event is history as some of the `past` is that it follows: what the room denies by now, and may be missing before the
/// entrance. Where nothing is of the past, nothing is read.
pub(crate) fn continues_past(
    reader: &Reader,
    room: &RoomCtx,
    pdu: &Pdu,
    past: &HashSet<Arc<str>>,
) -> Result<bool, StorageError> {
    // A state that lacks members says nothing about who is no longer in the room.
    let may_be_past = !room.head.partial_state
        && pdu.room_id == room.id
        && pdu.prev_events.iter().any(|event_id| past.contains(event_id));
    Ok(may_be_past
        && gap::in_graph(reader, room.num, &pdu.event_id)?.is_none()
        && entrance::may_be_missing(reader, room, pdu)?
        && denied_by_present(reader, room, pdu)?.is_some())
}

/// Why the room's current state denies an event, if it does.
pub(crate) fn denied_by_present(
    reader: &Reader,
    room: &RoomCtx,
    pdu: &Pdu,
) -> Result<Option<Denied>, StorageError> {
    Ok(judge_by_state(reader, room, pdu, room.head.state, &[])?.err())
}
