//! Relations: which events annotate, replace, refer to or continue another; and threads.
//!
//! Invariant: an event stands in the index as long as it is not redacted, or waits for what it relates to; a thread's row
//! agrees with its events.
//! Specification: client-server API, "Forming relationships between events" and "Threading".

use std::sync::Arc;

use serde_json::Value;

use super::{Event, RoomCtx, early_events};
use crate::{
    core::{
        identifiers::IDENTIFIER_BYTES_MAX,
        limits::{EARLY_RELATIONS_MAX, REL_TYPE_BYTES_MAX},
        num::{EventNum, RoomNum, StreamPos},
    },
    error::Result,
    store::{
        Direction, Positioned, Reader, StorageError, Tx, schema,
        schema::{Relation, Thread},
    },
};

/// Relations by what they are read for; part of the index's keys, so that a page is rendered without reading the
/// events of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RelationClass {
    /// Aggregated from the rows themselves: `m.replace`, `m.reference`.
    Bundled = 0,
    /// `m.thread`, aggregated in the thread's row.
    Thread = 1,
    /// Not aggregated.
    Other = 2,
}

impl RelationClass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bundled, Self::Thread, Self::Other];

    /// The class of a `rel_type`.
    pub fn of(rel_type: &str) -> Self {
        match rel_type {
            "m.replace" | "m.reference" => Self::Bundled,
            "m.thread" => Self::Thread,
            _ => Self::Other,
        }
    }
}

/// An event that relates to another.
#[derive(Clone, Debug)]
pub(crate) struct Related {
    /// The event that it relates to.
    pub target: EventNum,
    /// Where it stands in the stream.
    pub pos: StreamPos,
    /// What it is.
    pub relation: Relation,
}

/// What a content says it relates to: the type of relation and the event's id. What is longer than these can be is no relation.
pub(crate) fn relation_of(content: &crate::core::event::JsonObject) -> Option<(&str, &str)> {
    let relates_to = content.get("m.relates_to")?.as_object()?;
    let rel_type = relates_to.get("rel_type").and_then(Value::as_str)?;
    let event_id = relates_to.get("event_id").and_then(Value::as_str)?;
    let is_short = rel_type.len() <= REL_TYPE_BYTES_MAX && event_id.len() <= IDENTIFIER_BYTES_MAX;
    is_short.then_some((rel_type, event_id))
}

/// Indexes the event under the one that it relates to, if that one is in the same room; lets it wait for one that is not here.
pub(crate) fn apply(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, pos: StreamPos) -> Result<()> {
    let pdu = event.pdu()?;
    let Some((rel_type, target_id)) = relation_of(&pdu.content) else { return Ok(()) };
    match tx.event_num(target_id)? {
        Some(target) => {
            let target = tx.event(target)?;
            match target.header.room == room.num {
                true => index(tx, event, rel_type, &target, pos),
                false => Ok(()),
            }
        }
        None => {
            let (keyspace, num) = (&schema::EARLY_RELATIONS, event.num);
            early_events::keep(tx, keyspace, room.num, target_id, num, EARLY_RELATIONS_MAX)
        }
    }
}

/// Of how many events that came early the content is in memory at once.
const EARLY_AT_ONCE: usize = 50;

/// Indexes the events that came before this one and relate to it, if there are any: each where it stands itself.
pub(crate) fn apply_early(tx: &mut Tx, room: &RoomCtx, target: &Arc<Event>) -> Result<()> {
    let early = early_events::take(tx, &schema::EARLY_RELATIONS, room.num, &target.event_id)?;
    for some in early.chunks(EARLY_AT_ONCE) {
        for event in tx.events(some)? {
            let pdu = event.pdu()?;
            if let Some((rel_type, _)) = relation_of(&pdu.content) {
                let pos = tx.position_of(&event);
                index(tx, &event, rel_type, target, pos)?;
            }
        }
    }
    Ok(())
}

/// Indexes the event, which stands at `pos`, under `target`, of the same room.
fn index(tx: &mut Tx, event: &Event, rel_type: &str, target: &Event, pos: StreamPos) -> Result<()> {
    let room = target.header.room;
    let relation = Relation {
        event: event.num,
        rel_type: tx.intern_text(rel_type)?,
        kind: event.header.kind,
        sender: event.header.sender,
    };
    let class = RelationClass::of(rel_type);
    tx.put(&schema::RELATIONS, &(room, class as u8, target.num, pos), &relation);
    // An event that relates to another cannot be the root of a thread.
    if class == RelationClass::Thread && relation_of(&target.pdu()?.content).is_none() {
        let before = tx.get(&schema::THREADS, &(room, target.num))?;
        let (latest, count) = match &before {
            None => begin_thread(tx, room, target.num)?.unwrap_or(((pos, event.num), 1)),
            // History that is filled in comes before what is there.
            Some(before) if before.pos > pos => ((before.pos, before.value.latest), before.value.count + 1),
            Some(before) => ((pos, event.num), before.value.count + 1),
        };
        put_thread(tx, room, target.num, before.map(|before| before.pos), Some(latest), count);
        tx.put(&schema::THREAD_USERS, &(room, target.num, event.header.sender), &());
    }
    Ok(())
}

/// A thread's latest event, and the number of its events.
type Begun = ((StreamPos, EventNum), u64);

/// Lists who is in a thread that has no row, and returns its latest event and the number of its events. There can be more
/// than one: an event that relates to another is no root until it is redacted.
fn begin_thread(tx: &mut Tx, room: RoomNum, root: EventNum) -> Result<Option<Begun>, StorageError> {
    let mut found = Vec::new();
    let prefix = (room, RelationClass::Thread as u8, root);
    let visit = |(_, _, _, pos): (RoomNum, u8, EventNum, StreamPos), relation: Relation| {
        found.push((pos, relation));
        true
    };
    tx.scan(&schema::RELATIONS, &prefix, Direction::Forward, visit)?;
    for (_, relation) in &found {
        tx.put(&schema::THREAD_USERS, &(room, root, relation.sender), &());
    }
    Ok(found.last().map(|(pos, relation)| ((*pos, relation.event), found.len() as u64)))
}

/// Breaks the relation of an event that is about to be redacted: "when a child event is redacted then the relationship
/// is broken".
pub(crate) fn remove(tx: &mut Tx, event: &Event) -> Result<()> {
    let pdu = event.pdu()?;
    let room = event.header.room;
    let Some((rel_type, target_id)) = relation_of(&pdu.content) else { return Ok(()) };
    let class = RelationClass::of(rel_type);
    let key = tx.event_num(target_id)?.map(|target| (room, class as u8, target, tx.position_of(event)));
    let indexed = match key {
        Some(key) if tx.has(&schema::RELATIONS, &key)? => key,
        _ => return early_events::forget(tx, &schema::EARLY_RELATIONS, room, target_id, event.num),
    };
    let (_, _, target, _) = indexed;
    tx.delete(&schema::RELATIONS, &indexed);
    if class != RelationClass::Thread {
        return Ok(());
    }
    let Some(before) = tx.get(&schema::THREADS, &(room, target))? else { return Ok(()) };
    let mut latest = None;
    let mut sender_remains = false;
    tx.scan(
        &schema::RELATIONS,
        &(room, class as u8, target),
        Direction::Backward,
        |(_, _, _, pos), relation| {
            latest = latest.or(Some((pos, relation.event)));
            sender_remains = relation.sender == event.header.sender;
            !sender_remains
        },
    )?;
    put_thread(tx, room, target, Some(before.pos), latest, before.value.count.saturating_sub(1));
    if !sender_remains {
        tx.delete(&schema::THREAD_USERS, &(room, target, event.header.sender));
    }
    Ok(())
}

/// Removes the thread that an event is the root of, if it is one.
pub(super) fn end_thread(tx: &mut Tx, room: RoomNum, root: EventNum) -> Result<(), StorageError> {
    if let Some(thread) = tx.get(&schema::THREADS, &(room, root))? {
        tx.delete(&schema::THREADS, &(room, root));
        tx.delete(&schema::THREAD_STREAM, &(room, thread.pos));
        tx.delete_prefix(&schema::THREAD_USERS, &(room, root));
    }
    Ok(())
}

/// Writes a thread's row and its place among the threads of the room, or removes both when no event is left.
fn put_thread(
    tx: &mut Tx,
    room: RoomNum,
    root: EventNum,
    before: Option<StreamPos>,
    latest: Option<(StreamPos, EventNum)>,
    count: u64,
) {
    if let Some(before) = before {
        tx.delete(&schema::THREAD_STREAM, &(room, before));
    }
    match latest {
        Some((pos, latest)) => {
            let row = Positioned { pos, value: Thread { latest, count } };
            tx.put(&schema::THREADS, &(room, root), &row);
            tx.put(&schema::THREAD_STREAM, &(room, pos), &root);
        }
        None => tx.delete(&schema::THREADS, &(room, root)),
    }
}

/// The widest gap between two event numbers that one scan passes over: what lies between costs less than to begin anew.
const SCAN_GAP_MAX: u64 = 128;

/// Groups ascending event numbers into ranges, first and behind the last, each to be read with one scan.
fn ranges(targets: &[EventNum]) -> Vec<(EventNum, EventNum)> {
    let mut ranges: Vec<(EventNum, EventNum)> = Vec::new();
    for target in targets {
        let behind = EventNum(target.0 + 1);
        match ranges.last_mut() {
            Some((_, end)) if target.0.saturating_sub(end.0) <= SCAN_GAP_MAX => *end = behind,
            _ => ranges.push((*target, behind)),
        }
    }
    ranges
}

impl Reader {
    /// The relations of one class to any of `targets`, which ascend: by target, then by position. Events of a page lie
    /// close together, so that this is mostly one scan.
    pub(crate) fn relations_to(
        &self,
        room: RoomNum,
        class: RelationClass,
        targets: &[EventNum],
    ) -> Result<Vec<Related>, StorageError> {
        let mut steps = usize::MAX;
        Ok(self.relations_within(room, class, targets, &mut steps)?.unwrap_or_default())
    }

    /// The same at the cost of `steps`, one for each scan and each row; nothing once there are none left.
    pub(crate) fn relations_within(
        &self,
        room: RoomNum,
        class: RelationClass,
        targets: &[EventNum],
        steps: &mut usize,
    ) -> Result<Option<Vec<Related>>, StorageError> {
        let mut found = Vec::new();
        for (start, end) in ranges(targets) {
            *steps = steps.saturating_sub(1);
            self.scan_between(
                &schema::RELATIONS,
                &(room, class as u8, start),
                &(room, class as u8, end),
                Direction::Forward,
                |(_, _, target, pos), relation| {
                    if targets.binary_search(&target).is_ok() {
                        found.push(Related { target, pos, relation });
                    }
                    *steps = steps.saturating_sub(1);
                    *steps > 0
                },
            )?;
            if *steps == 0 {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// The threads whose roots are among `roots`, which ascend.
    pub(crate) fn threads_of(
        &self,
        room: RoomNum,
        roots: &[EventNum],
    ) -> Result<Vec<(EventNum, Positioned<Thread>)>, StorageError> {
        let mut found = Vec::new();
        for (start, end) in ranges(roots) {
            let (start, end) = ((room, start), (room, end));
            self.scan_between(&schema::THREADS, &start, &end, Direction::Forward, |(_, root), thread| {
                if roots.binary_search(&root).is_ok() {
                    found.push((root, thread));
                }
                true
            })?;
        }
        Ok(found)
    }
}
