//! What room an alias stands for, and what aliases a room has.

use crate::{
    error::{Denied, Error, Result, What},
    room::{RoomCtx, alias, membership, world_readable},
    store::{Reader, schema::Membership},
    view::View,
};

/// `GET /directory/room/{roomAlias}`, and every endpoint that takes an alias for a room.
pub struct RoomAlias {
    /// The alias.
    pub alias: String,
}

impl View for RoomAlias {
    /// The room's id.
    type Output = String;

    fn read(&self, reader: &Reader) -> Result<String> {
        alias::check(&self.alias)?;
        membership::check_local(reader, &self.alias).map_err(|_| Denied::Unreachable)?;
        let found = reader.alias(&self.alias)?;
        found.map(|alias| alias.room_id).ok_or(Error::NotFound(What::Alias))
    }
}

/// `GET /rooms/{roomId}/aliases`: for members, and for everybody where everybody may read the room.
pub struct RoomAliases {
    /// The room's id.
    pub room_id: String,
    /// Who asks.
    pub user_id: String,
}

impl View for RoomAliases {
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        let room = RoomCtx::find(reader, &self.room_id)?.ok_or(Denied::NotInRoom)?;
        let membership = match reader.user_num(&self.user_id)? {
            Some(user) => reader.membership(user, room.num)?,
            None => None,
        };
        if membership != Some(Membership::Join) && !world_readable(reader, &room)? {
            return Err(Denied::NotInRoom.into());
        }
        Ok(reader.room_aliases(room.num)?)
    }
}
