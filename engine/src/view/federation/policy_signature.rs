//! Whether an event of ours that other servers are to sign first has to be signed by its room's policy server before.

use std::sync::Arc;

use super::SignedEvent;
use crate::{
    core::event::Pdu,
    error::{Invalid, Result},
    room::{
        RoomCtx,
        policy::{self, UnsignedEvent},
    },
    store::Reader,
    view::View,
};

/// An event that this server has made and not stored, in front of its room.
pub struct PolicySignature<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The event.
    pub event: &'a SignedEvent,
}

impl View for PolicySignature<'_> {
    /// What the policy server has to sign; nothing if it need not.
    ///
    /// Errors: [`crate::What::Room`] not found; [`Invalid::Event`].
    type Output = Option<UnsignedEvent>;

    fn read(&self, reader: &Reader) -> Result<Option<UnsignedEvent>> {
        let room = RoomCtx::load(reader, self.room_id)?;
        let pdu = Pdu::parse(self.event.version, &self.event.json).map_err(Invalid::Event)?;
        policy::unsigned(reader, &room, Arc::new(pdu))
    }
}
