//! The purges that are under way, for whoever goes on with them after a start.

use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    error::Result,
    room::{
        RoomCtx,
        purge::{self, PurgeProgress},
    },
    store::{Direction, Reader, schema},
    view::View,
};

/// Headers read at once.
const READ_AT_ONCE: usize = 1_000;

/// Which rooms are being purged, and how far.
pub struct Purges;

impl View for Purges {
    /// Room ids with their progress.
    type Output = Vec<(String, PurgeProgress)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        Ok(purge::running(reader)?)
    }
}

/// Up to where the history of a room is older than a time.
pub struct OlderThan {
    /// The room's id.
    pub room_id: String,
    /// Milliseconds since the epoch, compared with what the events' servers say.
    pub ts: u64,
}

impl View for OlderThan {
    /// The position of the first event that is not older, before which a purge ends: so nothing is removed that is not. The
    /// greatest if there is none. O(older events).
    ///
    /// Errors: [`What::Room`](crate::What::Room) not found.
    type Output = StreamPos;

    fn read(&self, reader: &Reader) -> Result<StreamPos> {
        let room = RoomCtx::load(reader, &self.room_id)?.num;
        let mut from = StreamPos(i64::MIN);
        loop {
            let mut rows: Vec<(StreamPos, EventNum)> = Vec::new();
            let (start, end) = ((room, from), RoomNum(room.0 + 1));
            reader.scan_between(&schema::TIMELINE, &start, &end, Direction::Forward, |(_, pos), num| {
                rows.push((pos, num));
                rows.len() < READ_AT_ONCE
            })?;
            let headers = reader.get_many(&schema::EVENT_HEADERS, rows.iter().map(|(_, num)| *num))?;
            let is_younger = |header: &Option<crate::store::Positioned<schema::EventHeader>>| {
                header.as_ref().is_some_and(|header| header.value.origin_server_ts >= self.ts)
            };
            if let Some(((pos, _), _)) = rows.iter().zip(&headers).find(|(_, header)| is_younger(header)) {
                return Ok(*pos);
            }
            match rows.last() {
                Some((pos, _)) if rows.len() == READ_AT_ONCE => from = StreamPos(pos.0.saturating_add(1)),
                _ => return Ok(StreamPos::MAX),
            }
        }
    }
}
