//! `PUT /send_join` to a room that members of certain rooms may join: the signature of the server whose user vouches.
//!
//! Specification: server-server API, "Restricted rooms".

use bytes::Bytes;

use crate::{
    core::event::Pdu,
    error::{Invalid, Result},
    room::handshake::{self, Handshake},
    store::Reader,
    view::View,
};

/// A submitted join, before its signatures are checked: what it needs of ours can only be there afterwards. The answer
/// goes to [`crate::command::AcceptMembership`] by way of that check and, before that has let it in, to nobody.
pub struct CountersignJoin<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The event's id.
    pub event_id: &'a str,
    /// The event as it was submitted.
    pub pdu: &'a [u8],
    /// The server that submits it.
    pub server: &'a str,
}

impl View for CountersignJoin<'_> {
    /// The event in canonical JSON; with our signature, if it names a user of ours who may vouch for it, and the conditions
    /// of the room's rule are met.
    ///
    /// Errors: [`crate::What::Room`] not found; [`crate::Denied::ServerAcl`]; [`Invalid::Event`], [`Invalid::Parameter`] when
    /// it is not a join of a user of that server; [`crate::Denied::JoinConditions`],
    /// [`crate::Denied::UnableToAuthoriseJoin`], [`crate::Denied::UnableToGrantJoin`].
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        let room = handshake::resident_room(reader, self.room_id, self.server)?;
        let pdu = Pdu::parse(room.version, self.pdu).map_err(Invalid::Event)?;
        handshake::check_submitted(&pdu, self.room_id, self.event_id, self.server, Handshake::Join)?;
        Ok(handshake::countersign(reader, &room, pdu)?.json)
    }
}
