//! Purges: the removal of a whole room, or of a room's history before a position, in steps.
//!
//! Invariant: a purge is a row that says what is left to do. Each step is one batch of bounded size that moves the row, so
//! that a purge goes on after a crash where it was; between any two steps reads agree with what is left, and `check` finds
//! nothing wrong.
//!
//! A whole room is gone for everybody with the first batch, which takes its head; the rest is clearing away, members
//! before events so that nobody has a room whose events are missing. While it lasts nothing can be made in the room.
//!
//! Of a history, messages go whole. State events stay, as outliers: outside of the timeline, without state or previous
//! events of their own. Current and later states are made of them, authorisation chains run through them (also those of
//! events that are still to come, from servers that have not purged), and they are few. Redactions stay likewise while what
//! they redacted is there. Synapse does the same. Forward extremities stay where they stand, because the next events follow
//! them. What goes is not fetched again: a purge leaves no backward extremities, and the history ends where it began.
//!
//! Freeing the disk is the caller's last step (`Engine::free_disk`), because it takes long and holds no lane.

mod event;
mod history;
mod nodes;
mod whole;

#[cfg(test)]
mod tests;

use parking_lot::Mutex;

use self::nodes::Marks;
pub(super) use self::whole::remove_account_data;
use super::{RoomCtx, members};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    error::{Conflict, Error, Invalid, Result, What},
    store::{
        Direction, Family, Key, Reader, StorageError, Tx, Value, encode_key, schema,
        schema::{HistoryPurge, Keyspace, Membership, Purge, PurgeWork},
    },
};

/// How many events, members or aliases one step removes when nobody says. An event costs some ten rows of 40 bytes, so that
/// a batch stays far below a megabyte and holds the room's lane for milliseconds.
pub const REMOVED_PER_STEP: usize = 256;
/// How many rows one step looks at for each that it may remove: to read one costs about as much less than to remove one.
const LOOKED_AT_PER_REMOVED: usize = 16;

/// What purges remember between steps. When it is forgotten, a step finds it out anew.
#[derive(Default)]
pub(crate) struct Memo(Mutex<std::collections::HashMap<RoomNum, Marks>>);

/// How far a purge is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeProgress {
    /// Events removed so far.
    pub done: u64,
    /// About how many events there are to remove.
    pub estimate: u64,
    /// Aliases of the room, for the next step to remove.
    pub(crate) aliases: Vec<String>,
    /// When the purge is over: where the disk can be freed.
    pub freed: Option<Freed>,
}

/// What a purge has removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// The room.
    pub(crate) room: RoomNum,
    /// The first and the last number of an event that was removed; others between them may be there.
    pub(crate) events: Option<(EventNum, EventNum)>,
}

impl PurgeProgress {
    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.freed.is_some()
    }

    fn of(purge: &Purge) -> Self {
        let Purge { done, estimate, .. } = *purge;
        Self { done, estimate, aliases: Vec::new(), freed: None }
    }
}

/// Begins to remove a room and everything that is of it.
///
/// Errors: [`What::Room`] not found; [`Conflict::LocalMembers`] when users of this server are in it, unless forced.
pub(crate) fn begin_whole(tx: &mut Tx, room_id: &str, force: bool) -> Result<PurgeProgress> {
    let num = tx.room_num(room_id)?.ok_or(Error::NotFound(What::Room))?;
    let running = tx.get(&schema::PURGES, &num)?;
    let room = RoomCtx::find(tx, room_id)?;
    if room.is_none() {
        if let Some(running) = running {
            return Ok(PurgeProgress::of(&running));
        }
        // Of a room that could not be entered there are the events that were to be its state; of one that this server never was
        // in, what others said of its users.
        if !has_off_timeline(tx, num)? && !whole::has_out_of_band(tx, num)? {
            return Err(Error::NotFound(What::Room));
        }
    }
    if !force && has_local_member(tx, num)? {
        return Err(Conflict::LocalMembers.into());
    }
    tx.delete(&schema::ROOM_HEADS, &num);
    tx.delete(&schema::PUBLIC_ROOMS, &num);
    // Typing, and whatever else is told of the room, ends for those who are in it.
    tx.touch(crate::stream::Touch::Room(num));
    let removed = running.and_then(|purge| purge.removed);
    let work = PurgeWork::Members(0, crate::core::num::UserNum(0));
    let purge = Purge { work, done: 0, estimate: room.map_or(0, |room| room.head.depth), removed };
    tx.put(&schema::PURGES, &num, &purge);
    Ok(PurgeProgress::of(&purge))
}

fn has_off_timeline(reader: &Reader, room: RoomNum) -> Result<bool, StorageError> {
    let mut found = false;
    reader.scan(&schema::OFF_TIMELINE, &room, Direction::Forward, |_: (RoomNum, EventNum), ()| {
        found = true;
        false
    })?;
    Ok(found)
}

fn has_local_member(reader: &Reader, room: RoomNum) -> Result<bool> {
    for (user, _) in reader.members(room, Membership::Join)? {
        if members::is_local(reader, &reader.user_id(user)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Begins to remove what is before a position of a room's timeline.
///
/// Errors: [`What::Room`] not found; [`Conflict::PurgeRunning`]; [`Conflict::PartialState`] while members are missing.
pub(crate) fn begin_history(tx: &mut Tx, room_id: &str, before: StreamPos) -> Result<PurgeProgress> {
    let room = RoomCtx::load(tx, room_id)?;
    if tx.has(&schema::PURGES, &room.num)? {
        return Err(Conflict::PurgeRunning.into());
    }
    if room.head.partial_state {
        // What was taken in since the join is judged again when they are known.
        return Err(Conflict::PartialState.into());
    }
    let Some(last) = edge(tx, room.num, StreamPos(i64::MIN), Direction::Backward)? else {
        return Err(Error::NotFound(What::Event));
    };
    // What is still to come is not removed by a position that was guessed too high.
    let before = before.min(StreamPos(last.0.0.saturating_add(1)));
    let depth_at = |at: Option<(StreamPos, EventNum)>| -> Result<Option<u64>, StorageError> {
        let header = at.map(|(_, num)| tx.get(&schema::EVENT_HEADERS, &num)).transpose()?.flatten();
        Ok(header.map(|header| header.value.depth))
    };
    let depth = depth_at(edge(tx, room.num, before, Direction::Forward)?)?.unwrap_or(room.head.depth);
    let first = depth_at(edge(tx, room.num, StreamPos(i64::MIN), Direction::Forward)?)?.unwrap_or(depth);
    let started = tx.get(&schema::HISTORY_STARTS, &room.num)?;
    let starts = started.map_or(before, |started| started.max(before));
    tx.put(&schema::HISTORY_STARTS, &room.num, &starts);
    let work = PurgeWork::History(HistoryPurge {
        before,
        depth,
        kept: before,
        kept_off_timeline: EventNum(0),
        receipts: StreamPos(i64::MIN),
        events: before,
        off_timeline: EventNum(0),
    });
    let purge = Purge { work, done: 0, estimate: depth.saturating_sub(first), removed: None };
    tx.put(&schema::PURGES, &room.num, &purge);
    Ok(PurgeProgress::of(&purge))
}

/// The first row of the timeline at or after `from`, or the last one.
fn edge(
    reader: &Reader,
    room: RoomNum,
    from: StreamPos,
    direction: Direction,
) -> Result<Option<(StreamPos, EventNum)>, StorageError> {
    let mut found = None;
    let end = RoomNum(room.0 + 1);
    reader.scan_between(&schema::TIMELINE, &(room, from), &end, direction, |(_, pos), num| {
        found = Some((pos, num));
        false
    })?;
    Ok(found)
}

/// The position of an event of the room's timeline.
///
/// Errors: [`What::Event`] not found; [`Invalid::Parameter`] for one that is of another room or off the timeline.
pub(crate) fn position_of(reader: &Reader, room_id: &str, event_id: &str) -> Result<StreamPos> {
    let num = reader.event_num(event_id)?.ok_or(Error::NotFound(What::Event))?;
    let event = reader.event(num)?;
    let room = reader.room_num(room_id)?;
    if room != Some(event.header.room)
        || reader.get(&schema::TIMELINE, &(event.header.room, event.pos()))? != Some(num)
    {
        let why = "it is not an event of this room's timeline".to_owned();
        return Err(Invalid::Parameter { what: "event_id", why }.into());
    }
    Ok(event.pos())
}

/// Does a piece of the room's purge that removes at most `limit` events. `aliases` are those whose lanes the caller holds.
///
/// Errors: [`What::Purge`] not found.
pub(crate) fn step(tx: &mut Tx, room_id: &str, aliases: &[String], limit: usize) -> Result<PurgeProgress> {
    let limit = limit.max(1);
    let not_found = Error::NotFound(What::Purge);
    let Some(room) = tx.room_num(room_id)? else { return Err(not_found) };
    let Some(mut purge) = tx.get(&schema::PURGES, &room)? else { return Err(not_found) };
    let next = match purge.work {
        PurgeWork::Members(membership, user) => Some(whole::members(tx, room, (membership, user), limit)?),
        PurgeWork::OutOfBand(user) => {
            Some(whole::out_of_band(tx, room, user, limit, LOOKED_AT_PER_REMOVED * limit)?)
        }
        PurgeWork::Aliases => Some(whole::aliases(tx, room, room_id, aliases)?),
        PurgeWork::Events(from) => Some(whole::events(tx, room, from, limit, &mut purge)?),
        PurgeWork::OffTimeline(from) => Some(whole::off_timeline(tx, room, from, limit, &mut purge)?),
        PurgeWork::Rows => {
            whole::rows(tx, room);
            None
        }
        PurgeWork::History(history) => Some(history::step(tx, room_id, history, limit, &mut purge)?),
        PurgeWork::Nodes(from) => nodes::step(tx, room_id, from, LOOKED_AT_PER_REMOVED * limit)?,
    };
    let mut progress = PurgeProgress::of(&purge);
    match next {
        Some(work) => {
            purge.work = work;
            tx.put(&schema::PURGES, &room, &purge);
            if work == PurgeWork::Aliases {
                progress.aliases = tx.room_aliases(room)?;
                progress.aliases.truncate(limit);
            }
        }
        None => {
            tx.delete(&schema::PURGES, &room);
            tx.shared.memo.purges.0.lock().remove(&room);
            progress.freed = Some(Freed { room, events: purge.removed });
        }
    }
    Ok(progress)
}

/// Counts an event as removed.
fn note_removed(purge: &mut Purge, num: EventNum) {
    purge.done += 1;
    purge.estimate = purge.estimate.max(purge.done);
    let (first, last) = purge.removed.unwrap_or((num, num));
    purge.removed = Some((first.min(num), last.max(num)));
}

/// Rows of one family: its first key, and the key behind the last.
pub(crate) type RowRange = (Family, Vec<u8>, Vec<u8>);

/// Where the rows lay that were removed.
pub(crate) fn ranges(freed: &Freed) -> Vec<RowRange> {
    let mut ranges = whole::ranges(freed.room);
    if let Some((first, last)) = freed.events {
        ranges.push(range(&schema::EVENT_HEADERS, &first, &EventNum(last.0 + 1)));
        ranges.push(range(&schema::EVENT_BODIES, &first, &EventNum(last.0 + 1)));
    }
    ranges
}

fn range<K: Key, V: Value, P: Key>(keyspace: &Keyspace<K, V>, first: &P, behind: &P) -> RowRange {
    (keyspace.family, encode_key(keyspace, first), encode_key(keyspace, behind))
}

/// The rooms in which a purge is under way.
pub(crate) fn running(reader: &Reader) -> Result<Vec<(String, PurgeProgress)>, StorageError> {
    let mut rows = Vec::new();
    reader.scan(&schema::PURGES, &(), Direction::Forward, |room: RoomNum, purge| {
        rows.push((room, PurgeProgress::of(&purge)));
        true
    })?;
    rows.into_iter().map(|(room, progress)| Ok((reader.room_id(room)?.to_string(), progress))).collect()
}
