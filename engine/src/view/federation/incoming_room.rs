//! The room that another server sends an event for.

use crate::{
    core::version::RoomVersion,
    error::{Error, Result, What},
    room::{RoomCtx, servers::server_allowed},
    store::Reader,
    view::View,
};

/// A room, before an event is looked at that another server sends for it.
pub struct IncomingRoom<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The server that sends; this one itself for what is taken in on its own account.
    pub server: &'a str,
}

impl View for IncomingRoom<'_> {
    /// The room's version, by which the event is to be checked.
    ///
    /// Errors: [`What::Room`] not found, if this server is not in the room; [`crate::Denied::ServerAcl`].
    type Output = &'static RoomVersion;

    fn read(&self, reader: &Reader) -> Result<&'static RoomVersion> {
        let room = RoomCtx::load(reader, self.room_id)?;
        if !reader.is_server_in_room(&reader.shared.server_name, room.num)? {
            return Err(Error::NotFound(What::Room));
        }
        // The list is about what others may do here, whatever it says of this server.
        if self.server != &*reader.shared.server_name {
            server_allowed(reader, &room, self.server)?;
        }
        Ok(room.version)
    }
}
