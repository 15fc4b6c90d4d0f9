//! Where a room ends, as far as this server knows: what its next event will follow, and what other servers are told so that
//! they catch up.

use std::sync::Arc;

use bytes::Bytes;

use crate::{core::version::RoomVersion, error::Result, room::RoomCtx, store::Reader, view::View};

/// The forward extremities of a room.
pub struct Frontier {
    /// The room's id.
    pub room_id: String,
}

/// What a server that speaks with others about a room goes by.
#[derive(Clone, Debug)]
pub struct RoomFrontier {
    /// The room's version.
    pub version: &'static RoomVersion,
    /// The events that nothing follows yet.
    pub extremities: Vec<FrontierEvent>,
}

/// An event that nothing follows yet.
#[derive(Clone, Debug)]
pub struct FrontierEvent {
    /// Its id.
    pub event_id: Arc<str>,
    /// The user who sent it.
    pub sender: Arc<str>,
    /// The event as other servers are sent it.
    pub json: Bytes,
}

impl View for Frontier {
    /// Nothing for a room that is not known here.
    type Output = Option<RoomFrontier>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let Some(room) = RoomCtx::find(reader, &self.room_id)? else { return Ok(None) };
        let nums: Vec<_> = room.head.extremities.iter().map(|(num, _)| *num).collect();
        let mut extremities = Vec::with_capacity(nums.len());
        for event in reader.events(&nums)? {
            extremities.push(FrontierEvent {
                event_id: event.event_id.clone(),
                sender: reader.user_id(event.header.sender)?,
                json: event.json.clone(),
            });
        }
        Ok(Some(RoomFrontier { version: room.version, extremities }))
    }
}
