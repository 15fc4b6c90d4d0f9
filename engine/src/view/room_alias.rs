//! What room an alias stands for.

use crate::{
    error::{Denied, Error, Result, What},
    room::{alias, membership},
    store::Reader,
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
