//! Receipts: how far users have read, for each kind and thread.
//!
//! Invariant: a room's receipt stream has one row for each receipt, at the position of that receipt's own row. A receipt
//! never moves back. `m.read.private` is told to nobody but its user.
//! Specification: client-server API, "Receipts", "Threaded read receipts".

use std::sync::Arc;

use super::{Event, relations::relation_of};
use crate::{
    core::{
        json::{write_string, write_unsigned},
        num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    },
    error::Result,
    store::{Direction, Positioned, Reader, StorageError, Tx, schema, schema::Receipt},
    stream::Touch,
};

/// A kind of receipt; its number is part of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReceiptKind {
    /// `m.read`: for everybody in the room to see.
    Read = 0,
    /// `m.read.private`.
    ReadPrivate = 1,
}

impl ReceiptKind {
    /// The kind with this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Read, Self::ReadPrivate].into_iter().find(|kind| *kind as u8 == number)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "m.read",
            Self::ReadPrivate => "m.read.private",
        }
    }
}

/// The thread of a receipt that is for no thread in particular, as it stands in keys.
pub(crate) const UNTHREADED: &str = "";
/// The thread of what is in no thread.
pub(crate) const MAIN_THREAD: &str = "main";
/// How many relations are followed to find the thread that an event belongs to. Specification: "a maximum of 3 hops is
/// recommended".
const THREAD_HOPS_MAX: usize = 3;

/// The id of the root of the thread that the event is in, by a relation of its own or of what it relates to; `None` for what is
/// in the main timeline. The root need not be here: whoever came after it is in the thread all the same.
pub(crate) fn thread_root(reader: &Reader, event: &Arc<Event>) -> Result<Option<Box<str>>, StorageError> {
    let mut root: Option<Box<str>> = None;
    follow_relations(reader, event, |rel_type, target| {
        // What is no event's id names no thread, and least of all the main timeline.
        if rel_type == "m.thread" && target.starts_with('$') {
            root = Some(target.into());
        }
        root.is_none()
    })?;
    Ok(root)
}

/// Whether the event relates to the one with this id, by a relation of its own or of what it relates to.
pub(crate) fn is_related(reader: &Reader, event: &Arc<Event>, to: &str) -> Result<bool, StorageError> {
    let mut is_related = false;
    follow_relations(reader, event, |_, target| {
        is_related = target == to;
        !is_related
    })?;
    Ok(is_related)
}

/// Visits the relation of the event, then that of what it relates to, and so on, until `visit` returns false: the type, and the
/// id of what is related to. Nothing is known of what an event that is not here relates to.
fn follow_relations(
    reader: &Reader,
    event: &Arc<Event>,
    mut visit: impl FnMut(&str, &str) -> bool,
) -> Result<(), StorageError> {
    let mut at = event.clone();
    for _ in 0..=THREAD_HOPS_MAX {
        let pdu = at.pdu()?;
        let Some((rel_type, target)) = relation_of(&pdu.content) else { break };
        if !visit(rel_type, target) {
            break;
        }
        let Some(target) = reader.event_num(target)? else { break };
        at = reader.event(target)?;
        if at.header.room != event.header.room {
            break;
        }
    }
    Ok(())
}

/// Moves a receipt to `event`, if that is further than where it stands; answers whether it is. `thread` is [`UNTHREADED`], [`MAIN_THREAD`] or the
/// id of a thread's root.
pub(crate) fn set(
    tx: &mut Tx,
    room: RoomNum,
    user: UserNum,
    kind: ReceiptKind,
    thread: &str,
    event: &Event,
    ts: u64,
) -> Result<bool> {
    let key = (room, user, kind as u8, tx.intern_text(thread)?);
    if let Some(before) = tx.get(&schema::RECEIPTS, &key)? {
        if before.value.event_pos >= event.pos() {
            return Ok(false);
        }
        tx.delete(&schema::RECEIPT_STREAM, &(room, before.pos));
    }
    let pos = tx.next_position();
    let value = Receipt { event: event.num, event_pos: event.pos(), ts };
    tx.put(&schema::RECEIPTS, &key, &Positioned { pos, value });
    tx.put(&schema::RECEIPT_STREAM, &(room, pos), &(user, key.2, key.3));
    tx.touch(Touch::Receipt(room));
    match kind {
        ReceiptKind::Read => {
            tx.touch(Touch::Room(room));
            tx.touch(Touch::User(user));
        }
        ReceiptKind::ReadPrivate => tx.touch(Touch::InRoom { user, room }),
    }
    Ok(true)
}

/// The receipts of `room` that have come since a position, as far as `user` may know of them: the contents of `m.receipt`
/// events. That is one for all threads together, unless somebody has read up to the same event in several threads, for which
/// one content has no place: then there is one for each thread. O(users who have read since).
pub(crate) fn since(
    reader: &Reader,
    room: RoomNum,
    user: UserNum,
    since: StreamPos,
) -> Result<Vec<Vec<u8>>, StorageError> {
    if !reader.shared.watch.marks.may_have_receipts(room, since) {
        return Ok(Vec::new());
    }
    let mut keys = Vec::new();
    let from = (room, StreamPos(since.0.saturating_add(1)));
    let to = (room, StreamPos(reader.pos.0.saturating_add(1)));
    reader.scan_between(
        &schema::RECEIPT_STREAM,
        &from,
        &to,
        Direction::Forward,
        |_, (of, kind, thread)| {
            if kind == ReceiptKind::Read as u8 || of == user {
                keys.push((room, of, kind, thread));
            }
            true
        },
    )?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = reader.get_many(&schema::RECEIPTS, keys.iter().copied())?;
    let mut receipts = Vec::with_capacity(keys.len());
    for ((_, of, kind, thread), row) in keys.into_iter().zip(rows) {
        let (Some(row), Some(kind)) = (row, ReceiptKind::from_number(kind)) else { continue };
        receipts.push(Shown { event: row.value.event, kind, user: of, thread, ts: row.value.ts });
    }
    receipts.sort_by_key(Shown::place);
    if receipts.is_sorted_by(|a, b| a.place() < b.place()) {
        return Ok(vec![write_content(reader, &receipts)?]);
    }
    // Those of each thread stay in the order of their places.
    receipts.sort_by_key(|shown| shown.thread);
    let threads = receipts.chunk_by(|a, b| a.thread == b.thread);
    threads.map(|receipts| write_content(reader, receipts)).collect()
}

/// A receipt as it is shown.
struct Shown {
    event: EventNum,
    kind: ReceiptKind,
    user: UserNum,
    thread: TextNum,
    ts: u64,
}

impl Shown {
    /// Where it stands in a content.
    fn place(&self) -> (EventNum, ReceiptKind, UserNum) {
        (self.event, self.kind, self.user)
    }
}

/// The content of an event: receipts in the order of their places, no two of which are the same.
fn write_content(reader: &Reader, receipts: &[Shown]) -> Result<Vec<u8>, StorageError> {
    let by_event: Vec<&[Shown]> = receipts.chunk_by(|a, b| a.event == b.event).collect();
    let nums: Vec<EventNum> =
        by_event.iter().filter_map(|receipts| receipts.first()).map(|shown| shown.event).collect();
    let mut out = vec![b'{'];
    for (event, receipts) in reader.events(&nums)?.iter().zip(by_event) {
        separate(&mut out);
        write_string(&mut out, &event.event_id);
        out.extend_from_slice(b":{");
        for receipts in receipts.chunk_by(|a, b| a.kind == b.kind) {
            let Some(first) = receipts.first() else { continue };
            separate(&mut out);
            write_string(&mut out, first.kind.name());
            out.extend_from_slice(b":{");
            for shown in receipts {
                separate(&mut out);
                write_string(&mut out, &reader.user_id(shown.user)?);
                out.extend_from_slice(b":{\"ts\":");
                write_unsigned(&mut out, shown.ts);
                let thread = reader.text(shown.thread)?;
                if &*thread != UNTHREADED {
                    out.extend_from_slice(b",\"thread_id\":");
                    write_string(&mut out, &thread);
                }
                out.push(b'}');
            }
            out.push(b'}');
        }
        out.push(b'}');
    }
    out.push(b'}');
    Ok(out)
}

/// A comma, but not behind an opening brace.
fn separate(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}
