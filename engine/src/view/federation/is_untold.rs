//! Whether a server is yet to be told what users of this one did in a room.

use crate::{
    error::Result,
    outbox,
    room::{RoomCtx, untold},
    store::Reader,
    view::View,
};

/// Before this server enters a room again by way of another.
pub struct IsUntold<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The other server.
    pub server: &'a str,
}

impl View for IsUntold<'_> {
    /// Whether there is something of the room at its ends that is still to be delivered to the server. Whoever enters the room by
    /// way of it does well to wait for that, and otherwise to ask for all members: the state that is told is merged with what it
    /// was not told, and members that one of them lacks would be taken for such as there are no more.
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        match RoomCtx::find(reader, self.room_id)? {
            Some(room) => Ok(!untold::ends(reader, &room, self.server)?.is_empty()),
            None => Ok(false),
        }
    }
}

/// Before a user of a server is asked to be invited.
pub struct IsUntoldOfEnd<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The user.
    pub user_id: &'a str,
}

impl View for IsUntoldOfEnd<'_> {
    /// Whether what turned the user out of the room, or took back an invite, is still to be delivered to their server, whoever else
    /// of it is there. It takes an invite that comes before that for one of a user who is in the room, or forgets it when that comes.
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let (user, room) = (reader.user_num(self.user_id)?, reader.room_num(self.room_id)?);
        match user.zip(room) {
            Some((user, room)) => Ok(outbox::is_owed_an_end(reader, user, room)?),
            None => Ok(false),
        }
    }
}
