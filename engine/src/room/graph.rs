//! Walks over a room's graph of events by number: the auth chain of events, and the history behind them.
//!
//! Invariant: a walk visits an event once, however often and in whatever circles it is referred to, stays in its room,
//! is bounded, and does not recurse. Edges lead to events that were there before, so a walk meets nothing unpublished.

use std::{
    collections::{BinaryHeap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::decode_body;
use crate::{
    core::num::{EventNum, RoomNum},
    error::{Invalid, Result},
    store::{
        Reader, StorageError, schema,
        schema::{EventHeader, EventStatus},
    },
};

/// The longest auth chain that is collected. The largest public rooms have some hundred thousand events in theirs; each
/// costs about 60 bytes of memory while it is walked.
pub(crate) const AUTH_CHAIN_MAX: usize = 1_000_000;
/// Headers read at once.
const READ_AT_ONCE: usize = 1_000;
/// How many events a walk over history looks at, found or not: rejected events lead on but are not found, and nobody
/// needs to pass more of them than this.
const LOOKED_AT_MAX: usize = 2_000;

impl Reader {
    /// Visits the headers of events, of which none may be missing, in any order. One bulk read per thousand.
    pub(crate) fn each_header(
        &self,
        nums: &[EventNum],
        mut visit: impl FnMut(EventNum, &EventHeader),
    ) -> Result<(), StorageError> {
        for nums in nums.chunks(READ_AT_ONCE) {
            let mut absent = Vec::new();
            for num in nums {
                match self.shared.events.get(num) {
                    Some(event) => visit(*num, &event.header),
                    None => absent.push(*num),
                }
            }
            let headers = self.get_many(&schema::EVENT_HEADERS, absent.iter().copied())?;
            for (num, header) in absent.into_iter().zip(headers) {
                let lost = || StorageError::Corrupt(format!("event number {} is missing", num.0));
                visit(num, &header.ok_or_else(lost)?.value);
            }
        }
        Ok(())
    }

    /// The ids and the JSON of events, of which none may be missing, in their order. What is not in the cache does not
    /// come into it: this is for events that are read once, and by the thousand.
    pub(crate) fn bodies(&self, nums: &[EventNum]) -> Result<Vec<(Arc<str>, Bytes)>, StorageError> {
        let cached: Vec<_> = nums.iter().map(|num| self.shared.events.get(num)).collect();
        let absent = nums.iter().zip(&cached).filter(|(_, event)| event.is_none()).map(|(num, _)| *num);
        let mut read = self.get_many(&schema::EVENT_BODIES, absent)?.into_iter();
        let mut bodies = Vec::with_capacity(nums.len());
        for (num, event) in nums.iter().zip(cached) {
            let body = match event {
                Some(event) => Some((event.event_id.clone(), event.json.clone())),
                None => read.next().flatten().as_ref().and_then(decode_body),
            };
            let lost = || StorageError::Corrupt(format!("the body of event number {}", num.0));
            bodies.push(body.ok_or_else(lost)?);
        }
        Ok(bodies)
    }
}

/// The auth chain of `tips`: all events that they refer to as auth events, and so on, each once, the shallowest first.
/// A tip is among them only if another refers to it. O(result).
///
/// Errors: [`Invalid::TooLarge`] beyond [`AUTH_CHAIN_MAX`] events.
pub(crate) fn auth_chain(reader: &Reader, room: RoomNum, tips: Vec<EventNum>) -> Result<Vec<EventNum>> {
    let mut reached: HashSet<EventNum> = HashSet::new();
    let mut looked_at: HashSet<EventNum> = tips.iter().copied().collect();
    let mut depths: Vec<(u64, EventNum)> = Vec::new();
    let mut front = tips;
    while !front.is_empty() {
        let mut next = Vec::new();
        reader.each_header(&front, |num, header| {
            if header.room != room {
                return;
            }
            depths.push((header.depth, num));
            for auth in &header.auth {
                reached.insert(*auth);
                if looked_at.insert(*auth) {
                    next.push(*auth);
                }
            }
        })?;
        if reached.len() > AUTH_CHAIN_MAX {
            return Err(Invalid::TooLarge { what: "the auth chain, in events", max: AUTH_CHAIN_MAX }.into());
        }
        front = next;
    }
    depths.retain(|(_, num)| reached.contains(num));
    depths.sort_unstable();
    Ok(depths.into_iter().map(|(_, num)| num).collect())
}

/// Whether a peer may get an event of this status when it walks through history. Outliers are not part of the history,
/// and rejected events are nobody's business.
fn is_history(status: EventStatus) -> bool {
    matches!(status, EventStatus::Accepted | EventStatus::SoftFailed)
}

/// The events before `latest`, breadth first along `prev_events`, without them and without going past `known` or above
/// `min_depth`; at most `limit`, the nearest to `latest`, then the shallowest first.
pub(crate) fn history_between(
    reader: &Reader,
    room: RoomNum,
    latest: Vec<EventNum>,
    known: HashSet<EventNum>,
    min_depth: u64,
    limit: usize,
) -> Result<Vec<EventNum>, StorageError> {
    let mut seen = known;
    let mut front: Vec<EventNum> = latest.into_iter().filter(|num| seen.insert(*num)).collect();
    let mut found: Vec<(u64, EventNum)> = Vec::new();
    let (mut is_first, mut looked_at) = (true, 0);
    while !front.is_empty() && found.len() < limit && looked_at < LOOKED_AT_MAX {
        front.truncate(LOOKED_AT_MAX - looked_at);
        looked_at += front.len();
        let mut next = Vec::new();
        reader.each_header(&front, |num, header| {
            if header.room != room || (!is_first && header.depth < min_depth) {
                return;
            }
            if !is_first && is_history(header.status) {
                found.push((header.depth, num));
            }
            next.extend(header.prev.iter().copied().filter(|prev| seen.insert(*prev)));
        })?;
        front = next;
        is_first = false;
    }
    found.truncate(limit);
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, num)| num).collect())
}

/// The events `from` and those before them, the deepest first; at most `limit`.
pub(crate) fn history_before(
    reader: &Reader,
    room: RoomNum,
    from: Vec<EventNum>,
    limit: usize,
) -> Result<Vec<EventNum>, StorageError> {
    let mut seen: HashSet<EventNum> = HashSet::new();
    let mut front: BinaryHeap<(u64, EventNum, bool)> = BinaryHeap::new();
    let mut found = Vec::new();
    let mut next: Vec<EventNum> = from.into_iter().filter(|num| seen.insert(*num)).collect();
    while found.len() < limit {
        if seen.len() <= LOOKED_AT_MAX {
            reader.each_header(&next, |num, header| {
                if header.room == room {
                    front.push((header.depth, num, is_history(header.status)));
                }
            })?;
        }
        let Some((_, num, is_history)) = front.pop() else { break };
        if is_history {
            found.push(num);
        }
        next.clear();
        reader.each_header(&[num], |_, header| {
            next.extend(header.prev.iter().copied().filter(|prev| seen.insert(*prev)));
        })?;
    }
    Ok(found)
}
