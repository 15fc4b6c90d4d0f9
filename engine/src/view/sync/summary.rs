//! The summary of a room in a sync: counts of members and, for a room without a name, whom to name it after.
//!
//! Invariant: what it says is read once, and only for a room that is given one.
//! Specification: client-server API, `GET /_matrix/client/v3/sync`, `RoomSummary`.

use std::{cell::OnceCell, sync::Arc};

use super::Request;
use crate::{
    core::{
        json::splice::{item, member, number_member, object_member},
        num::{NodeId, RoomNum, UserNum},
    },
    error::{Error, Result},
    room::{
        Event,
        heroes::{NAMES, heroes},
    },
    store::schema,
};

/// The summary of one room.
pub(super) struct Summary<'s, 'r> {
    request: &'s Request<'r>,
    room: RoomNum,
    said: OnceCell<Option<Said>>,
}

/// What is said of a room that is known here.
struct Said {
    /// `None` when the room has a name of its own.
    heroes: Option<Vec<UserNum>>,
    joined: u64,
    invited: u64,
}

/// Whether what a summary says may differ between two states of the room: its name, or who is in it. `timeline` lies between
/// them, and whether there is more than it. Where all is in it and nothing has changed, that costs a look at its events' types.
pub(super) fn is_changed(
    request: &Request<'_>,
    room: RoomNum,
    (before, after): (NodeId, NodeId),
    timeline: (&[Arc<Event>], bool),
) -> Result<bool> {
    let reader = request.reader;
    if before != after {
        let mut kinds = Vec::new();
        for kind in NAMES.into_iter().chain(["m.room.member"]) {
            kinds.extend(reader.text_num(kind)?);
        }
        let changes = reader.state_difference(room, before, after)?;
        if changes.iter().any(|change| kinds.contains(&change.key.kind())) {
            return Ok(true);
        }
    }
    Ok(may_redact(request, timeline)? && is_name_redacted(request, room, after)?)
}

/// Whether there may be redactions, which change no state.
fn may_redact(request: &Request<'_>, (events, is_limited): (&[Arc<Event>], bool)) -> Result<bool> {
    if is_limited || !request.sync.filter.room.timeline.is_everything() {
        return Ok(true);
    }
    let kind = request.reader.text_num("m.room.redaction")?;
    Ok(events.iter().any(|event| Some(event.header.kind) == kind))
}

/// Whether what names the room has lost its content since the last sync.
fn is_name_redacted(request: &Request<'_>, room: RoomNum, current: NodeId) -> Result<bool> {
    let reader = request.reader;
    let Some(since) = request.since else { return Ok(false) };
    for kind in NAMES {
        if let Some(event) = reader.state_event(room, current, kind, "")?
            && let Some(redaction) = event.header.redacted_by
        {
            let pos = reader.event(redaction)?.pos();
            // One that a purge has left has no position.
            if since < pos && pos <= reader.pos {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

impl<'s, 'r> Summary<'s, 'r> {
    pub fn new(request: &'s Request<'r>, room: RoomNum) -> Self {
        Self { request, room, said: OnceCell::new() }
    }

    /// Whom the room is named after.
    pub fn heroes(&self) -> Result<&[UserNum]> {
        Ok(self.said()?.and_then(|said| said.heroes.as_deref()).unwrap_or_default())
    }

    pub fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let Some(said) = self.said()? else { return Ok(()) };
        object_member(out, "summary", |out| {
            if let Some(heroes) = &said.heroes {
                member(out, "m.heroes");
                out.push(b'[');
                for user in heroes {
                    item(out);
                    crate::core::json::write_string(out, &self.request.reader.user_id(*user)?);
                }
                out.push(b']');
            }
            number_member(out, "m.joined_member_count", said.joined);
            number_member(out, "m.invited_member_count", said.invited);
            Ok::<(), Error>(())
        })
    }

    fn said(&self) -> Result<Option<&Said>> {
        if let Some(said) = self.said.get() {
            return Ok(said.as_ref());
        }
        let said = self.read()?;
        Ok(self.said.get_or_init(|| said).as_ref())
    }

    fn read(&self) -> Result<Option<Said>> {
        let (reader, room) = (self.request.reader, self.room);
        let Some(head) = reader.get(&schema::ROOM_HEADS, &room)? else { return Ok(None) };
        let heroes = heroes(reader, room, head.state, self.request.user)?;
        Ok(Some(Said { heroes, joined: head.joined, invited: head.invited }))
    }
}
