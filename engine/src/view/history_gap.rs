//! Whether a page of a room's history runs into a gap, and what is missing there: what other servers are asked for before
//! the page is given.

use super::{StreamToken, View};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    error::Result,
    room::gap::{first_behind, missing_before},
    store::{Direction, Reader, StorageError, schema},
};

/// A page of a room's timeline. Not here: who may see it, which the page itself tells.
#[derive(Clone, Copy, Debug)]
pub struct HistoryGap<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// Where the page begins; else at the end of the history from which the direction leads away.
    pub from: Option<StreamToken>,
    /// Where it ends at the latest.
    pub to: Option<StreamToken>,
    /// Towards later events, or towards earlier ones.
    pub forwards: bool,
    /// How many events it has at most.
    pub limit: usize,
}

/// A page as it is while others are still asked for what is missing: one that begins at a gap does not go beyond, but ends
/// there with nothing, so that whoever reads on from its end misses nothing that comes.
pub struct BeforeGap<'a, V>(pub &'a V);

/// A gap in a room's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGap {
    /// The position of the first event behind it.
    pub pos: StreamPos,
    /// The ids of events that are missing there, the nearest first.
    pub missing: Vec<String>,
}

impl View for HistoryGap<'_> {
    /// The first gap on the way, if there is one. O(page), and O(1) for rooms without gaps.
    type Output = Option<OpenGap>;

    fn read(&self, reader: &Reader) -> Result<Option<OpenGap>> {
        let Some(room) = reader.room_num(self.room_id)? else { return Ok(None) };
        let (after, up_to) = match self.forwards {
            true => (self.from, self.to),
            false => (self.to, self.from),
        };
        let after = after.map_or(StreamPos(i64::MIN), |token| token.0);
        let up_to = up_to.map_or(reader.pos, |token| token.0);
        // What comes takes what is free: that alone tells whether a page has a place for it.
        let mut gaps: Vec<(StreamPos, StreamPos, StreamPos)> = Vec::new();
        reader.scan(
            &schema::GAPS,
            &room,
            Direction::Forward,
            |(_, pos): (RoomNum, StreamPos), free: StreamPos| {
                if after < free && free <= up_to {
                    gaps.push((pos, free, free));
                }
                true
            },
        )?;
        if gaps.is_empty() {
            return Ok(None);
        }
        // What was filled in stands below the event behind the gap; what is missing is below that.
        for (pos, _, edge) in &mut gaps {
            *edge = first_behind(reader, room, *edge)?.unwrap_or(*pos);
        }
        let end = self.end(reader, room)?;
        let found = match self.forwards {
            true => gaps.into_iter().find(|(_, _, edge)| *edge <= end),
            false => gaps.into_iter().rev().find(|(_, _, edge)| *edge >= end),
        };
        let Some((pos, _, _)) = found else { return Ok(None) };
        Ok(Some(OpenGap { pos, missing: missing_before(reader, room, pos)? }))
    }
}

impl HistoryGap<'_> {
    /// The position of the page's last event.
    fn end(&self, reader: &Reader, room: RoomNum) -> Result<StreamPos, StorageError> {
        let next = |pos: StreamPos| StreamPos(pos.0.saturating_add(1));
        let (from, to, direction) = match (self.forwards, self.from) {
            (true, from) => (
                next(from.map_or(StreamPos(i64::MIN), |token| token.0)),
                next(reader.pos),
                Direction::Forward,
            ),
            (false, from) => {
                let up_to = from.map_or(reader.pos, |token| token.0.min(reader.pos));
                (StreamPos(i64::MIN), next(up_to), Direction::Backward)
            }
        };
        let (mut end, mut count) = (from, 0);
        if from < to {
            let (from, to) = ((room, from), (room, to));
            reader.scan_between(
                &schema::TIMELINE,
                &from,
                &to,
                direction,
                |(_, pos): (RoomNum, StreamPos), _: EventNum| {
                    end = pos;
                    count += 1;
                    count < self.limit
                },
            )?;
        }
        // A page that is not full runs up to the end of what is here.
        let is_full = count >= self.limit;
        Ok(match (is_full, self.forwards) {
            (true, _) => end,
            (false, true) => reader.pos,
            (false, false) => StreamPos(i64::MIN),
        })
    }
}
