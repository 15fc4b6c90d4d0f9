//! `GET /backfill/{roomId}`: events and what was before them.
//!
//! Specification: server-server API, "Backfilling and retrieving missing events".

use bytes::Bytes;

use super::missing_events::beginnings;
use crate::{
    error::Result,
    room::{graph::history_before, peer::Peer},
    store::Reader,
    view::View,
};

/// The most events that a peer gets: as many as Synapse gives, and asks for.
pub const BACKFILL_LIMIT_MAX: usize = 100;

/// History for a peer.
pub struct Backfill {
    /// The room's id.
    pub room_id: String,
    /// The events to go back from; they are given, too, as far as they are known here.
    pub from: Vec<String>,
    /// The most events to give, up to [`BACKFILL_LIMIT_MAX`].
    pub limit: usize,
    /// The server that asks.
    pub server: String,
}

impl View for Backfill {
    /// The deepest event first; redacted where the history visibility hides them, and without those of which that cannot be told
    /// yet.
    ///
    /// Errors: [`crate::Denied::NotInRoom`], [`crate::Denied::ServerAcl`]; [`crate::Invalid::TooLarge`].
    type Output = Vec<Bytes>;

    fn read(&self, reader: &Reader) -> Result<Vec<Bytes>> {
        let mut peer = Peer::look_back(reader, &self.room_id, &self.server)?;
        let from = beginnings(&peer, &self.from)?;
        let found = history_before(reader, peer.room.num, from, self.limit.min(BACKFILL_LIMIT_MAX))?;
        reader.events(&found)?.iter().filter_map(|event| peer.pdu(event).transpose()).collect()
    }
}
