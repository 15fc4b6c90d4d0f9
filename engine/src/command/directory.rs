//! Local aliases are made, removed and moved, and rooms are listed in the directory.

use serde_json::Value;

use crate::{
    command::{Command, Lanes},
    core::event::JsonObject,
    error::{Denied, Error, Result, What},
    room::{NewEvent, RoomCtx, alias, append, upgrade},
    store::{Reader, Tx, schema, schema::Membership},
};

/// `PUT /directory/room/{roomAlias}`.
pub struct SetAlias {
    /// The alias.
    pub alias: String,
    /// The room that it is to point to.
    pub room_id: String,
    /// Who makes it: a member of the room.
    pub user_id: String,
}

impl Command for SetAlias {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // The room's lane keeps the alias from a room that is being replaced.
        Lanes::default().name(alias::localpart(&self.alias)).room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        alias::check(&self.alias)?;
        let room = RoomCtx::load(tx, &self.room_id)?;
        let user = tx.intern_user(&self.user_id)?;
        if tx.membership(user, room.num)? != Some(Membership::Join) {
            return Err(Denied::NotInRoom.into());
        }
        alias::add(tx, &self.alias, &self.room_id, user)
    }
}

/// `DELETE /directory/room/{roomAlias}`: for who made it, for those who may change the room's main alias, and for
/// administrators of the server.
pub struct RemoveAlias {
    /// The alias.
    pub alias: String,
    /// The room that it was found to point to.
    pub room_id: String,
    /// Who removes it.
    pub user_id: String,
    /// Whether they administer the server.
    pub is_admin: bool,
}

impl Command for RemoveAlias {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().name(alias::localpart(&self.alias)).room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let found = tx.alias(&self.alias)?.filter(|found| found.room_id == self.room_id);
        let found = found.ok_or(Error::NotFound(What::Alias))?;
        let is_creator = tx.user_num(&self.user_id)? == Some(found.creator);
        let room = RoomCtx::find(tx, &self.room_id)?;
        let has_power = match &room {
            Some(room) => may_list(tx, room, &self.user_id)?,
            None => false,
        };
        if !(is_creator || self.is_admin || has_power) {
            return Err(Denied::NotYours.into());
        }
        alias::remove(tx, &self.alias, &found)?;
        match room {
            Some(room) if has_power => self.withdraw(tx, room),
            _ => Ok(()),
        }
    }
}

impl RemoveAlias {
    /// Takes the alias out of `m.room.canonical_alias`.
    fn withdraw(&self, tx: &mut Tx, mut room: RoomCtx) -> Result<()> {
        let Some(current) = room.state(tx, "m.room.canonical_alias", "")? else { return Ok(()) };
        let current = current.pdu()?;
        let content = without_alias(&current.content, &self.alias);
        if content == current.content {
            return Ok(());
        }
        let new = NewEvent {
            sender: &self.user_id,
            kind: "m.room.canonical_alias",
            state_key: Some(""),
            content,
            redacts: None,
            origin_server_ts: tx.shared.clock.now_ms(),
            transaction: None,
        };
        append(tx, &mut room, new)?;
        room.save(tx);
        Ok(())
    }
}

fn without_alias(content: &JsonObject, alias: &str) -> JsonObject {
    let mut content = content.clone();
    if content.get("alias").and_then(Value::as_str) == Some(alias) {
        content.remove("alias");
    }
    if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
        others.retain(|other| other.as_str() != Some(alias));
    }
    content
}

/// Whether the user is in the room and may set its main alias, which is what speaking for it in public takes.
fn may_list(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<bool> {
    let Some(user) = reader.user_num(user_id)? else { return Ok(false) };
    if reader.membership(user, room.num)? != Some(Membership::Join) {
        return Ok(false);
    }
    let levels = room.power_levels(reader)?;
    Ok(levels.is_some_and(|levels| {
        levels.user_level(user_id).reaches(levels.required("m.room.canonical_alias", true))
    }))
}

/// `PUT /directory/list/room/{roomId}`.
pub struct ListRoom {
    /// The room's id.
    pub room_id: String,
    /// Who asks for it: someone who may set the room's main alias, or an administrator of the server.
    pub user_id: String,
    /// Whether they administer the server.
    pub is_admin: bool,
    /// Whether the room is to be in the directory.
    pub is_listed: bool,
}

impl Command for ListRoom {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let room = RoomCtx::load(tx, &self.room_id)?;
        if !self.is_admin && !may_list(tx, &room, &self.user_id)? {
            return Err(Denied::PowerLevel.into());
        }
        match self.is_listed {
            true => tx.put(&schema::PUBLIC_ROOMS, &room.num, &()),
            false => tx.delete(&schema::PUBLIC_ROOMS, &room.num),
        }
        Ok(())
    }
}

/// A room has come here that replaces another: what this server calls that one leads to the new one from now on
/// ([`crate::view::ReplacedRoom`]). Whoever replaces a room of this server brings them along ([`crate::command::UpgradeRoom`]).
///
/// Specification: client-server API, "Room Upgrades": "Moves any local aliases to the new room".
pub struct MoveNames {
    /// The id of the room that is replaced.
    pub old_room_id: String,
    /// The id of the one that replaces it.
    pub room_id: String,
}

impl Command for MoveNames {
    /// Nothing is done unless both rooms say so, and a user of this server is in the new one.
    type Output = ();

    fn lanes(&self) -> Lanes {
        // An alias is made or removed with the lane of its room.
        Lanes::default().room(&self.old_room_id).room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let Some(room) = RoomCtx::find(tx, &self.room_id)? else { return Ok(()) };
        let Some((old_id, old)) = upgrade::predecessor(tx, &room)? else { return Ok(()) };
        if old_id == self.old_room_id && tx.is_server_in_room(&tx.shared.server_name, room.num)? {
            upgrade::move_names(tx, old, &room)?;
        }
        Ok(())
    }
}
