//! Walks over a room's graph of events by number: the auth chain of events, and the history behind them.
//!
//! Invariant: a walk visits an event once, however often and in whatever circles it is referred to, stays in its room,
//! is bounded, and does not recurse. A header's edges lead to what was there before the event. What came after it, as what is filled
//! into a gap does, is found by the ids that the event names; the reader tells of nothing unpublished.

use std::{
    collections::{BinaryHeap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{Event, decode_body, gap};
use crate::{
    core::{
        limits::{AUTH_CHAIN_MAX, HISTORY_WALK_MAX},
        num::{EventNum, RoomNum},
    },
    error::{Invalid, Result},
    store::{
        Reader, StorageError, schema,
        schema::{EventHeader, EventStatus},
    },
};

/// Headers read at once.
const READ_AT_ONCE: usize = 1_000;

/// Whole events read at once by a walk that may come to many which it does not give: some megabytes at worst.
const EVENTS_AT_ONCE: usize = 100;

/// Ids that a walk looks up, of what may have come after the events that name it: ordinary events follow one or two. Events of the past
/// may name more, and a server make up as many of these as it likes; each costs reading an event.
const LOOKED_UP_MAX: usize = HISTORY_WALK_MAX * 2;

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
                match self.remembered_event(*num) {
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

/// What a walk back through a room's history has met.
struct Walk<'a> {
    reader: &'a Reader,
    seen: HashSet<EventNum>,
    looked_up: usize,
}

impl<'a> Walk<'a> {
    fn new(reader: &'a Reader, seen: HashSet<EventNum>) -> Self {
        Self { reader, seen, looked_up: 0 }
    }

    /// Those that were not met yet.
    fn new_among(&mut self, mut nums: Vec<EventNum>) -> Vec<EventNum> {
        nums.retain(|num| self.seen.insert(*num));
        nums
    }

    /// The events that one follows, as far as they are part of the graph by now and were not met yet.
    fn before(&mut self, event: &Event) -> Result<Vec<EventNum>, StorageError> {
        let mut prev = event.header.prev.clone();
        // Else its header has edges to all that it names.
        if event.lacks_prev_events()? {
            for event_id in &event.pdu()?.prev_events {
                if self.looked_up == LOOKED_UP_MAX {
                    break;
                }
                self.looked_up += 1;
                let found = gap::in_graph(self.reader, event.header.room, event_id)?;
                prev.extend(found.map(|found| found.num));
            }
        }
        Ok(self.new_among(prev))
    }
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
    let mut walk = Walk::new(reader, known);
    let mut front = walk.new_among(latest);
    let mut found: Vec<(u64, EventNum)> = Vec::new();
    let (mut is_first, mut looked_at) = (true, 0);
    while !front.is_empty() && found.len() < limit && looked_at < HISTORY_WALK_MAX {
        front.truncate(HISTORY_WALK_MAX - looked_at);
        looked_at += front.len();
        let mut next = Vec::new();
        for nums in front.chunks(EVENTS_AT_ONCE) {
            for event in reader.events(nums)? {
                let header = &event.header;
                if header.room != room || (!is_first && header.depth < min_depth) {
                    continue;
                }
                if !is_first && is_history(header.status) {
                    found.push((header.depth, event.num));
                }
                next.extend(walk.before(&event)?);
            }
        }
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
    let mut walk = Walk::new(reader, HashSet::new());
    let mut front: BinaryHeap<(u64, EventNum, bool)> = BinaryHeap::new();
    let mut found = Vec::new();
    let mut next = walk.new_among(from);
    while found.len() < limit {
        if walk.seen.len() <= HISTORY_WALK_MAX {
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
        let event = reader.event(num)?;
        next = walk.before(&event)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fixture::World,
        room::{RoomCtx, encode_body},
        store::{Positioned, Tx},
    };

    const ROOM: &str = "!room:here.example";
    const OTHER_ROOM: &str = "!other:here.example";
    const ALICE: &str = "@alice:here.example";

    fn shape_id(index: usize) -> String {
        format!("$shape-{index}")
    }

    /// A graph of a shape that no honest server makes: for each event its edges (by index), depth and status.
    struct Shape(Vec<(Vec<usize>, u64, EventStatus)>);

    impl Shape {
        /// Writes headers with the same edges as `prev` and `auth`, and bodies that name the same: walks read nothing else.
        fn write(&self, world: &World, room_id: &str) -> (RoomNum, Vec<EventNum>) {
            let num = |index: usize| EventNum(1_000_000 + index as u64);
            let room = world
                .act(|tx: &mut Tx| {
                    let room = RoomCtx::load(tx, room_id)?;
                    let (like, _) = room.head.extremities[0].clone();
                    let like = tx.event(like)?;
                    let mut body: Value = serde_json::from_slice(&like.json).unwrap();
                    for (index, (edges, depth, status)) in self.0.iter().enumerate() {
                        let event_id = shape_id(index);
                        body["prev_events"] = edges.iter().copied().map(shape_id).collect();
                        let body = encode_body(&event_id, body.to_string().as_bytes());
                        tx.put(&schema::EVENT_BODIES, &num(index), &body);
                        tx.put(&schema::EVENT_NUMS, &event_id, &num(index));
                        let mut header = like.header.clone();
                        header.prev = edges.iter().copied().map(num).collect();
                        header.auth = header.prev.clone();
                        (header.depth, header.status) = (*depth, *status);
                        let pos = tx.next_position();
                        tx.put(&schema::EVENT_HEADERS, &num(index), &Positioned { pos, value: header });
                    }
                    Ok(room.num)
                })
                .unwrap();
            (room, (0..self.0.len()).map(num).collect())
        }
    }

    fn world() -> World {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.room(OTHER_ROOM, ALICE, None);
        world.state(ROOM, ALICE, "m.room.topic", "", json!({"topic": "a"}));
        world
    }

    fn chain(world: &World, room: RoomNum, tips: &[EventNum]) -> Vec<EventNum> {
        world.ask(|reader| auth_chain(reader, room, tips.to_vec()))
    }

    fn before(world: &World, room: RoomNum, from: &[EventNum], limit: usize) -> Vec<EventNum> {
        world.ask(|reader| Ok(history_before(reader, room, from.to_vec(), limit)?))
    }

    fn between(world: &World, room: RoomNum, latest: &[EventNum], limit: usize) -> Vec<EventNum> {
        world.ask(|reader| Ok(history_between(reader, room, latest.to_vec(), HashSet::new(), 0, limit)?))
    }

    use EventStatus::{Accepted, Outlier, Rejected, SoftFailed};

    #[test]
    fn circles_end() {
        let world = world();
        let (room, nums) =
            Shape(vec![(vec![2], 1, Accepted), (vec![0, 1], 2, Accepted), (vec![1, 2, 1], 3, Accepted)])
                .write(&world, ROOM);
        assert_eq!(chain(&world, room, &nums[2..]), nums);
        assert_eq!(before(&world, room, &nums[2..], 100), [nums[2], nums[1], nums[0]]);
        assert_eq!(between(&world, room, &nums[2..], 100), nums[..2]);
    }

    #[test]
    fn wide_and_deep_shapes_are_walked_once() {
        let world = world();
        // Layers of ten, each event with edges to the whole layer before: 10^300 paths.
        let layer = |n: usize| (n * 10..(n + 1) * 10).collect::<Vec<usize>>();
        let shape = (0..3_000).map(|index| {
            let edges = if index < 10 { Vec::new() } else { layer(index / 10 - 1) };
            (edges, index as u64 / 10, Accepted)
        });
        let (room, nums) = Shape(shape.collect()).write(&world, ROOM);
        assert_eq!(chain(&world, room, &nums[2_990..]), nums[..2_990]);
        assert_eq!(before(&world, room, &nums[2_999..], 25).len(), 25);
        let found = between(&world, room, &nums[2_999..], 20);
        assert_eq!(found, nums[2_970..2_990].to_vec());
    }

    #[test]
    fn a_walk_is_as_deep_as_a_line_is_long() {
        let world = world();
        let line = (0..5_000_usize).map(|index| (index.checked_sub(1).into_iter().collect(), 1, Accepted));
        let (room, nums) = Shape(line.collect()).write(&world, ROOM);
        assert_eq!(chain(&world, room, &nums[4_999..]).len(), 4_999);
    }

    #[test]
    fn a_walk_stays_in_its_room() {
        let world = world();
        let shape = Shape(vec![(vec![], 1, Accepted), (vec![0], 2, Accepted)]);
        let (other, nums) = shape.write(&world, OTHER_ROOM);
        let (room, _) = Shape(vec![]).write(&world, ROOM);
        assert_ne!(room, other);
        assert!(chain(&world, room, &nums).is_empty());
        assert!(before(&world, room, &nums, 10).is_empty());
        assert!(between(&world, room, &nums, 10).is_empty());
    }

    #[test]
    fn history_is_found_behind_what_is_not_given() {
        let world = world();
        let shape = vec![
            (vec![], 1, Accepted),
            (vec![0], 2, SoftFailed),
            (vec![1], 3, Rejected),
            (vec![2], 4, Outlier),
            (vec![3], 5, Accepted),
        ];
        let (room, nums) = Shape(shape).write(&world, ROOM);
        assert_eq!(between(&world, room, &nums[4..], 10), nums[..2]);
        assert_eq!(before(&world, room, &nums[4..], 10), [nums[4], nums[1], nums[0]]);
        // The limit counts what is given.
        assert_eq!(before(&world, room, &nums[4..], 2), [nums[4], nums[1]]);
    }

    /// As where a gap is filled: what comes later has no edge that leads to it.
    #[test]
    fn what_came_after_those_that_name_it_is_found_by_its_id() {
        let world = world();
        let shape = vec![
            (vec![], 1, Accepted),
            (vec![0], 2, SoftFailed),
            (vec![1, 0], 3, Accepted),
            (vec![2], 4, Outlier),
            (vec![2, 3], 5, Accepted),
        ];
        let (room, nums) = Shape(shape).write(&world, ROOM);
        world
            .act(|tx: &mut Tx| {
                for num in &nums {
                    let mut header = tx.get(&schema::EVENT_HEADERS, num)?.unwrap();
                    header.value.prev.clear();
                    tx.put(&schema::EVENT_HEADERS, num, &header);
                }
                Ok(())
            })
            .unwrap();
        // What is only known from outside of the graph is not gone through.
        assert_eq!(before(&world, room, &nums[4..], 10), [nums[4], nums[2], nums[1], nums[0]]);
        assert_eq!(between(&world, room, &nums[4..], 10), nums[..3]);
    }

    #[test]
    fn endless_rejected_events_are_not_followed() {
        let world = world();
        let line = (0..10_000_usize)
            .map(|index| (index.checked_sub(1).into_iter().collect(), index as u64, Rejected));
        let (room, nums) = Shape(line.collect()).write(&world, ROOM);
        assert!(between(&world, room, &nums[9_999..], 20).is_empty());
        assert!(before(&world, room, &nums[9_999..], 20).is_empty());
    }
}
