//! A local member in whose name other servers can be asked where a room stands.

use std::sync::Arc;

use crate::{
    core::version::RoomVersion,
    error::{Error, Result, What},
    room::RoomCtx,
    store::{Reader, schema::Membership},
    view::View,
};

/// A user of this server who is joined in a room.
pub struct Spokesman<'a> {
    /// The room's id.
    pub room_id: &'a str,
}

impl View for Spokesman<'_> {
    /// The user's id, and the room's version.
    ///
    /// Errors: [`What::Room`] not found, if nobody of this server is in it.
    type Output = (Arc<str>, &'static RoomVersion);

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let room = RoomCtx::load(reader, self.room_id)?;
        for user in reader.users_of_server(&reader.shared.server_name, room.num)? {
            if reader.membership(user, room.num)? == Some(Membership::Join) {
                return Ok((reader.user_id(user)?, room.version));
            }
        }
        Err(Error::NotFound(What::Room))
    }
}
