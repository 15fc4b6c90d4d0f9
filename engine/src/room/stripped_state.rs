//! Stripped state: what of a room is shown to a user who is invited, or who knocks.
//!
//! Specification: client-server API, "Stripped state".

use std::sync::Arc;

use super::{Event, RoomCtx};
use crate::{
    core::event::{ClientFormat, write_client_event},
    store::{Reader, StorageError},
};

/// The state that helps to tell what room it is, in the order of the specification.
const KINDS: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// The events that tell what room it is, as other servers get them with an invite or after a knock.
pub(crate) fn identifying_state(reader: &Reader, room: &RoomCtx) -> Result<Vec<Arc<Event>>, StorageError> {
    let mut events = Vec::with_capacity(KINDS.len());
    for kind in KINDS {
        events.extend(room.state(reader, kind, "")?);
    }
    Ok(events)
}

/// The stripped state that goes with `member`, an invite or a knock, as a JSON array: what identifies the room, who
/// invites, and the membership event itself.
pub(crate) fn stripped_state(
    reader: &Reader,
    room: &RoomCtx,
    member: &Arc<Event>,
) -> Result<Vec<u8>, StorageError> {
    let mut out = Vec::with_capacity(1024);
    for event in identifying_state(reader, room)? {
        write_stripped(&mut out, room, &event)?;
    }
    let pdu = member.pdu()?;
    if pdu.state_key.as_deref() != Some(&*pdu.sender)
        && let Some(sender) = room.state(reader, "m.room.member", &pdu.sender)?
    {
        write_stripped(&mut out, room, &sender)?;
    }
    write_stripped(&mut out, room, member)?;
    out.push(b']');
    Ok(out)
}

/// Appends one event of the array.
fn write_stripped(out: &mut Vec<u8>, room: &RoomCtx, event: &Event) -> Result<(), StorageError> {
    out.push(if out.is_empty() { b'[' } else { b',' });
    write_client_event(out, event.stored(&room.id)?, ClientFormat::Stripped, None)
        .map_err(|error| StorageError::Corrupt(format!("event {}: {error}", event.event_id)))
}
