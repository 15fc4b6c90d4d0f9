//! `GET /event_auth/{roomId}/{eventId}`: the auth chain of an event.
//!
//! Specification: server-server API, "Retrieving event authorisation information".

use super::PduList;
use crate::{
    error::Result,
    room::{graph::auth_chain, peer::Peer},
    store::Reader,
    view::View,
};

/// The auth chain of an event, for a peer: the shallowest event first, without the event itself. O(chain).
pub struct EventAuth {
    /// The room's id.
    pub room_id: String,
    /// The event's id.
    pub event_id: String,
    /// The server that asks.
    pub server: String,
}

impl View for EventAuth {
    /// Errors: [`crate::Denied::NotInRoom`], [`crate::Denied::ServerAcl`]; [`crate::What::Event`] not found.
    type Output = PduList;

    fn read(&self, reader: &Reader) -> Result<PduList> {
        let peer = Peer::look_back(reader, &self.room_id, &self.server)?;
        let event = peer.event(&self.event_id)?;
        Ok(PduList::new(auth_chain(reader, peer.room.num, vec![event.num])?))
    }
}
