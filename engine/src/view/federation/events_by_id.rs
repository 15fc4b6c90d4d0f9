//! `GET /event/{eventId}`: events by their ids.
//!
//! Specification: server-server API, "Retrieving events".

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    core::num::RoomNum,
    error::{Error, Invalid, Result, What},
    room::peer::Peer,
    store::Reader,
    view::View,
};

/// How many events can be asked for at once: as many as a peer gets by walking back.
pub const EVENTS_BY_ID_MAX: usize = 100;

/// Events for a peer.
pub struct EventsById {
    /// The room that all of them must be in, if the peer named one.
    pub room_id: Option<String>,
    /// Their ids, at most [`EVENTS_BY_ID_MAX`].
    pub event_ids: Vec<String>,
    /// The server that asks.
    pub server: String,
}

impl View for EventsById {
    /// For each id in its place the event as the peer may have it, redacted where the history visibility hides it; or
    /// [`What::Event`] not found, also where it cannot be told yet whether that does, [`crate::Denied::NotInRoom`], [`crate::Denied::ServerAcl`].
    ///
    /// Fails as a whole with the latter two if a room was named that the server is kept out of, and with [`Invalid::TooLarge`]. A server
    /// that has left it is refused each event that came since.
    type Output = Vec<Result<Bytes>>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        if self.event_ids.len() > EVENTS_BY_ID_MAX {
            return Err(Invalid::TooLarge { what: "event ids", max: EVENTS_BY_ID_MAX }.into());
        }
        if let Some(room_id) = &self.room_id {
            let mut peer = Peer::look_back(reader, room_id, &self.server)?;
            return Ok(self.event_ids.iter().map(|id| event_in(&mut peer, id)).collect());
        }
        let mut peers: HashMap<RoomNum, Peer<'_>> = HashMap::new();
        let mut events = Vec::with_capacity(self.event_ids.len());
        for event_id in &self.event_ids {
            events.push(self.event_anywhere(reader, &mut peers, event_id));
        }
        Ok(events)
    }
}

impl EventsById {
    fn event_anywhere<'r>(
        &'r self,
        reader: &'r Reader,
        peers: &mut HashMap<RoomNum, Peer<'r>>,
        event_id: &str,
    ) -> Result<Bytes> {
        let num = reader.event_num(event_id)?.ok_or(Error::NotFound(What::Event))?;
        let room = reader.event(num)?.header.room;
        if let Some(peer) = peers.get_mut(&room) {
            return event_in(peer, event_id);
        }
        let mut peer = Peer::look_back(reader, &reader.room_id(room)?, &self.server)?;
        let event = event_in(&mut peer, event_id);
        peers.insert(room, peer);
        event
    }
}

fn event_in(peer: &mut Peer<'_>, event_id: &str) -> Result<Bytes> {
    let event = peer.event(event_id)?;
    peer.pdu(&event)?.ok_or(Error::NotFound(What::Event))
}
