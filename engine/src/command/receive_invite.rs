//! Another server invites a local user: the invite is signed, and the user told, also when this server is not in the room.
//!
//! Specification: server-server API, `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    account::{invite_permission::check_invitable, users},
    command::{Command, Lanes},
    core::{
        event::{JsonObject, Pdu},
        identifiers::server_name,
        version::RoomVersion,
    },
    error::{Denied, Error, Invalid, Result, What},
    room::{
        RoomCtx,
        out_of_band::{Notice, check_open_invites, check_room_state, note, stripped_state, takes_part},
        servers::server_allowed,
        signed_invites, version_index,
    },
    store::{
        Tx,
        schema::{Membership, SignedInvite},
    },
};

/// An invite from another server.
pub struct ReceiveInvite {
    /// The room's id.
    pub room_id: String,
    /// The event's id.
    pub event_id: String,
    /// The room's version, as the server says.
    pub version: &'static RoomVersion,
    /// The event. Its signatures have been checked.
    pub event: Arc<Pdu>,
    /// `invite_room_state`: events, or stripped ones. In rooms of version 12 and later, the signatures of whole ones are for
    /// the caller to check.
    pub room_state: Vec<JsonObject>,
    /// The server that invites.
    pub server: String,
}

/// What comes of an invite from another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedInvite {
    /// The event with this server's signature.
    pub event: Bytes,
    /// Whether the user is told of it. Not if they were before, or will be by the room's other events.
    pub is_news: bool,
}

impl Command for ReceiveInvite {
    /// Errors: [`Invalid::Parameter`] when the event is not an invite for a user of this server from one of that server's, or
    /// the state does not tell the room; [`What::User`] not found; [`Denied::OtherServer`]; [`Denied::InvitesBlocked`];
    /// [`Denied::ServerAcl`] of a room that this server is in; [`Denied::TooManyInvites`]; [`Invalid::Event`].
    type Output = ReceivedInvite;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<ReceivedInvite> {
        let target = self.check()?;
        if server_name(target) != Some(&*tx.shared.server_name) {
            return Err(Denied::OtherServer.into());
        }
        let found = users::find(tx, target)?.filter(|(_, account)| !account.is_deactivated);
        let (user, _) = found.ok_or(Error::NotFound(What::User))?;
        check_invitable(tx, target)?;
        let takes_part = takes_part(tx, &self.room_id)?;
        if takes_part {
            server_allowed(tx, &RoomCtx::load(tx, &self.room_id)?, &self.server)?;
        }
        let shared = tx.shared.clone();
        let signed = Pdu::clone(&self.event)
            .with_signature(self.version, &shared.server_name, &shared.key_pair)
            .map_err(Invalid::Event)?;
        check_room_state(self.version, &self.room_id, &self.room_state)?;
        let stripped_state = stripped_state(&signed, &self.room_state)?;
        // A server that is in the room gets the invite with its other events, and tells its user then.
        if takes_part {
            if !signed_invites::is_judged(tx, &signed.event_id)? {
                let room = tx.intern_room(&self.room_id)?;
                signed_invites::keep(tx, user, room, &self.to_keep(tx, &signed, stripped_state))?;
            }
            return Ok(ReceivedInvite { event: signed.json, is_news: false });
        }
        let room = tx.intern_room(&self.room_id)?;
        let known = tx.out_of_band(user, room)?;
        if known.is_some_and(|known| *known.event_id == *signed.event_id) {
            return Ok(ReceivedInvite { event: signed.json, is_news: false });
        }
        check_open_invites(tx, (user, room), (&self.server, &self.event.sender))?;
        // It may be the one that was kept while this server was in the room and could not be shown.
        signed_invites::discard(tx, user, room);
        let notice = Notice {
            version: self.version,
            pdu: &signed,
            membership: Membership::Invite,
            stripped_state: Some(stripped_state),
            servers: vec![self.server.clone()],
        };
        note(tx, user, room, notice)?;
        Ok(ReceivedInvite { event: signed.json, is_news: true })
    }
}

impl ReceiveInvite {
    /// The invite as it is kept until the room's events tell of it.
    fn to_keep(&self, tx: &Tx, signed: &Pdu, stripped_state: Vec<u8>) -> SignedInvite {
        SignedInvite {
            since_ms: tx.shared.clock.now_ms(),
            version: version_index(self.version),
            json: signed.json.to_vec(),
            stripped_state,
            server: self.server.clone(),
        }
    }

    /// The user who is invited.
    fn check(&self) -> Result<&str> {
        let event = &*self.event;
        let checks = [
            (&*event.kind == "m.room.member", "it is not an m.room.member event"),
            (*event.room_id == *self.room_id, "it is of another room"),
            (*event.event_id == *self.event_id, "it has another id"),
            (event.membership() == Some("invite"), "it is not an invite"),
            (
                server_name(&event.sender) == Some(&self.server),
                "its sender is not a user of the asking server",
            ),
        ];
        match (checks.into_iter().find(|(holds, _)| !holds), event.state_key.as_deref()) {
            (None, Some(target)) => Ok(target),
            (failed, _) => {
                let why = failed.map_or("it has no state key", |(_, why)| why);
                Err(Invalid::Parameter { what: "event", why: why.to_owned() }.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
