//! What clients keep about their user, for everywhere and for single rooms. Specification: client-server API, "Client
//! Config".
//!
//! Invariant: each row's position is that of its one entry in the user's stream, so that the stream holds no more entries
//! than there are rows.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    core::num::{RoomNum, StreamPos, UserNum},
    store::{Direction, Positioned, Reader, StorageError, Tx, schema, schema::UserNews},
    stream::Touch,
};

/// Stands for "no room" in keys; rooms are numbered from one.
const EVERYWHERE: RoomNum = RoomNum(0);

/// The type and content (JSON) of one piece of account data.
pub type Entry = (String, Bytes);

/// The content of one type, in a room or everywhere.
pub fn get(
    reader: &Reader,
    user: UserNum,
    room: Option<RoomNum>,
    kind: &str,
) -> Result<Option<Bytes>, StorageError> {
    let key = (user, room.unwrap_or(EVERYWHERE), kind.to_owned());
    Ok(reader.get(&schema::ACCOUNT_DATA, &key)?.map(|row| row.value))
}

/// What is set everywhere.
pub fn global(reader: &Reader, user: UserNum) -> Result<Vec<Entry>, StorageError> {
    scan(reader, user, EVERYWHERE, StreamPos::ZERO)
}

/// What is set in a room.
pub fn room(reader: &Reader, user: UserNum, room: RoomNum) -> Result<Vec<Entry>, StorageError> {
    scan(reader, user, room, StreamPos::ZERO)
}

/// What is set in rooms, by room.
pub fn of_rooms(reader: &Reader, user: UserNum) -> Result<HashMap<RoomNum, Vec<Entry>>, StorageError> {
    let mut rooms: HashMap<RoomNum, Vec<Entry>> = HashMap::new();
    reader.scan(
        &schema::ACCOUNT_DATA,
        &user,
        Direction::Forward,
        |(_, room, kind): (UserNum, RoomNum, String), row| {
            if room != EVERYWHERE && row.pos <= reader.pos {
                rooms.entry(room).or_default().push((kind, row.value));
            }
            true
        },
    )?;
    Ok(rooms)
}

/// What has been set everywhere since a position. O(the user's news since then).
pub fn global_since(reader: &Reader, user: UserNum, since: StreamPos) -> Result<Vec<Entry>, StorageError> {
    let mut kinds = Vec::new();
    let (from, to) =
        ((user, StreamPos(since.0.saturating_add(1))), (user, StreamPos(reader.pos.0.saturating_add(1))));
    reader.scan_between(&schema::USER_STREAM, &from, &to, Direction::Forward, |_, news| {
        if let UserNews::AccountData(kind) = news {
            kinds.push(kind);
        }
        true
    })?;
    let keys = kinds.iter().map(|kind| (user, EVERYWHERE, kind.clone()));
    let rows = reader.get_many(&schema::ACCOUNT_DATA, keys)?;
    Ok(kinds.into_iter().zip(rows).filter_map(|(kind, row)| Some((kind, row?.value))).collect())
}

/// What has been set in a room since a position. O(what is set in the room), which is little.
pub fn room_since(
    reader: &Reader,
    user: UserNum,
    room: RoomNum,
    since: StreamPos,
) -> Result<Vec<Entry>, StorageError> {
    scan(reader, user, room, since)
}

fn scan(reader: &Reader, user: UserNum, room: RoomNum, since: StreamPos) -> Result<Vec<Entry>, StorageError> {
    let mut entries = Vec::new();
    reader.scan(
        &schema::ACCOUNT_DATA,
        &(user, room),
        Direction::Forward,
        |(_, _, kind): (UserNum, RoomNum, String), row| {
            if row.pos > since && row.pos <= reader.pos {
                entries.push((kind, row.value));
            }
            true
        },
    )?;
    Ok(entries)
}

/// Removes all that is set, in rooms and everywhere. O(types that are set).
pub(crate) fn clear(tx: &mut Tx, user: UserNum) -> Result<(), StorageError> {
    let mut positions = Vec::new();
    tx.scan(
        &schema::ACCOUNT_DATA,
        &user,
        Direction::Forward,
        |(_, _, _): (UserNum, RoomNum, String), row| {
            positions.push(row.pos);
            true
        },
    )?;
    for pos in positions {
        tx.delete(&schema::USER_STREAM, &(user, pos));
    }
    tx.delete_prefix(&schema::ACCOUNT_DATA, &user);
    tx.touch(Touch::User(user));
    Ok(())
}

/// Sets the content (JSON) of one type, in a room or everywhere. At most once for each in one transaction.
pub(crate) fn set(
    tx: &mut Tx,
    user: UserNum,
    room: Option<RoomNum>,
    kind: &str,
    content: &Bytes,
) -> Result<(), StorageError> {
    let key = (user, room.unwrap_or(EVERYWHERE), kind.to_owned());
    if let Some(before) = tx.get(&schema::ACCOUNT_DATA, &key)? {
        tx.delete(&schema::USER_STREAM, &(user, before.pos));
    }
    let pos = tx.next_position();
    let news = match room {
        None => UserNews::AccountData(kind.to_owned()),
        Some(room) => UserNews::RoomAccountData(room, kind.to_owned()),
    };
    tx.put(&schema::USER_STREAM, &(user, pos), &news);
    tx.put(&schema::ACCOUNT_DATA, &key, &Positioned { pos, value: content.clone() });
    tx.touch(Touch::User(user));
    Ok(())
}
