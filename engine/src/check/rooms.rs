//! Rooms: heads, current state and members must agree.

use std::collections::BTreeMap;

use super::{Checker, Row};
use crate::{
    core::num::{EventNum, RoomNum, TextNum, UserNum},
    room::decode_body,
    store::{
        Reader, StorageError, schema,
        schema::{EventStatus, Membership, RoomHead},
    },
};

const MEMBERSHIPS: [Membership; 5] =
    [Membership::Join, Membership::Invite, Membership::Knock, Membership::Leave, Membership::Ban];

type Members = BTreeMap<UserNum, (Membership, EventNum)>;

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), StorageError> {
    checker.rows(&schema::ROOM_HEADS, |row, room, head| {
        row.reader().room_id(room)?;
        extremities(row, room, &head)?;
        state(row, room, &head)?;
        members(row, room, &head)
    })?;
    checker.rows(&schema::MEMBERS, |row, (room, membership, user), event| {
        let seen = row.reader().user_room(user, room)?.map(|seen| seen.value);
        let outside = row.reader().get(&schema::OUT_OF_BAND, &(user, room))?;
        let agrees = match outside {
            Some(outside) => outside.in_room.is_some_and(|in_room| in_room as u8 == membership),
            None => seen.is_some_and(|seen| seen.membership as u8 == membership && seen.event == event),
        };
        row.expect(agrees, "the user's row of this room says something else");
        Ok(())
    })?;
    checker.rows(&schema::USER_ROOMS, |row, (user, room), seen| {
        // A room that this server is not in has no rows of members.
        let is_outside = row.reader().has(&schema::OUT_OF_BAND, &(user, room))?;
        if row.reader().has(&schema::ROOM_HEADS, &room)? && !is_outside {
            let key = (room, seen.value.membership as u8, user);
            let member = row.reader().get(&schema::MEMBERS, &key)?;
            row.expect(member == Some(seen.value.event), "the room's row of this user says something else");
        }
        Ok(())
    })
}

fn extremities(row: &mut Row<'_, '_>, room: RoomNum, head: &RoomHead) -> Result<(), StorageError> {
    let reader = row.reader();
    row.expect(!head.extremities.is_empty(), "the room has no last event");
    for (num, id) in &head.extremities {
        let Some(header) = reader.get(&schema::EVENT_HEADERS, num)? else {
            row.found(format!("the last event {id} is not there"));
            continue;
        };
        let body = reader.get(&schema::EVENT_BODIES, num)?;
        let named = body.as_ref().and_then(decode_body).is_some_and(|(found, _)| *found == **id);
        row.expect(named, &format!("the last event {id} has another id"));
        row.expect(header.value.room == room, &format!("the last event {id} is of another room"));
        row.expect(header.value.depth <= head.depth, &format!("the last event {id} is deeper than the room"));
        if head.extremities.len() == 1 && header.value.status == EventStatus::Accepted {
            let agrees = header.value.state_after == head.state;
            row.expect(agrees, "the current state is not the one after the last event");
        }
    }
    Ok(())
}

/// The tree is whole, and each of its entries is a state event of this type and key.
fn state(row: &mut Row<'_, '_>, room: RoomNum, head: &RoomHead) -> Result<(), StorageError> {
    let reader = row.reader();
    reader.check_snapshot(room, head.state)?;
    for (key, num) in reader.state_entries(room, head.state)? {
        let header = reader.get(&schema::EVENT_HEADERS, &num)?;
        let agrees = header.is_some_and(|header| {
            let header = header.value;
            header.room == room && header.kind == key.kind() && header.state_key == Some(key.state_key())
        });
        row.expect(agrees, &format!("the state has event number {} under a key that is not its own", num.0));
    }
    Ok(())
}

/// The rows of members are those of the current state, and are counted right.
fn members(row: &mut Row<'_, '_>, room: RoomNum, head: &RoomHead) -> Result<(), StorageError> {
    let reader = row.reader();
    let mut rows = Members::new();
    for membership in MEMBERSHIPS {
        let users = reader.members(room, membership)?;
        let count = users.len() as u64;
        for (user, event) in users {
            if rows.insert(user, (membership, event)).is_some() {
                row.found(format!("user number {} has two memberships", user.0));
            }
        }
        match membership {
            Membership::Join => row.expect(head.joined == count, "the joined members are counted wrong"),
            Membership::Invite => row.expect(head.invited == count, "the invited users are counted wrong"),
            _ => {}
        }
    }
    let state = match reader.text_num("m.room.member")? {
        Some(kind) => members_of_state(reader, room, head, kind)?,
        None => Members::new(),
    };
    for (user, member) in &state {
        row.expect(
            rows.get(user) == Some(member),
            &format!("the rows of members lack or contradict the state for user number {}", user.0),
        );
    }
    for user in rows.keys().filter(|user| !state.contains_key(user)) {
        row.found(format!("user number {} is a member in the rows but not in the state", user.0));
    }
    Ok(())
}

fn members_of_state(
    reader: &Reader,
    room: RoomNum,
    head: &RoomHead,
    kind: TextNum,
) -> Result<Members, StorageError> {
    let mut members = Members::new();
    for (key, num) in reader.state_of_kind(room, head.state, kind)? {
        let pdu = reader.event(num)?.pdu()?;
        let membership = pdu.membership().and_then(Membership::from_name);
        let user = reader.user_num(&reader.text(key.state_key())?)?;
        if let (Some(user), Some(membership)) = (user, membership) {
            members.insert(user, (membership, num));
        }
    }
    Ok(members)
}
