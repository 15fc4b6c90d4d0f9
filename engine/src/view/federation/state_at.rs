//! `GET /state` and `/state_ids`: the state of a room before an event, and its auth chain.
//!
//! The state is given whole, whatever the history visibility says: a peer has to judge by it the events that it gets,
//! and a server that joins is given the state of its time in the same way.
//! Specification: server-server API, "Retrieving events".

use super::PduList;
use crate::{
    error::{Error, Result, What},
    room::{graph::auth_chain, peer::Peer},
    store::{Reader, schema, schema::EventStatus},
    view::View,
};

/// The state before an event, for a peer. O(state + auth chain), without reading the events themselves.
pub struct StateAt {
    /// The room's id.
    pub room_id: String,
    /// The event's id.
    pub event_id: String,
    /// The server that asks.
    pub server: String,
}

/// A state and what allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateAnswer {
    /// The state.
    pub state: PduList,
    /// The auth chain of the state.
    pub auth_chain: PduList,
}

impl View for StateAt {
    /// Errors: [`crate::Denied::NotInRoom`], [`crate::Denied::ServerAcl`]; [`What::Event`] not found; [`What::State`]
    /// not found for an event before which the state is not known here, or not for a server that has left.
    type Output = StateAnswer;

    fn read(&self, reader: &Reader) -> Result<StateAnswer> {
        let peer = Peer::look_back(reader, &self.room_id, &self.server)?;
        let event = peer.event(&self.event_id)?;
        // The state before it may have become that of now, which is none of the business of a server that has left.
        let is_later = peer.has_left() && reader.has(&schema::TOLD_STATES, &(peer.room.num, event.num))?;
        if event.header.status == EventStatus::Outlier || event.header.partial_state || is_later {
            return Err(Error::NotFound(What::State));
        }
        let entries = reader.state_entries(peer.room.num, event.header.state_before)?;
        let state: Vec<_> = entries.into_iter().map(|(_, num)| num).collect();
        let auth_chain = auth_chain(reader, peer.room.num, state.clone())?;
        Ok(StateAnswer { state: PduList::new(state), auth_chain: PduList::new(auth_chain) })
    }
}
