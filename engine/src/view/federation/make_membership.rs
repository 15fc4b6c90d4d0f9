//! `GET /make_join`, `/make_knock`, `/make_leave`: what another server needs to make a membership event of its user.
//!
//! Specification: server-server API, "Joining Rooms", "Restricted rooms", "Knocking upon a room", "Leaving Rooms".

use crate::{
    core::{
        event::JsonObject,
        identifiers::{is_user_id, server_name},
    },
    error::{Denied, Result},
    room::handshake::{self, Handshake},
    store::Reader,
    view::View,
};

/// A template for a membership event.
pub struct MakeMembership {
    /// The room's id.
    pub room_id: String,
    /// Whose membership: a user of the server that asks.
    pub user_id: String,
    /// What it is to become.
    pub handshake: Handshake,
    /// The room versions that the server speaks; does not matter for leaving.
    pub versions: Vec<String>,
    /// The server that asks.
    pub server: String,
}

/// An event to be filled in and signed by the server that asked.
#[derive(Clone, Debug, PartialEq)]
pub struct MembershipTemplate {
    /// The room's version.
    pub room_version: &'static str,
    /// The event, without hashes and signatures.
    pub event: JsonObject,
}

impl View for MakeMembership {
    /// Errors: [`Denied::NotYours`] for a user of another server; [`crate::What::Room`] not found, if this server is not in
    /// the room; [`Denied::ServerAcl`]; [`Denied::IncompatibleRoomVersion`]; [`Denied::Rule`] when the room's rules would
    /// refuse the event; [`Denied::UnableToAuthoriseJoin`], [`Denied::UnableToGrantJoin`].
    type Output = MembershipTemplate;

    fn read(&self, reader: &Reader) -> Result<MembershipTemplate> {
        if !is_user_id(&self.user_id) || server_name(&self.user_id) != Some(&self.server) {
            return Err(Denied::NotYours.into());
        }
        let room = handshake::resident_room(reader, &self.room_id, &self.server)?;
        if self.handshake != Handshake::Leave {
            handshake::check_version(room.version, &self.versions)?;
        }
        let content = handshake::content(reader, &room, &self.user_id, self.handshake)?;
        let event = handshake::template(reader, &room, (&self.user_id, &self.user_id), content)?;
        Ok(MembershipTemplate { room_version: room.version.id, event })
    }
}
