//! `GET /timestamp_to_event/{roomId}` of the server-server API: the event closest to a time, for a peer.
//!
//! Invariant: as with what a client asks for ([`crate::view::EventByTimestamp`]); an event that the history visibility hides from the peer
//! is passed over, as its timestamp would tell of it.

use crate::{
    error::{Error, Result, What},
    room::peer::Peer,
    store::Reader,
    view::{
        View,
        event_by_timestamp::{closest, first_not_before},
        timeline,
    },
};

/// How many events are looked at that the peer may not see: some milliseconds of work. What lies behind more of them is
/// too far away to be of use.
const LOOKED_AT_MAX: usize = 1_000;

/// The event closest to a time, in one direction from it.
pub struct PeerEventByTimestamp {
    /// The room's id.
    pub room_id: String,
    /// Milliseconds since the epoch.
    pub ts: u64,
    /// The first event at or after the time, or the last at or before it.
    pub forwards: bool,
    /// The server that asks.
    pub server: String,
}

impl View for PeerEventByTimestamp {
    /// The event's id and its timestamp in milliseconds since the epoch.
    ///
    /// Errors: [`crate::Denied::NotInRoom`], [`crate::Denied::ServerAcl`]; [`What::Event`] not found.
    type Output = (String, u64);

    fn read(&self, reader: &Reader) -> Result<(String, u64)> {
        let mut peer = Peer::enter(reader, &self.room_id, &self.server)?;
        let room = peer.room.num;
        let split = first_not_before(reader, room, reader.pos, |event_ts| match self.forwards {
            true => event_ts < self.ts,
            false => event_ts <= self.ts,
        })?;
        let stretch = split.stretch(self.forwards, reader.pos);
        let limit = stretch.limit;
        let rows = timeline::rows(reader, room, stretch, LOOKED_AT_MAX)?;
        let mut seen = Vec::new();
        for (_, num) in rows {
            let event = reader.event(num)?;
            if peer.may_see(&event)? {
                seen.push(event);
            }
            if seen.len() == limit {
                break;
            }
        }
        let event = closest(&seen, self.ts, self.forwards, split.pos).ok_or(Error::NotFound(What::Event))?;
        Ok((event.event_id.to_string(), event.header.origin_server_ts))
    }
}
