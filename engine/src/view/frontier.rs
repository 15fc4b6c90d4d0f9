//! Where a room ends, as far as this server knows: what its next event will follow, and what other servers are told so that
//! they catch up.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    core::{
        num::{RoomNum, StreamPos},
        version::RoomVersion,
    },
    error::Result,
    room::RoomCtx,
    store::{Direction, Reader, schema},
    view::View,
};

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
    /// The depth of the first event since this server is in the room. What is before it is history, which is not asked for
    /// when events are missing.
    pub min_depth: u64,
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
        let min_depth = min_depth(reader, room.num)?;
        Ok(Some(RoomFrontier { version: room.version, extremities, min_depth }))
    }
}

fn min_depth(reader: &Reader, room: RoomNum) -> Result<u64> {
    let mut first = None;
    // History that was fetched stands below zero.
    reader.scan(&schema::TIMELINE, &room, Direction::Forward, |(_, pos): (RoomNum, StreamPos), num| {
        first = Some(num);
        pos <= StreamPos::ZERO
    })?;
    Ok(match first {
        Some(first) => reader.event(first)?.header.depth,
        None => 0,
    })
}
