//! Invites and knocks that users of this server have answered while it was not in the room, and of which the room tells all the
//! same: nobody there has heard the answer, because whom it was to be given to could not be reached. And invites that the room does
//! not tell of any more, because what it tells is the user's later leave.
//!
//! Invariant: what a user has declined they are not shown again. Until the answer is sent into the room, its rows of members have
//! what its state says ([`crate::store::schema::OutOfBand::in_room`]), and the user's row what they have answered.

use serde_json::Value;

use super::{
    Event, RoomCtx, append, members, membership,
    out_of_band::{self, leave_of},
    room_version, servers,
    signed_invites::has_left_since,
};
use crate::{
    core::{
        event::Pdu,
        num::{StreamPos, UserNum},
    },
    error::{Error, Result},
    store::{Tx, schema, schema::Membership},
};

/// Counts an invite or a knock that has become part of the room's state, if its user has answered it or was turned away before.
/// Returns whether they were: then they are not shown it.
pub(super) fn keep(
    tx: &mut Tx,
    room: &mut RoomCtx,
    (user, user_id): (UserNum, &str),
    event: &Event,
    membership: Membership,
    pos: StreamPos,
) -> Result<bool> {
    let Some(mut row) = tx.out_of_band(user, room.num)? else { return Ok(false) };
    let is_out = matches!(tx.membership(user, room.num)?, Some(Membership::Leave | Membership::Ban));
    if !is_out || leave_of(&row, &event.event_id)?.is_none() {
        return Ok(false);
    }
    if let Some(counted) = row.in_room {
        tx.delete(&schema::MEMBERS, &(room.num, counted as u8, user));
    }
    tx.put(&schema::MEMBERS, &(room.num, membership as u8, user), &event.num);
    members::count(room, row.in_room, Some(membership));
    servers::count(tx, room, (user, user_id), row.in_room, Some(membership), pos)?;
    row.in_room = Some(membership);
    tx.put(&schema::OUT_OF_BAND, &(user, room.num), &row);
    Ok(true)
}

/// Sends into the room, which this server has entered or come to know whole, what its users have answered before to what the state
/// still tells of. Where the room refuses that, or its policy server would have to sign it, they are rid of it here alone. What they
/// are shown and have left since ends.
/// O(this server's users in the room).
pub(crate) fn send(tx: &mut Tx, room: &mut RoomCtx) -> Result<()> {
    let own_name = tx.shared.server_name.clone();
    if !is_here(tx, room)? {
        return Ok(());
    }
    for user in tx.users_of_server(&own_name, room.num)? {
        end_left(tx, room, user)?;
        send_of(tx, room, user)?;
    }
    room.save(tx);
    Ok(())
}

/// Lets the room's state count for a user who is shown an invite that did not come with it, and of whom it has their own later leave.
/// It had that when this server went, so that entering tells of no change. While members are missing it is not known to have it.
fn end_left(tx: &mut Tx, room: &mut RoomCtx, user: UserNum) -> Result<()> {
    let Some(row) = tx.out_of_band(user, room.num)? else { return Ok(()) };
    if room.head.partial_state || tx.membership(user, room.num)? != Some(Membership::Invite) {
        return Ok(());
    }
    let version = room_version(row.version)?;
    let user_id = tx.user_id(user)?;
    let (Some(current), Ok(invite)) = (
        room.state(tx, "m.room.member", &user_id)?,
        Pdu::from_stored(version, row.event_id.as_str().into(), row.json.into()),
    ) else {
        return Ok(());
    };
    let leave = current.pdu()?;
    if has_left_since(version, &invite, &leave) {
        let pos = tx.next_position();
        members::apply(tx, room, &current, pos)?;
    }
    Ok(())
}

/// Nothing is written of a room that has come to nothing, or that this server has left meanwhile.
fn is_here(tx: &Tx, room: &RoomCtx) -> Result<bool> {
    Ok(!room.head.extremities.is_empty() && tx.is_server_in_room(&tx.shared.server_name, room.num)?)
}

/// Sends what one user has answered, of whom an event has told; the room's head is for the caller to save. Where they have answered
/// nothing it is one row that is read.
pub(crate) fn send_of(tx: &mut Tx, room: &mut RoomCtx, user: UserNum) -> Result<()> {
    let Some(row) = tx.out_of_band(user, room.num)? else { return Ok(()) };
    let user_id = tx.user_id(user)?;
    let is_own = out_of_band::sender_of(&row).is_some_and(|sender| sender == user_id);
    let is_open = matches!(row.in_room, Some(Membership::Invite | Membership::Knock));
    if !is_own || !is_open || !is_here(tx, room)? || tx.membership(user, room.num)? != Some(Membership::Leave)
    {
        return Ok(());
    }
    let Some(current) = room.state(tx, "m.room.member", &user_id)? else { return Ok(()) };
    let Some(leave) = leave_of(&row, &current.event_id)? else { return Ok(()) };
    let reason = leave.content.get("reason").and_then(Value::as_str);
    let content = membership::content(tx, &user_id, Membership::Leave, reason)?;
    let origin_server_ts = membership::sent_ms(tx, room, &user_id)?;
    match append(tx, room, membership::member_event(&user_id, &user_id, content, origin_server_ts)) {
        Ok(_) | Err(Error::Denied(_) | Error::Unsigned(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
