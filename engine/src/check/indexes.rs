//! What hangs on rooms: receipts, aliases, the directory must lead to what is there, and back.

use super::pass::{Pass, Row, readable};
use crate::{
    core::num::{RoomNum, TextNum, UserNum},
    store::{
        Positioned, StorageError, schema,
        schema::{Alias, Receipt},
    },
};

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::RECEIPTS, |row, key, value| receipt(row, key, &value)),
        Pass::over_derived(&schema::RECEIPT_STREAM, |row, (room, pos), (user, kind, thread)| {
            if row.is_going(room) {
                return Ok(());
            }
            let receipt = readable(row.reader().get(&schema::RECEIPTS, &(room, user, kind, thread)))?;
            let stands = receipt.is_some_and(|receipt| receipt.pos == pos);
            if !row.expect(stands, "the receipt does not stand here") {
                row.delete(&schema::RECEIPT_STREAM, &(room, pos));
            }
            Ok(())
        }),
        Pass::over(&schema::ALIASES, alias),
        Pass::over_derived(&schema::ROOM_ALIASES, |row, (room, name), ()| {
            if row.is_going(room) {
                return Ok(());
            }
            let room_id = row.room_id(room)?;
            let alias = readable(row.reader().get(&schema::ALIASES, &name))?;
            let is_its = alias.is_some_and(|alias| Some(alias.room_id) == room_id);
            if !row.expect(is_its, "the alias is another room's or nobody's") {
                row.delete(&schema::ROOM_ALIASES, &(room, name));
            }
            Ok(())
        }),
        Pass::over(&schema::PUBLIC_ROOMS, |row, room, ()| {
            if row.is_going(room) {
                return Ok(());
            }
            let there = row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row.expect(there, "the room is not there") {
                row.delete(&schema::PUBLIC_ROOMS, &room);
            }
            Ok(())
        }),
    ]
}

/// A receipt is for an event of the room, and stands in the room's stream. One for nothing is worth nothing.
fn receipt(
    row: &mut Row<'_>,
    key: (RoomNum, UserNum, u8, TextNum),
    receipt: &Positioned<Receipt>,
) -> Result<(), StorageError> {
    let (room, user, kind, thread) = key;
    if row.is_going(room) {
        return Ok(());
    }
    row.expect_user(user)?;
    let header = row.header(receipt.value.event)?.filter(|header| header.value.room == room);
    let Some(header) = header else {
        row.found(format!("the event is not in the room: number {}", receipt.value.event.0));
        row.delete(&schema::RECEIPTS, &key);
        return Ok(());
    };
    if !row.expect(header.pos == receipt.value.event_pos, "the event is at another position") {
        let value = Receipt { event_pos: header.pos, ..receipt.value.clone() };
        row.put(&schema::RECEIPTS, &key, &Positioned { pos: receipt.pos, value });
    }
    let problem = "the receipt is not in the room's stream of receipts";
    if row.expect_row(&schema::RECEIPT_STREAM, &(room, receipt.pos), &(user, kind, thread), problem)? {
        row.seen.uses_position(receipt.pos);
    }
    Ok(())
}

/// The room lists the alias.
fn alias(row: &mut Row<'_>, name: String, alias: Alias) -> Result<(), StorageError> {
    row.expect_user(alias.creator)?;
    let room = row.number(crate::store::InternedKind::Room, &alias.room_id)?.map(RoomNum);
    if room.is_some_and(|room| row.is_going(room)) {
        return Ok(());
    }
    let listed = match room {
        Some(room) => row.reader().has(&schema::ROOM_ALIASES, &(room, name.clone()))?,
        None => false,
    };
    if !row.expect(listed, "the room does not list the alias") {
        row.mend(schema::ROOM_ALIASES.name, move |tx| {
            let room = tx.intern_room(&alias.room_id)?;
            tx.put(&schema::ROOM_ALIASES, &(room, name), &());
            Ok(())
        });
    }
    Ok(())
}
