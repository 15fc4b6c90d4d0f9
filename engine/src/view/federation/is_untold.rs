//! What users of this server did in a room, and another is yet to be told.

use std::sync::Arc;

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

/// The same, right before the join is handed in: what the server tells of the room then does not go by these, whatever it is
/// delivered while that is stored here.
pub struct UntoldEnds<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The other server.
    pub server: &'a str,
}

impl View for UntoldEnds<'_> {
    /// The ids of the ends that are to be merged with what is told. Not those whose own state lacks members: the room would lack
    /// them with the join's whole state, too.
    type Output = Vec<Arc<str>>;

    fn read(&self, reader: &Reader) -> Result<Vec<Arc<str>>> {
        let Some(room) = RoomCtx::find(reader, self.room_id)? else { return Ok(Vec::new()) };
        let ends = untold::ends(reader, &room, self.server)?.into_iter();
        Ok(ends.filter(|event| !event.header.partial_state).map(|event| event.event_id.clone()).collect())
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
