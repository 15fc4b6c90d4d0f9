//! Invites of whomever an identity server has found to be behind an address.
//!
//! Invariant: what the identity server has signed stands in the room for good, where everybody finds it and can show it again. So it makes an
//! invite of who is neither in the room nor invited, in the name of a member, and nothing else: the room's rules would let it turn a
//! member out.
//! Not here: whether it is rightly signed, and for this user, which the room's rules say (`core::auth`).

use super::RoomCtx;
use crate::{
    error::{Conflict, Denied, Result},
    store::{Reader, schema::Membership},
};

/// Refuses an invite by an address that nobody wants any more.
///
/// Errors: [`Denied::NotInRoom`] for a sender who is not in the room; [`Denied::TargetInRoom`]; [`Conflict::AlreadyInvited`].
pub(crate) fn check_is_wanted(reader: &Reader, room: &RoomCtx, (sender, target): (&str, &str)) -> Result<()> {
    if membership(reader, room, sender)? != Some(Membership::Join) {
        return Err(Denied::NotInRoom.into());
    }
    match membership(reader, room, target)? {
        Some(Membership::Join) => Err(Denied::TargetInRoom.into()),
        // Whichever invite it is: of two that belong to the same user one could be shown after the other without end.
        Some(Membership::Invite) => Err(Conflict::AlreadyInvited.into()),
        // Who is banned is refused by the room's rules.
        Some(Membership::Leave | Membership::Ban | Membership::Knock) | None => Ok(()),
    }
}

fn membership(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<Option<Membership>> {
    let Some(event) = room.state(reader, "m.room.member", user_id)? else { return Ok(None) };
    Ok(event.pdu()?.membership().and_then(Membership::from_name))
}
