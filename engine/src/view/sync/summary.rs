//! The summary of a room in a sync: counts of members and, for a room without a name, whom to name it after.
//!
//! Invariant: what it says is read once, and only for a room that is given one.
//! Specification: client-server API, `GET /_matrix/client/v3/sync`, `RoomSummary`.

use std::cell::OnceCell;

use super::Request;
use crate::{
    core::{
        json::splice::{item, member, number_member, object_member},
        num::{RoomNum, UserNum},
    },
    error::{Error, Result},
    room::heroes::heroes,
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
