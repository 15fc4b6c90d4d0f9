//! Where a room ends, as far as this server knows: what its next event will follow, and what other servers are told so that
//! they catch up.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    core::{num::RoomNum, version::RoomVersion},
    error::Result,
    room::{RoomCtx, entrance},
    store::{Direction, Reader, schema},
    view::View,
};

/// How many missing events are named to another server, which walks no further than these: as many as a question leads to.
const MISSING_NAMED_MAX: usize = 20;

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
    /// Events that are known to be missing, some of them: there are gaps before what follows them, and they and what is behind
    /// them are history.
    pub missing: Vec<String>,
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
        let min_depth = entrance::of(reader, room.num)?.map_or(0, |entrance| entrance.depth);
        let missing = some_missing(reader, room.num)?;
        Ok(Some(RoomFrontier { version: room.version, extremities, missing, min_depth }))
    }
}

fn some_missing(reader: &Reader, room: RoomNum) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let visit = |(_, event_id): (RoomNum, String), _| {
        missing.push(event_id);
        missing.len() < MISSING_NAMED_MAX
    };
    reader.scan(&schema::BACKWARD_EXTREMITIES, &room, Direction::Forward, visit)?;
    Ok(missing)
}
