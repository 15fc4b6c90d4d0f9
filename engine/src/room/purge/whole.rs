//! The removal of a whole room, piece by piece. Each piece finds by itself what is left.

use super::{RowRange, event, note_removed, range};
use crate::{
    core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    error::Result,
    room::alias,
    store::{
        Direction, Key, StorageError, Tx, Value, schema,
        schema::{Keyspace, Membership, Purge, PurgeWork, UserNews},
    },
    stream::Touch,
};

/// The key behind all keys of the room.
fn behind(room: RoomNum) -> RoomNum {
    RoomNum(room.0 + 1)
}

/// Removes members from `from` on, and what each has of the room.
pub(super) fn members(tx: &mut Tx, room: RoomNum, from: (u8, UserNum), limit: usize) -> Result<PurgeWork> {
    let mut found: Vec<(u8, UserNum)> = Vec::new();
    let start = (room, from.0, from.1);
    tx.scan_between(&schema::MEMBERS, &start, &behind(room), Direction::Forward, |key, _| {
        found.push((key.1, key.2));
        found.len() < limit
    })?;
    for (membership, user) in &found {
        tx.delete(&schema::MEMBERS, &(room, *membership, *user));
        if let Some(row) = tx.user_room(*user, room)? {
            remove_news(tx, room, *user, row.pos)?;
            tx.delete(&schema::USER_ROOMS, &(*user, room));
        }
        tx.delete(&schema::OUT_OF_BAND, &(*user, room));
        remove_account_data(tx, room, *user)?;
        if *membership == Membership::Join as u8 {
            tx.touch(Touch::Membership { user: *user, room, joined: false });
        }
        tx.touch(Touch::User(*user));
    }
    Ok(match found.last() {
        Some((membership, user)) if found.len() == limit => {
            PurgeWork::Members(*membership, UserNum(user.0 + 1))
        }
        _ => PurgeWork::OutOfBand(UserNum(0)),
    })
}

/// Whether another server said something of a user's membership in the room. O(all that other servers said of such).
pub(super) fn has_out_of_band(tx: &Tx, room: RoomNum) -> Result<bool, StorageError> {
    let mut found = false;
    tx.scan(&schema::OUT_OF_BAND, &(), Direction::Forward, |(_, of): (UserNum, RoomNum), _| {
        found = of == room;
        !found
    })?;
    Ok(found)
}

/// Removes what other servers said of memberships in the room, of users from `from` on, of at most `limit` of them among
/// `looks` rows. They are told that they are out of it, for nobody else will tell them.
pub(super) fn out_of_band(
    tx: &mut Tx,
    room: RoomNum,
    from: UserNum,
    limit: usize,
    looks: usize,
) -> Result<PurgeWork> {
    let (mut found, mut seen, mut next) = (Vec::new(), 0, None);
    let end = UserNum(u64::MAX);
    tx.scan_between(&schema::OUT_OF_BAND, &from, &end, Direction::Forward, |(user, of), _| {
        if (seen >= looks || found.len() >= limit) && user > from {
            next = Some(user);
            return false;
        }
        seen += 1;
        if of == room {
            found.push(user);
        }
        true
    })?;
    for user in found {
        if let Some(row) = tx.user_room(user, room)? {
            remove_news(tx, room, user, row.pos)?;
            tx.delete(&schema::USER_ROOMS, &(user, room));
        }
        tx.delete(&schema::OUT_OF_BAND, &(user, room));
        remove_account_data(tx, room, user)?;
        let pos = tx.next_position();
        tx.put(&schema::USER_STREAM, &(user, pos), &UserNews::Membership(room));
        tx.touch(Touch::User(user));
    }
    Ok(next.map_or(PurgeWork::Aliases, PurgeWork::OutOfBand))
}

/// Removes what a user set for the room.
pub(in crate::room) fn remove_account_data(
    tx: &mut Tx,
    room: RoomNum,
    user: UserNum,
) -> Result<(), StorageError> {
    let mut rows = Vec::new();
    tx.scan(
        &schema::ACCOUNT_DATA,
        &(user, room),
        Direction::Forward,
        |key: (UserNum, RoomNum, String), row| {
            rows.push((key, row.pos));
            true
        },
    )?;
    for (key, pos) in rows {
        remove_news(tx, room, user, pos)?;
        tx.delete(&schema::ACCOUNT_DATA, &key);
    }
    Ok(())
}

/// Removes what the user's stream says of the room at a position.
fn remove_news(tx: &mut Tx, room: RoomNum, user: UserNum, pos: StreamPos) -> Result<(), StorageError> {
    let key = (user, pos);
    match tx.get(&schema::USER_STREAM, &key)? {
        Some(UserNews::Membership(of) | UserNews::RoomAccountData(of, _)) if of == room => {
            tx.delete(&schema::USER_STREAM, &key);
        }
        _ => {}
    }
    Ok(())
}

/// Removes those of `aliases` that are the room's; when none is left, removes what hangs on the
/// events, and goes on to these.
pub(super) fn aliases(tx: &mut Tx, room: RoomNum, room_id: &str, aliases: &[String]) -> Result<PurgeWork> {
    for name in aliases {
        if let Some(found) = tx.alias(name)?.filter(|found| found.room_id == room_id) {
            alias::remove(tx, name, &found)?;
        }
    }
    let is_left = !tx.room_aliases(room)?.is_empty();
    if is_left {
        return Ok(PurgeWork::Aliases);
    }
    remove_stays(tx, room)?;
    remove_indexes(tx, room);
    Ok(PurgeWork::Events(StreamPos(i64::MIN)))
}

/// Removes what tells when other servers were in the room: each has had a user who is listed, or is supposed to have one whom nobody has
/// told of yet. O(users of other servers).
fn remove_stays(tx: &mut Tx, room: RoomNum) -> Result<(), StorageError> {
    let mut servers: Vec<TextNum> = Vec::new();
    tx.scan(
        &schema::SERVER_USERS,
        &room,
        Direction::Forward,
        |(_, server, _): (RoomNum, TextNum, UserNum), ()| {
            if servers.last() != Some(&server) {
                servers.push(server);
            }
            true
        },
    )?;
    for name in tx.get(&schema::PARTIAL_JOINS, &room)?.into_iter().flat_map(|partial| partial.servers) {
        servers.extend(tx.text_num(&name)?);
    }
    for server in servers {
        tx.delete_prefix(&schema::SERVER_STAYS, &(server, room));
    }
    Ok(())
}

/// Removes events of the timeline from `from` on.
pub(super) fn events(
    tx: &mut Tx,
    room: RoomNum,
    from: StreamPos,
    limit: usize,
    purge: &mut Purge,
) -> Result<PurgeWork> {
    let mut found = Vec::new();
    tx.scan_between(&schema::TIMELINE, &(room, from), &behind(room), Direction::Forward, |(_, pos), num| {
        found.push((pos, num));
        found.len() < limit
    })?;
    remove(tx, room, found.iter().map(|(_, num)| *num).collect(), purge)?;
    Ok(match found.last() {
        Some((pos, _)) if found.len() == limit => PurgeWork::Events(StreamPos(pos.0.saturating_add(1))),
        _ => PurgeWork::OffTimeline(EventNum(0)),
    })
}

/// Removes events off the timeline from `from` on.
pub(super) fn off_timeline(
    tx: &mut Tx,
    room: RoomNum,
    from: EventNum,
    limit: usize,
    purge: &mut Purge,
) -> Result<PurgeWork> {
    let mut found = Vec::new();
    let start = (room, from);
    tx.scan_between(&schema::OFF_TIMELINE, &start, &behind(room), Direction::Forward, |(_, num), ()| {
        found.push(num);
        found.len() < limit
    })?;
    remove(tx, room, found.clone(), purge)?;
    Ok(match found.last() {
        Some(num) if found.len() == limit => PurgeWork::OffTimeline(EventNum(num.0 + 1)),
        _ => PurgeWork::Rows,
    })
}

fn remove(tx: &mut Tx, room: RoomNum, nums: Vec<EventNum>, purge: &mut Purge) -> Result<()> {
    let room_id = tx.room_id(room)?;
    for found in tx.events(&nums)? {
        event::remove_of_users(tx, &found, &room_id)?;
        event::remove(tx, &found)?;
        note_removed(purge, found.num);
    }
    Ok(())
}

fn remove_all<K: Key, V: Value>(tx: &mut Tx, keyspace: &Keyspace<K, V>, room: RoomNum) {
    tx.delete_prefix(keyspace, &room);
}

/// Lists the keyspaces whose keys begin with a room: those that hang on events, and those by which events are found.
macro_rules! of_rooms {
    (on_events: $($on:ident),*; to_events: $($to:ident),*;) => {
        /// Their names, to be compared with the table.
        #[cfg(test)]
        pub(super) const OF_ROOMS: &[&str] = &[$(stringify!($on),)* $(stringify!($to)),*];

        /// Removes what hangs on the room's events.
        fn remove_indexes(tx: &mut Tx, room: RoomNum) {
            $(remove_all(tx, &schema::$on, room);)*
        }

        /// Removes what is left when the events are gone.
        pub(super) fn rows(tx: &mut Tx, room: RoomNum) {
            $(remove_all(tx, &schema::$to, room);)*
        }

        /// Where all that was.
        pub(super) fn ranges(room: RoomNum) -> Vec<RowRange> {
            vec![$(range(&schema::$on, &room, &behind(room)),)* $(range(&schema::$to, &room, &behind(room))),*]
        }
    };
}

of_rooms! {
    on_events:
        ROOM_HEADS, STATE_NODES, MEMBERS, RELATIONS, EARLY_REDACTIONS, EARLY_RELATIONS, RECEIPTS, RECEIPT_STREAM,
        ROOM_ALIASES, PUBLIC_ROOMS, THREADS, THREAD_STREAM, THREAD_USERS, MEMBER_STREAM, HISTORY_STARTS,
        BACKWARD_EXTREMITIES, GAPS, PARTIAL_STATES, STATE_CHANGES, CITATIONS, TOLD_STATES, PARTIAL_STRETCHES, ROOM_SERVERS,
        SERVER_USERS, PARTIAL_JOINS, PARKED_PDUS, OUTGOING_EVENTS, EARLY_RECEIPTS, SIGNED_INVITES, EARLIER_JOINS,
        UNSHOWN_PROFILES, GUESTS_TO_REMOVE, UNCARRIED_SETTINGS, ENTRANCES, HIDDEN_OUTLIERS,
        UNCHECKED_EVENTS, UNCHECKED_MEMBERS;
    to_events: TIMELINE, OFF_TIMELINE, PURGES;
}
