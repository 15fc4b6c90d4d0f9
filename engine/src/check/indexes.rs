//! What hangs on rooms and events: relations, threads, receipts, aliases must lead to what is there, and back.

use super::{Checker, Row};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos},
    room::relations::RelationClass,
    store::{Direction, StorageError, schema},
};

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    relations(checker)?;
    threads(checker)?;
    receipts(checker)?;
    aliases(checker)?;
    checker.rows(&schema::EARLY_REDACTIONS, |row, (room, _), redactions| {
        redactions.into_iter().try_for_each(|redaction| event_in(row, room, redaction, None, "the redaction"))
    })?;
    checker.rows(&schema::PUBLIC_ROOMS, |row, room, ()| {
        let there = row.reader().has(&schema::ROOM_HEADS, &room)?;
        row.expect(there, "the room is not there");
        Ok(())
    })
}

/// The event is there, in the room, and at `pos` if that is given.
fn event_in(
    row: &mut Row<'_, '_>,
    room: RoomNum,
    num: EventNum,
    pos: Option<StreamPos>,
    what: &str,
) -> Result<(), StorageError> {
    match row.reader().get(&schema::EVENT_HEADERS, &num)? {
        None => row.found(format!("{what} is not there: number {}", num.0)),
        Some(header) => {
            row.expect(header.value.room == room, &format!("{what} is of another room"));
            row.expect(pos.is_none_or(|pos| pos == header.pos), &format!("{what} is at another position"));
        }
    }
    Ok(())
}

fn relations(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    checker.rows(&schema::RELATIONS, |row, (room, class, target, pos), relation| {
        event_in(row, room, target, None, "the event that is related to")?;
        event_in(row, room, relation.event, Some(pos), "the event that relates")?;
        let rel_type = row.reader().text(relation.rel_type)?;
        row.expect(RelationClass::of(&rel_type) as u8 == class, "the relation is in the wrong class");
        Ok(())
    })
}

fn threads(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    checker.rows(&schema::THREADS, |row, (room, root), thread| {
        event_in(row, room, root, None, "the root")?;
        event_in(row, room, thread.value.latest, Some(thread.pos), "the latest event")?;
        let listed = row.reader().get(&schema::THREAD_STREAM, &(room, thread.pos))?;
        row.expect(listed == Some(root), "the thread is not in the room's stream of threads");
        let mut count = 0;
        let prefix = (room, RelationClass::Thread as u8, root);
        row.reader().scan(&schema::RELATIONS, &prefix, Direction::Forward, |_, _| {
            count += 1;
            true
        })?;
        row.expect(count == thread.value.count, "the thread's events are counted wrong");
        Ok(())
    })?;
    checker.rows(&schema::THREAD_STREAM, |row, (room, pos), root| {
        let thread = row.reader().get(&schema::THREADS, &(room, root))?;
        row.expect(thread.is_some_and(|thread| thread.pos == pos), "the thread does not stand here");
        Ok(())
    })?;
    checker.rows(&schema::THREAD_USERS, |row, (room, root, _), ()| {
        let there = row.reader().has(&schema::THREADS, &(room, root))?;
        row.expect(there, "the thread is not there");
        Ok(())
    })
}

fn receipts(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    checker.rows(&schema::RECEIPTS, |row, (room, user, kind, thread), receipt| {
        event_in(row, room, receipt.value.event, Some(receipt.value.event_pos), "the event")?;
        let listed = row.reader().get(&schema::RECEIPT_STREAM, &(room, receipt.pos))?;
        row.expect(
            listed == Some((user, kind, thread)),
            "the receipt is not in the room's stream of receipts",
        );
        Ok(())
    })?;
    checker.rows(&schema::RECEIPT_STREAM, |row, (room, pos), (user, kind, thread)| {
        let receipt = row.reader().get(&schema::RECEIPTS, &(room, user, kind, thread))?;
        row.expect(receipt.is_some_and(|receipt| receipt.pos == pos), "the receipt does not stand here");
        Ok(())
    })
}

fn aliases(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    checker.rows(&schema::ALIASES, |row, name, alias| {
        let listed = match row.reader().room_num(&alias.room_id)? {
            Some(room) => row.reader().has(&schema::ROOM_ALIASES, &(room, name))?,
            None => false,
        };
        row.expect(listed, "the room does not list the alias");
        Ok(())
    })?;
    checker.rows(&schema::ROOM_ALIASES, |row, (room, name), ()| {
        let room_id = row.reader().room_id(room)?;
        let alias = row.reader().get(&schema::ALIASES, &name)?;
        row.expect(
            alias.is_some_and(|alias| *alias.room_id == *room_id),
            "the alias is another room's or nobody's",
        );
        Ok(())
    })
}
