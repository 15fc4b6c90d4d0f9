//! `POST /get_missing_events/{roomId}`: the events between those that a peer has and those that it has heard of.
//!
//! Specification: server-server API, "Backfilling and retrieving missing events".

use std::collections::HashSet;

use bytes::Bytes;

use crate::{
    core::num::EventNum,
    error::{Denied, Error, Invalid, Result, What},
    room::{graph::history_between, peer::Peer},
    store::Reader,
    view::View,
};

/// How many events a peer gets that does not say. Specification: "Defaults to 10".
pub const MISSING_EVENTS_LIMIT_DEFAULT: usize = 10;
/// The most events that a peer gets: as many as Synapse gives. A larger gap is filled by backfill.
pub const MISSING_EVENTS_LIMIT_MAX: usize = 20;
/// The most event ids that a peer may name in each list: more forward extremities than any room in working order has.
const EVENT_IDS_MAX: usize = 1_000;

/// The events between, for a peer.
pub struct MissingEvents {
    /// The room's id.
    pub room_id: String,
    /// What the peer has; what is not known here means nothing.
    pub earliest_events: Vec<String>,
    /// What it has heard of; these are not given.
    pub latest_events: Vec<String>,
    /// The most events to give, up to [`MISSING_EVENTS_LIMIT_MAX`].
    pub limit: usize,
    /// No event above this depth is given.
    pub min_depth: u64,
    /// The server that asks.
    pub server: String,
}

impl View for MissingEvents {
    /// The events nearest to `latest_events`, the shallowest first; redacted where the history visibility hides
    /// them, and without those of which that cannot be told yet.
    ///
    /// Errors: [`crate::Denied::NotInRoom`], [`crate::Denied::ServerAcl`]; [`Invalid::TooLarge`].
    type Output = Vec<Bytes>;

    fn read(&self, reader: &Reader) -> Result<Vec<Bytes>> {
        let mut peer = Peer::look_back(reader, &self.room_id, &self.server)?;
        let known: HashSet<EventNum> = known_events(&peer, &self.earliest_events)?.into_iter().collect();
        let latest = beginnings(&peer, &self.latest_events)?;
        let limit = self.limit.min(MISSING_EVENTS_LIMIT_MAX);
        let found = history_between(reader, peer.room.num, latest, known, self.min_depth, limit)?;
        reader.events(&found)?.iter().filter_map(|event| peer.pdu(event).transpose()).collect()
    }
}

/// The events of the room among those with these ids, from which on a peer looks back.
///
/// Errors: [`Invalid::TooLarge`]; [`Denied::NotInRoom`] for a server that is not in the room any more and was there for none of
/// them.
pub(super) fn beginnings(peer: &Peer<'_>, event_ids: &[String]) -> Result<Vec<EventNum>> {
    let known = known_events(peer, event_ids)?;
    match known.is_empty() && peer.has_left() {
        true => Err(Denied::NotInRoom.into()),
        false => Ok(known),
    }
}

/// The events of the room among those with these ids.
///
/// Errors: [`Invalid::TooLarge`].
fn known_events(peer: &Peer<'_>, event_ids: &[String]) -> Result<Vec<EventNum>> {
    if event_ids.len() > EVENT_IDS_MAX {
        return Err(Invalid::TooLarge { what: "event ids", max: EVENT_IDS_MAX }.into());
    }
    let mut nums = Vec::with_capacity(event_ids.len());
    for event_id in event_ids {
        match peer.event(event_id) {
            Ok(event) => nums.push(event.num),
            Err(Error::NotFound(What::Event) | Error::Denied(Denied::NotInRoom)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(nums)
}
