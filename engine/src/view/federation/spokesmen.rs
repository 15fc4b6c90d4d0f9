//! Local members in whose names other servers can be asked where a room stands.

use std::sync::Arc;

use crate::{
    core::version::RoomVersion,
    error::{Error, Result, What},
    room::RoomCtx,
    store::{Reader, schema::Membership},
    view::View,
};

/// So many are told: another server may not know of the first ones, but each that it does not know costs a request.
const SPOKESMEN_MAX: usize = 10;

/// The users of this server who are joined in a room, the oldest accounts first.
pub struct Spokesmen<'a> {
    /// The room's id.
    pub room_id: &'a str,
}

impl View for Spokesmen<'_> {
    /// Ids of some of them, one at least, and the room's version.
    ///
    /// Errors: [`What::Room`] not found, if nobody of this server is in it.
    type Output = (Vec<Arc<str>>, &'static RoomVersion);

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let room = RoomCtx::load(reader, self.room_id)?;
        let mut joined = Vec::new();
        for user in reader.users_of_server(&reader.shared.server_name, room.num)? {
            if reader.membership(user, room.num)? == Some(Membership::Join) {
                joined.push(reader.user_id(user)?);
            }
            if joined.len() == SPOKESMEN_MAX {
                break;
            }
        }
        match joined.is_empty() {
            true => Err(Error::NotFound(What::Room)),
            false => Ok((joined, room.version)),
        }
    }
}
