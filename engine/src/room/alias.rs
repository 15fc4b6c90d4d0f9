//! Local aliases: names for rooms, and whom they belong to.

use super::membership;
use crate::{
    core::{
        identifiers::{is_room_alias, split},
        num::{RoomNum, UserNum},
    },
    error::{Conflict, Invalid, Result},
    store::{Direction, Reader, StorageError, Tx, schema, schema::Alias},
};

/// Refuses what is not a room alias.
pub(crate) fn check(alias: &str) -> Result<()> {
    // White space would be legal, but no client can show or type it.
    if is_room_alias(alias) && !alias.contains(char::is_whitespace) && !alias.starts_with("#:") {
        return Ok(());
    }
    let why = format!("`{alias}` is not a room alias, which looks like #name:server");
    Err(Invalid::Identifier { what: "room alias", why }.into())
}

/// The part between `#` and the first colon: aliases of this server are told apart by it.
pub(crate) fn localpart(alias: &str) -> &str {
    split(alias, '#').map_or(alias, |(localpart, _)| localpart)
}

/// Points a free alias of this server to a room. The caller holds the alias's lane.
///
/// Errors: [`Conflict::AliasInUse`]; [`crate::Denied::OtherServer`]; those of [`check`].
pub(crate) fn add(tx: &mut Tx, alias: &str, room_id: &str, creator: UserNum) -> Result<()> {
    check(alias)?;
    membership::check_local(tx, alias)?;
    if tx.has(&schema::ALIASES, &alias.to_owned())? {
        return Err(Conflict::AliasInUse.into());
    }
    let room = tx.intern_room(room_id)?;
    tx.put(&schema::ALIASES, &alias.to_owned(), &Alias { room_id: room_id.to_owned(), creator });
    tx.put(&schema::ROOM_ALIASES, &(room, alias.to_owned()), &());
    Ok(())
}

/// Frees an alias. The caller holds the alias's lane.
pub(crate) fn remove(tx: &mut Tx, alias: &str, found: &Alias) -> Result<()> {
    tx.delete(&schema::ALIASES, &alias.to_owned());
    if let Some(room) = tx.room_num(&found.room_id)? {
        tx.delete(&schema::ROOM_ALIASES, &(room, alias.to_owned()));
    }
    Ok(())
}

impl Reader {
    /// The room that a local alias points to.
    pub fn alias(&self, alias: &str) -> Result<Option<Alias>, StorageError> {
        self.get(&schema::ALIASES, &alias.to_owned())
    }

    /// The local aliases of a room. O(result).
    pub fn room_aliases(&self, room: RoomNum) -> Result<Vec<String>, StorageError> {
        let mut aliases = Vec::new();
        self.scan(&schema::ROOM_ALIASES, &room, Direction::Forward, |(_, alias): (RoomNum, String), ()| {
            aliases.push(alias);
            true
        })?;
        Ok(aliases)
    }
}
