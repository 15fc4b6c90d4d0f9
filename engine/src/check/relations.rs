//! Relations and threads: the index has what accepted events say that they relate to, and threads are counted from it.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    early_events,
    pass::{Pass, Row, readable},
};
use crate::{
    core::{
        event::Pdu,
        limits::EARLY_RELATIONS_MAX,
        num::{EventNum, RoomNum, StreamPos},
    },
    room::{
        relations::{RelationClass, relation_of},
        room_version,
    },
    store::{
        Direction, Positioned, StorageError, schema,
        schema::{EventHeader, EventStatus, Relation, Thread},
    },
};

const THREAD: u8 = RelationClass::Thread as u8;

pub(super) fn passes() -> Vec<Pass> {
    let problem = "an event is not there or does not wait for this one";
    vec![
        Pass::over_derived(&schema::RELATIONS, relation),
        early_events::pass(&schema::EARLY_RELATIONS, waits, problem),
        Pass::over_derived(&schema::THREADS, thread),
        Pass::over_derived(&schema::THREAD_STREAM, |row, (room, pos), root| {
            if row.is_going(room) {
                return Ok(());
            }
            let thread = readable(row.reader().get(&schema::THREADS, &(room, root)))?;
            let stands = thread.is_some_and(|thread| thread.pos == pos);
            if !row.expect(stands, "the thread does not stand here") {
                row.delete(&schema::THREAD_STREAM, &(room, pos));
            }
            Ok(())
        }),
        Pass::over_derived(&schema::THREAD_USERS, |row, (room, root, user), ()| {
            if row.is_going(room) {
                return Ok(());
            }
            let takes_part = row.reader().has(&schema::THREADS, &(room, root))?
                && events_of(row, room, root)?.iter().any(|(_, relation)| relation.sender == user);
            if !row.expect(takes_part, "the user has sent nothing into the thread") {
                row.delete(&schema::THREAD_USERS, &(room, root, user));
            }
            Ok(())
        }),
    ]
}

fn pdu(header: &EventHeader, body: Option<(Arc<str>, Bytes)>) -> Result<Option<Pdu>, StorageError> {
    let Some((id, json)) = body else { return Ok(None) };
    Ok(Pdu::from_stored(room_version(header.version)?, id, json).ok())
}

/// Expects the relation of an accepted event to be in the index, or the event to wait for what it relates to.
pub(super) fn expect_of(
    row: &mut Row<'_>,
    num: EventNum,
    header: &Positioned<EventHeader>,
    pdu: &Pdu,
) -> Result<(), StorageError> {
    let Some((rel_type, target_id)) = relation_of(&pdu.content) else { return Ok(()) };
    if header.value.status != EventStatus::Accepted || header.value.redacted_by.is_some() {
        return Ok(());
    }
    let room = header.value.room;
    let Some(target) = row.event_num(target_id)? else {
        let (waiting, max) = ((room, num, target_id), EARLY_RELATIONS_MAX);
        let problem = "what the event relates to is not there, and the event does not wait for it";
        return early_events::expect(row, &schema::EARLY_RELATIONS, waiting, max, problem);
    };
    let class = RelationClass::of(rel_type) as u8;
    let key = (room, class, target, header.pos);
    // A purge leaves state events outside of the timeline, and takes away what related to them.
    if !is_part_of(row, room, target)? || (num < target && may_be_left_out(row, key)?) {
        return Ok(());
    }
    let (kind, sender) = (header.value.kind, header.value.sender);
    match row.text_num(rel_type)? {
        Some(rel_type) => {
            let relation = Relation { event: num, rel_type, kind, sender };
            row.expect_row(&schema::RELATIONS, &key, &relation, "the event's relation is not in the index")?;
        }
        None => {
            row.found("the event's relation is not in the index");
            let rel_type = rel_type.to_owned();
            row.mend(schema::RELATIONS.name, move |tx| {
                let rel_type = tx.intern_text(&rel_type)?;
                tx.put(&schema::RELATIONS, &key, &Relation { event: num, rel_type, kind, sender });
                Ok(())
            });
        }
    }
    Ok(())
}

/// Whether an event is part of the room.
fn is_part_of(row: &Row<'_>, room: RoomNum, event: EventNum) -> Result<bool, StorageError> {
    let header = row.header(event)?.map(|header| header.value);
    Ok(header.is_some_and(|header| header.room == room && header.status == EventStatus::Accepted))
}

/// Whether the relation of an event that came before what it relates to is rightly not in the index: it has been purged, or so
/// many relate to the same that not all of them may have waited.
fn may_be_left_out(
    row: &Row<'_>,
    key @ (room, _, target, _): (RoomNum, u8, EventNum, StreamPos),
) -> Result<bool, StorageError> {
    if row.reader().has(&schema::RELATIONS, &key)? {
        return Ok(false);
    }
    let mut count = 0;
    for class in RelationClass::ALL {
        let prefix = (room, class as u8, target);
        let visit = |_: (RoomNum, u8, EventNum, StreamPos), _: Relation| {
            count += 1;
            count < EARLY_RELATIONS_MAX
        };
        row.reader().scan(&schema::RELATIONS, &prefix, Direction::Forward, visit)?;
    }
    Ok(count >= EARLY_RELATIONS_MAX || early_events::was_purged(row, room)?)
}

/// Whether an event of the room relates to the one with this id, which is not part of it.
fn waits(row: &Row<'_>, room: RoomNum, num: EventNum, target_id: &str) -> Result<bool, StorageError> {
    if !is_part_of(row, room, num)? {
        return Ok(false);
    }
    let Some(header) = row.header(num)? else { return Ok(false) };
    let Some(pdu) = pdu(&header.value, row.body(num)?)? else { return Ok(false) };
    let is_there = match row.event_num(target_id)? {
        Some(target) => is_part_of(row, room, target)?,
        None => false,
    };
    Ok(!is_there && relation_of(&pdu.content).is_some_and(|(_, related_to)| related_to == target_id))
}

fn relation(
    row: &mut Row<'_>,
    (room, class, target, pos): (RoomNum, u8, EventNum, StreamPos),
    relation: Relation,
) -> Result<(), StorageError> {
    if row.is_going(room) {
        return Ok(());
    }
    if !row.expect(is_said(row, room, class, target, pos, &relation)?, "no event says so") {
        row.delete(&schema::RELATIONS, &(room, class, target, pos));
        return Ok(());
    }
    if class != THREAD || !can_be_root(row, target)? {
        return Ok(());
    }
    let thread = row.reader().has(&schema::THREADS, &(room, target))?;
    // Of a redacted event nobody can tell any more whether it related to another, and was no root.
    if !thread && row.header(target)?.is_some_and(|header| header.value.redacted_by.is_some()) {
        return Ok(());
    }
    if !row.expect(thread, "the thread has no row") {
        put_thread(row, room, target)?;
    }
    let user = (room, target, relation.sender);
    let listed = row.reader().has(&schema::THREAD_USERS, &user)?;
    if !row.expect(listed, "the sender is not listed among those in the thread") {
        row.put(&schema::THREAD_USERS, &user, &());
    }
    Ok(())
}

/// Whether the event of the relation says so, stands there, and is what the relation repeats of it.
fn is_said(
    row: &Row<'_>,
    room: RoomNum,
    class: u8,
    target: EventNum,
    pos: StreamPos,
    relation: &Relation,
) -> Result<bool, StorageError> {
    let Some(header) = row.header(relation.event)? else { return Ok(false) };
    let Some(pdu) = pdu(&header.value, row.body(relation.event)?)? else { return Ok(false) };
    let Some((rel_type, target_id)) = relation_of(&pdu.content) else { return Ok(false) };
    let header_agrees = header.value.status == EventStatus::Accepted
        && header.value.room == room
        && header.pos == pos
        && header.value.kind == relation.kind
        && header.value.sender == relation.sender;
    Ok(header_agrees
        && row.event_num(target_id)? == Some(target)
        && RelationClass::of(rel_type) as u8 == class
        && row.text(relation.rel_type)?.as_deref() == Some(rel_type))
}

/// An event that relates to another cannot be the root of a thread.
fn can_be_root(row: &Row<'_>, root: EventNum) -> Result<bool, StorageError> {
    let Some(header) = row.header(root)? else { return Ok(false) };
    Ok(pdu(&header.value, row.body(root)?)?.is_some_and(|pdu| relation_of(&pdu.content).is_none()))
}

/// What the index has of a thread, oldest first.
fn events_of(
    row: &Row<'_>,
    room: RoomNum,
    root: EventNum,
) -> Result<Vec<(StreamPos, Relation)>, StorageError> {
    let mut events = Vec::new();
    let prefix = (room, THREAD, root);
    let visit = |(_, _, _, pos): (RoomNum, u8, EventNum, StreamPos), relation| {
        events.push((pos, relation));
        true
    };
    row.reader().scan(&schema::RELATIONS, &prefix, Direction::Forward, visit)?;
    Ok(events)
}

fn thread(
    row: &mut Row<'_>,
    (room, root): (RoomNum, EventNum),
    thread: Positioned<Thread>,
) -> Result<(), StorageError> {
    if row.is_going(room) {
        return Ok(());
    }
    let events = events_of(row, room, root)?;
    let right = events.last().map(|(pos, relation)| Positioned {
        pos: *pos,
        value: Thread { latest: relation.event, count: events.len() as u64 },
    });
    let Some(right) = right.filter(|_| can_be_root(row, root).unwrap_or(false)) else {
        row.found("the thread has no events or no root");
        row.delete(&schema::THREADS, &(room, root));
        return Ok(());
    };
    let latest = thread.pos == right.pos && thread.value.latest == right.value.latest;
    let latest = row.expect(latest, "the latest event is another");
    let count = row.expect(thread.value.count == right.value.count, "the thread's events are counted wrong");
    if !latest || !count {
        row.put(&schema::THREADS, &(room, root), &right);
    }
    let problem = "the thread is not in the room's stream of threads";
    row.expect_row(&schema::THREAD_STREAM, &(room, right.pos), &root, problem)?;
    Ok(())
}

/// Proposes a thread's row, made from the index.
fn put_thread(row: &mut Row<'_>, room: RoomNum, root: EventNum) -> Result<(), StorageError> {
    let events = events_of(row, room, root)?;
    if let Some((pos, relation)) = events.last() {
        let value = Thread { latest: relation.event, count: events.len() as u64 };
        row.put(&schema::THREADS, &(room, root), &Positioned { pos: *pos, value });
        row.put(&schema::THREAD_STREAM, &(room, *pos), &root);
    }
    Ok(())
}
