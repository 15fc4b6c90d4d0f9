//! Servers: those of a room's joined members are listed with how many there are, and each has the list of its users.

use std::collections::BTreeMap;

use super::{Members, Membership, Pass, RoomNum, Row, StorageError, schema};
use crate::{
    core::{
        identifiers::server_name,
        num::{StreamPos, TextNum, UserNum},
    },
    room::unchecked::member_of,
    store::{
        Direction,
        schema::{Keyspace, UncheckedMember},
    },
};

pub(super) fn passes() -> Vec<Pass> {
    let mut passes = of_servers();
    passes.extend(unfinished());
    passes.extend(unchecked());
    passes
}

/// What is still to be done in rooms.
fn unfinished() -> Vec<Pass> {
    vec![
        Pass::over(&schema::UNSHOWN_PROFILES, |row, (room, user), ()| {
            is_of_room_and_account(row, &schema::UNSHOWN_PROFILES, (room, user))
        }),
        Pass::over(&schema::UNCARRIED_SETTINGS, |row, (room, user), ()| {
            is_of_room_and_account(row, &schema::UNCARRIED_SETTINGS, (room, user))
        }),
        Pass::over(&schema::GUESTS_TO_REMOVE, |row, room, ()| {
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row.expect(there, "the room is not there") {
                row.delete(&schema::GUESTS_TO_REMOVE, &room);
            }
            Ok(())
        }),
    ]
}

/// A row is of a room that is there, and of a user of this server.
fn is_of_room_and_account(
    row: &mut Row<'_>,
    keyspace: &Keyspace<(RoomNum, UserNum), ()>,
    (room, user): (RoomNum, UserNum),
) -> Result<(), StorageError> {
    let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
    let is_ours = row.reader().has(&schema::ACCOUNTS, &user)?;
    if !row.expect(there && is_ours, "the room is not there, or the user not of this server") {
        row.delete(keyspace, &(room, user));
    }
    Ok(())
}

/// What waits for the keys of servers.
fn unchecked() -> Vec<Pass> {
    vec![
        Pass::over(&schema::UNCHECKED_EVENTS, |row, (room, server, event_id), event| {
            row.expect_json(&event.json);
            let known = row.is_going(room) || row.room_id(room)?.is_some();
            row.expect(known, "the room is not known");
            let Some(user_id) = member_of(&event) else { return Ok(()) };
            let member = UncheckedMember { server, event_id };
            if !row.is_going(room)
                && !row.reader().has(&schema::UNCHECKED_MEMBERS, &(room, user_id.clone()))?
            {
                row.found("the user of whom it tells is not noted");
                row.put(&schema::UNCHECKED_MEMBERS, &(room, user_id), &member);
            }
            Ok(())
        }),
        Pass::over_derived(&schema::UNCHECKED_MEMBERS, |row, (room, user_id), member| {
            let key = (room, member.server, member.event_id);
            let is_told = row.is_going(room) || row.reader().has(&schema::UNCHECKED_EVENTS, &key)?;
            if !row.expect(is_told, "no event that waits tells of the user") {
                row.delete(&schema::UNCHECKED_MEMBERS, &(room, user_id));
            }
            Ok(())
        }),
    ]
}

fn of_servers() -> Vec<Pass> {
    vec![
        Pass::over_derived(&schema::ROOM_SERVERS, |row, (room, server), _| {
            // The numbers are those of the room's members, which are visited with its head.
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row.expect(there, "the room is not there") {
                row.delete(&schema::ROOM_SERVERS, &(room, server));
            }
            Ok(())
        }),
        Pass::over_derived(&schema::SERVER_USERS, |row, (room, server, user), ()| {
            if row.is_going(room) {
                return Ok(());
            }
            let (server_of, user_id) = (row.text(server)?, row.user_id(user)?);
            let is_its =
                user_id.as_deref().and_then(server_name) == server_of.as_deref() && server_of.is_some();
            if !row.expect(is_its, "the user is of another server") {
                row.delete(&schema::SERVER_USERS, &(room, server, user));
            }
            Ok(())
        }),
        Pass::over(&schema::OUT_OF_BAND, |row, (user, room), outside| {
            row.expect_user(user)?;
            row.expect_json(&outside.json);
            let shown = row.is_going(room) || row.reader().has(&schema::USER_ROOMS, &(user, room))?;
            row.expect(shown, "the user is not shown the room");
            Ok(())
        }),
        Pass::over(&schema::PARTIAL_JOINS, |row, room, _| {
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            row.expect(there, "the room is not there");
            Ok(())
        }),
        Pass::over(&schema::EARLIER_JOINS, |row, (room, event_id), ()| {
            let there = row.is_going(room) || row.reader().event_num(&event_id)?.is_some();
            if !row.expect(there, "the join is not there") {
                row.delete(&schema::EARLIER_JOINS, &(room, event_id));
            }
            Ok(())
        }),
        Pass::over(&schema::PARKED_PDUS, |row, (room, _), parked| {
            row.expect_json(&parked.json);
            let known = row.is_going(room) || row.room_id(room)?.is_some();
            row.expect(known, "the room is not known");
            Ok(())
        }),
        Pass::over(&schema::SIGNED_INVITES, |row, (room, user), invite| {
            row.expect_user(user)?;
            row.expect_json(&invite.json);
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row.expect(there, "the room is not there") {
                row.delete(&schema::SIGNED_INVITES, &(room, user));
            }
            Ok(())
        }),
        // That its event is here by now is no fault: the next thing to happen in the room sees to it.
        Pass::over(&schema::EARLY_RECEIPTS, |row, (room, user, thread), _| {
            row.expect_user(user)?;
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row.expect(there, "the room is not there") {
                row.delete(&schema::EARLY_RECEIPTS, &(room, user, thread));
            }
            Ok(())
        }),
    ]
}

/// Expects the servers of a room to be those of its joined members, each to list its users, and other ones to have a stay
/// that is open. Answers how many others there are.
pub(super) fn check(row: &mut Row<'_>, room: RoomNum, members: &Members) -> Result<u64, StorageError> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (user, (membership, _)) in members {
        let Some(user_id) = row.user_id(*user)? else { continue };
        let Some(server) = server_name(&user_id) else { continue };
        listed(row, room, server, *user)?;
        if *membership == Membership::Join {
            *counts.entry(server.to_owned()).or_default() += 1;
        }
    }
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let mut rows = Vec::new();
    row.reader().scan(&schema::ROOM_SERVERS, &room, Direction::Forward, |(_, server), count| {
        rows.push((server, count));
        true
    })?;
    for (server, count) in rows {
        match row.text(server)? {
            Some(name) if counts.contains_key(&name) => drop(found.insert(name, count)),
            _ => {
                row.found("a server without joined members is listed");
                row.delete(&schema::ROOM_SERVERS, &(room, server));
            }
        }
    }
    let own = row.reader().shared.server_name.clone();
    let mut others = 0;
    for (server, count) in counts {
        if *server != *own {
            others += 1;
            stays(row, room, &server)?;
        }
        if !row
            .expect(found.get(&server) == Some(&count), &format!("the members of {server} are counted wrong"))
        {
            row.mend(schema::ROOM_SERVERS.name, move |tx| {
                let server = tx.intern_text(&server)?;
                tx.put(&schema::ROOM_SERVERS, &(room, server), &count);
                Ok(())
            });
        }
    }
    Ok(others)
}

fn stays(row: &mut Row<'_>, room: RoomNum, server: &str) -> Result<(), StorageError> {
    let mut is_open = false;
    if let Some(server) = row.text_num(server)? {
        row.reader().scan(
            &schema::SERVER_STAYS,
            &(server, room),
            Direction::Backward,
            |_: (TextNum, RoomNum, StreamPos), end| {
                is_open = end == StreamPos::MAX;
                !is_open
            },
        )?;
    }
    if !row.expect(is_open, &format!("it is not told since when {server} is in the room")) {
        let server = server.to_owned();
        row.mend(schema::SERVER_STAYS.name, move |tx| {
            // Since now: it fetches what it missed from the first event that it is sent.
            let (server, since) = (tx.intern_text(&server)?, tx.shared.published_pos());
            tx.put(&schema::SERVER_STAYS, &(server, room, since), &StreamPos::MAX);
            Ok(())
        });
    }
    Ok(())
}

fn listed(row: &mut Row<'_>, room: RoomNum, server: &str, user: UserNum) -> Result<(), StorageError> {
    let listed = match row.text_num(server)? {
        Some(server) => row.reader().has(&schema::SERVER_USERS, &(room, server, user))?,
        None => false,
    };
    if !row.expect(listed, &format!("user number {} is not listed with their server", user.0)) {
        let server = server.to_owned();
        row.mend(schema::SERVER_USERS.name, move |tx| {
            let server = tx.intern_text(&server)?;
            tx.put(&schema::SERVER_USERS, &(room, server, user), &());
            Ok(())
        });
    }
    Ok(())
}
