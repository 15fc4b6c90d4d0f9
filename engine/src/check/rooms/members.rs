//! Members: the rows of a room's users and of a user's rooms are those of the current state, and are counted right.

use super::{EventNum, EventStatus, Members, Membership, NodeId, Pass, RoomHead, RoomNum, Row, UserNum};
use super::{StorageError, readable, schema};
use crate::{
    core::{
        event::Pdu,
        identifiers::server_name,
        num::{StateKeyId, StreamPos},
    },
    room::{RoomCtx, room_version, stripped_state},
    store::{
        Direction, Positioned,
        schema::{EventHeader, UserRoom},
    },
};

/// How many membership events are followed back to see whether somebody was ever joined.
const MEMBERSHIP_CHANGES_MAX: usize = 100;

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over_derived(&schema::MEMBERS, |row, (room, membership, user), event| {
            if row.is_going(room) {
                return Ok(());
            }
            let seen = row.reader().get(&schema::USER_ROOMS, &(user, room));
            let seen = readable(seen)?.map(|seen| seen.value);
            let outside = readable(row.reader().get(&schema::OUT_OF_BAND, &(user, room)))?;
            let agrees = match outside {
                Some(outside) => outside.in_room.is_some_and(|in_room| in_room as u8 == membership),
                None => seen.is_some_and(|seen| seen.membership as u8 == membership && seen.event == event),
            };
            if !row.expect(agrees, "the user's row of this room says something else") {
                // What the current state has was put right with the room's head.
                row.delete(&schema::MEMBERS, &(room, membership, user));
            }
            Ok(())
        }),
        Pass::over_derived(&schema::USER_ROOMS, user_room_row),
    ]
}

/// The room's row of the user says the same.
fn user_room_row(
    row: &mut Row<'_>,
    (user, room): (UserNum, RoomNum),
    seen: Positioned<UserRoom>,
) -> Result<(), StorageError> {
    row.expect_user(user)?;
    // A room that this server is not in has no rows of members.
    if row.is_going(room) || row.reader().has(&schema::OUT_OF_BAND, &(user, room))? {
        return Ok(());
    }
    let Some(head) = readable(row.reader().get(&schema::ROOM_HEADS, &room))? else { return Ok(()) };
    let key = (room, seen.value.membership as u8, user);
    let member = readable(row.reader().get(&schema::MEMBERS, &key))?;
    let agrees = member == Some(seen.value.event);
    // Whoever is no part of the current state any more has left.
    let is_out = seen.value.membership == Membership::Leave
        && member.is_none()
        && !is_in_state(row, room, head.state, user)?;
    if !row.expect(agrees || is_out, "the room's row of this user says something else") {
        // What the current state says of the user was put right with the room's head.
        let value = UserRoom { membership: Membership::Leave, stripped_state: None, ..seen.value };
        row.put(&schema::USER_ROOMS, &(user, room), &Positioned { pos: seen.pos, value });
    }
    Ok(())
}

fn is_in_state(
    row: &mut Row<'_>,
    room: RoomNum,
    snapshot: NodeId,
    user: UserNum,
) -> Result<bool, StorageError> {
    let (Some(kind), Some(user_id)) = (row.text_num("m.room.member")?, row.user_id(user)?) else {
        return Ok(false);
    };
    let Some(state_key) = row.text_num(&user_id)? else { return Ok(false) };
    // A state that is not whole is told of with the room's head.
    Ok(!super::is_whole(row, room, snapshot)?
        || row.reader().state_num_at(room, snapshot, StateKeyId::new(kind, state_key))?.is_some())
}

/// The rows of members are those of the current state, and are counted right.
pub(super) fn check(
    row: &mut Row<'_>,
    room: RoomNum,
    right: &mut RoomHead,
    head: &RoomHead,
) -> Result<(), StorageError> {
    let Some(state) = members_of_state(row, room, right.state)? else { return Ok(()) };
    for (user, (membership, event)) in &state {
        let key = (room, *membership as u8, *user);
        let problem = format!("the rows of members lack or contradict the state for user number {}", user.0);
        row.expect_row(&schema::MEMBERS, &key, event, &problem)?;
        // What another server said of a user counts until the room says something new of them.
        if !row.reader().has(&schema::OUT_OF_BAND, &(*user, room))? {
            user_room(row, room, *user, (*membership, *event))?;
        }
    }
    right.other_servers = super::servers::check(row, room, &state)?;
    row.expect(head.other_servers == right.other_servers, "the other servers are counted wrong");
    for membership in Membership::ALL {
        let mut rows = Vec::new();
        row.reader().scan(
            &schema::MEMBERS.raw(),
            &(room, membership as u8),
            Direction::Forward,
            |key: crate::store::RestOfKey, _| {
                rows.extend(key.decode::<(RoomNum, u8, UserNum)>());
                true
            },
        )?;
        for key in rows {
            if state.get(&key.2).is_none_or(|(is, _)| *is != membership) {
                row.found(format!("user number {} is a member in the rows but not in the state", key.2.0));
                row.delete(&schema::MEMBERS, &key);
            }
        }
    }
    let count = |which| state.values().filter(|(membership, _)| *membership == which).count() as u64;
    right.joined = count(Membership::Join);
    right.invited = count(Membership::Invite);
    row.expect(head.joined == right.joined, "the joined members are counted wrong");
    row.expect(head.invited == right.invited, "the invited users are counted wrong");
    Ok(())
}

/// The memberships of a state; `None` if one of its events cannot be read, so that nothing can be said.
fn members_of_state(
    row: &mut Row<'_>,
    room: RoomNum,
    snapshot: NodeId,
) -> Result<Option<Members>, StorageError> {
    let mut members = Members::new();
    let Some(kind) = row.text_num("m.room.member")? else { return Ok(Some(members)) };
    for (key, num) in row.reader().state_of_kind(room, snapshot, kind)? {
        let (header, pdu) = match event(row, num)? {
            Some(found) => found,
            None => {
                row.found(format!("the membership event number {} cannot be read", num.0));
                return Ok(None);
            }
        };
        if header.value.state_key != Some(key.state_key()) {
            continue;
        }
        let membership = pdu.membership().and_then(Membership::from_name);
        let user = pdu.state_key.as_deref().map(|user_id| row.user_num(user_id)).transpose()?.flatten();
        if let (Some(user), Some(membership)) = (user, membership) {
            members.insert(user, (membership, num));
        }
    }
    Ok(Some(members))
}

fn event(row: &Row<'_>, num: EventNum) -> Result<Option<(Positioned<EventHeader>, Pdu)>, StorageError> {
    let (Some(header), Some((id, json))) = (row.header(num)?, row.body(num)?) else { return Ok(None) };
    let pdu = Pdu::from_stored(room_version(header.value.version)?, id, json).ok();
    Ok(pdu.map(|pdu| (header, pdu)))
}

/// The user's row of the room. What it has besides the membership is kept where the row can be read.
fn user_room(
    row: &mut Row<'_>,
    room: RoomNum,
    user: UserNum,
    (membership, num): (Membership, EventNum),
) -> Result<(), StorageError> {
    let found = readable(row.reader().get(&schema::USER_ROOMS, &(user, room)))?;
    let Some(header) = row.header(num)? else { return Ok(()) };
    let agrees =
        found.as_ref().is_some_and(|found| found.value.membership == membership && found.value.event == num);
    let problem = format!("the room's row of user number {} lacks or contradicts the state", user.0);
    if row.expect(agrees, &problem) {
        return Ok(());
    }
    let known = found.map(|found| found.value);
    let ever_joined = membership == Membership::Join
        || match &known {
            Some(known) => known.ever_joined || known.membership == Membership::Join,
            None => was_ever_joined(row, &header.value)?,
        };
    let kept =
        known.as_ref().filter(|known| known.event == num).and_then(|known| known.stripped_state.clone());
    let user_id = row.user_id(user)?.unwrap_or_default();
    // Only users of this server ask for what they were shown.
    let is_asked = matches!(membership, Membership::Invite | Membership::Knock)
        && server_name(&user_id) == Some(&*row.reader().shared.server_name);
    // An event that is outside of the timeline has no position; the membership is as old as the room here.
    let is_placed = header.value.status == EventStatus::Accepted;
    let pos = if is_placed { header.pos } else { StreamPos::ZERO };
    let value = UserRoom {
        membership,
        event: num,
        forgotten: matches!(membership, Membership::Leave | Membership::Ban)
            && known.is_some_and(|known| known.forgotten),
        ever_joined,
        stripped_state: kept,
    };
    let mut value = Positioned { pos, value };
    row.mend(schema::USER_ROOMS.name, move |tx| {
        if is_asked && value.value.stripped_state.is_none() {
            value.value.stripped_state = Some(shown(tx, room, num, &header.value)?);
        }
        tx.put(&schema::USER_ROOMS, &(user, room), &value);
        Ok(())
    });
    Ok(())
}

/// What an invite or a knock showed of the room.
fn shown(
    reader: &crate::store::Reader,
    room: RoomNum,
    num: EventNum,
    header: &EventHeader,
) -> Result<Vec<u8>, StorageError> {
    let head = RoomHead {
        version: header.version,
        extremities: Vec::new(),
        depth: header.depth,
        state: header.state_after,
        joined: 0,
        invited: 0,
        other_servers: 0,
        partial_state: false,
        forked: false,
    };
    let version = room_version(header.version)?;
    let room = RoomCtx { num: room, id: reader.room_id(room)?, version, head };
    stripped_state(reader, &room, &reader.event(num)?)
}

/// Whether one of the user's memberships before was a join.
fn was_ever_joined(row: &mut Row<'_>, header: &EventHeader) -> Result<bool, StorageError> {
    let mut header = header.clone();
    for _ in 0..MEMBERSHIP_CHANGES_MAX {
        let (Some(state_key), EventStatus::Accepted) = (header.state_key, header.status) else { break };
        if !super::is_whole(row, header.room, header.state_before)? {
            break;
        }
        let key = StateKeyId::new(header.kind, state_key);
        let Some(num) = row.reader().state_num_at(header.room, header.state_before, key)? else { break };
        let Some((before, pdu)) = event(row, num)? else { break };
        if pdu.membership() == Some(Membership::Join.name()) {
            return Ok(true);
        }
        header = before.value;
    }
    Ok(false)
}
