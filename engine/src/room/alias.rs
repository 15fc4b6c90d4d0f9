//! Local aliases: names for rooms, and whom they belong to.

use super::membership;
use crate::{
    core::{identifiers::is_room_alias, num::UserNum},
    error::{Conflict, Invalid, Result},
    store::{Reader, Tx, schema, schema::Alias},
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

/// Points a free alias of this server to a room. The caller holds the alias's lane.
///
/// Errors: [`Conflict::AliasInUse`]; those of [`check`].
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

impl Reader {
    /// The room that a local alias points to.
    pub fn alias(&self, alias: &str) -> Result<Option<Alias>> {
        Ok(self.get(&schema::ALIASES, &alias.to_owned())?)
    }
}
