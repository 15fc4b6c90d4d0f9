//! What room an alias stands for, and what aliases a room has.

use crate::{
    core::{event::JsonObject, identifiers},
    error::{Denied, Error, Result, What},
    room::{RoomCtx, alias, sending, world_readable},
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
    ///
    /// Errors: [`What::Alias`] not found, also for one of another server, which alone knows; [`crate::Invalid`] for what is no
    /// alias.
    type Output = String;

    fn read(&self, reader: &Reader) -> Result<String> {
        alias::check(&self.alias)?;
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

/// Which aliases of other servers an `m.room.canonical_alias` that a user is about to send names anew.
pub struct AliasesElsewhere<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// Who is about to send it.
    pub user_id: &'a str,
    /// Its state key.
    pub state_key: &'a str,
    /// Its content.
    pub content: &'a JsonObject,
}

impl View for AliasesElsewhere<'_> {
    /// Errors: [`Denied::NotInRoom`]; [`crate::Invalid`] for what is no alias.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        let room = RoomCtx::find(reader, self.room_id)?.ok_or(Denied::NotInRoom)?;
        let user = reader.user_num(self.user_id)?.ok_or(Denied::NotInRoom)?;
        if reader.membership(user, room.num)? != Some(Membership::Join) {
            return Err(Denied::NotInRoom.into());
        }
        let named = sending::aliases_named_anew(reader, &room, self.state_key, self.content)?;
        let is_elsewhere = |name: &&str| identifiers::server_name(name) != Some(&*reader.shared.server_name);
        Ok(named.into_iter().filter(is_elsewhere).map(str::to_owned).collect())
    }
}
