//! Other servers: what they are to be sent, and when they were in rooms, names what is there, and is counted right.

use super::pass::{Pass, Row, readable};
use crate::{
    core::num::{RoomNum, StreamPos, TextNum, UserNum},
    store::{
        Direction, Positioned, StorageError, schema,
        schema::{Destination, OutgoingEdu},
    },
};

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over(&schema::OUTGOING_EVENTS, |row, (room, pos), num| {
            row.seen.uses_position(pos);
            let header = row.header(num)?;
            let is_there = header.is_some_and(|header| header.value.room == room && header.pos == pos);
            if !row.expect(row.is_going(room) || is_there, "the event is not there, or elsewhere") {
                row.delete(&schema::OUTGOING_EVENTS, &(room, pos));
            }
            Ok(())
        }),
        Pass::over(&schema::SERVER_STAYS, stay),
        Pass::over(&schema::DESTINATIONS, |row, server, found| {
            expect_named(row, server)?;
            row.seen.uses_position(found.delivered_to);
            row.seen.uses_position(found.receipts_told_to);
            let right = messages_waiting(row, server)?;
            if !row.expect(found.messages_waiting == right, "the messages that wait are counted wrong") {
                row.put(&schema::DESTINATIONS, &server, &Destination { messages_waiting: right, ..found });
            }
            Ok(())
        }),
        Pass::over_derived(&schema::OUTGOING_LISTS, |row, (server, user, kind), _| {
            expect_named(row, server)?;
            if user != UserNum(0) {
                row.expect_user(user)?;
            }
            row.expect(kind <= 1, "it is about nothing that there is");
            Ok(())
        }),
        Pass::over(&schema::OUTGOING_EDUS, |row, (server, pos), edu| {
            expect_named(row, server)?;
            row.seen.uses_position(pos);
            match edu.value {
                OutgoingEdu::Direct(content) => {
                    row.expect_json(&content);
                    let counted = row.reader().has(&schema::DESTINATIONS, &server)?;
                    if !row.expect(counted, "the message is not counted") {
                        let messages_waiting = messages_waiting(row, server)?;
                        let right = Destination { messages_waiting, ..Destination::default() };
                        row.put(&schema::DESTINATIONS, &server, &right);
                    }
                }
                OutgoingEdu::DeviceList(user, _) | OutgoingEdu::SigningKeys(user) => {
                    row.expect_user(user)?;
                }
                // It may have been purged since, and is not sent then.
                OutgoingEdu::Event(num) => row.seen.uses_event(num),
            }
            Ok(())
        }),
        Pass::over(&schema::RECEIVED_MESSAGES, |row, (server, _), _| expect_named(row, server)),
        Pass::over(&schema::RECEIVED_COUNTS, |row, server, _| expect_named(row, server)),
        Pass::over(&schema::RECEIVED_TRANSACTIONS, |row, (server, _), found| {
            row.expect_json(&found.answer);
            expect_named(row, server)
        }),
        Pass::over(&schema::DEVICE_LIST_POSITIONS, |row, user, pos| {
            row.seen.uses_position(pos);
            row.expect_user(user).map(drop)
        }),
        Pass::over(&schema::REMOTE_DEVICE_LISTS, |row, user, _| row.expect_user(user).map(drop)),
        Pass::over(&schema::REMOTE_DEVICE_NAMES, |row, (user, device), _| {
            let has_keys = row.reader().has(&schema::DEVICE_KEYS, &(user, device))?;
            if !row.expect(has_keys, "the device has no keys") {
                row.delete(&schema::REMOTE_DEVICE_NAMES, &(user, device));
            }
            Ok(())
        }),
    ]
}

fn expect_named(row: &mut Row<'_>, server: TextNum) -> Result<(), StorageError> {
    let named = row.text(server)?.is_some();
    row.expect(named, "the server's number has no name");
    Ok(())
}

/// A stay that is open is of a server that is in the room, and its only one there.
fn stay(
    row: &mut Row<'_>,
    (server, room, start): (TextNum, RoomNum, StreamPos),
    end: StreamPos,
) -> Result<(), StorageError> {
    row.seen.uses_position(start);
    expect_named(row, server)?;
    row.expect(start <= end, "the stay ends before it begins");
    if end != StreamPos::MAX || row.is_going(room) {
        return Ok(());
    }
    let is_in = readable(row.reader().get(&schema::ROOM_SERVERS, &(room, server)))?.is_some()
        || row.reader().is_supposed(server, room)?;
    let others = stays_beside(row, (server, room, start))?;
    if !row.expect(is_in, "the server is in the room no longer") {
        // It left with the last stay that began since and has ended. Where there is none, it is not known when: whatever it was
        // to be told until now, it is told still.
        let ends = others.iter().filter(|(begun, end)| *begun > start && *end != StreamPos::MAX);
        let end = ends.map(|(_, end)| *end).max().unwrap_or(row.reader().pos);
        row.put(&schema::SERVER_STAYS, &(server, room, start), &end);
        return Ok(());
    }
    let is_first = !others.iter().any(|(begun, end)| *begun < start && *end == StreamPos::MAX);
    if !row.expect(is_first, "the server is in the room by an earlier stay") {
        row.delete(&schema::SERVER_STAYS, &(server, room, start));
    }
    Ok(())
}

/// The other stays of the server in the room: when they began and ended.
fn stays_beside(
    row: &Row<'_>,
    (server, room, start): (TextNum, RoomNum, StreamPos),
) -> Result<Vec<(StreamPos, StreamPos)>, StorageError> {
    let mut stays = Vec::new();
    row.reader().scan(
        &schema::SERVER_STAYS,
        &(server, room),
        Direction::Forward,
        |(_, _, begun): (TextNum, RoomNum, StreamPos), end| {
            if begun != start {
                stays.push((begun, end));
            }
            true
        },
    )?;
    Ok(stays)
}

fn messages_waiting(row: &Row<'_>, server: TextNum) -> Result<u32, StorageError> {
    let mut waiting = 0;
    row.reader().scan(
        &schema::OUTGOING_EDUS,
        &server,
        Direction::Forward,
        |_: (TextNum, StreamPos), edu: Positioned<OutgoingEdu>| {
            waiting += u32::from(matches!(edu.value, OutgoingEdu::Direct(_)));
            true
        },
    )?;
    Ok(waiting)
}
