//! Invites of local users that this server has signed while it is in the room, until the room's own events tell of them.
//!
//! Invariant: while this server is in a room, its events alone say who is invited. What was signed meanwhile and has not come
//! is kept, because nobody sends the room's events any more once the last local user has left: then it is shown as any other
//! invite to a room that this server is not in. So it is if its event does not come for a while: others may have turned the last
//! local user out, and what told so may be lost. That the user has left or was turned out before nobody proves, so that who is in
//! the room, as far as is known here, is shown nothing; if they ask to come in, who invites is asked to let them in (`WayIntoRoom`).

use std::sync::Arc;

use super::{
    RoomCtx,
    out_of_band::{Notice, check_open_invites, leave_of, note},
    room_version,
};
use crate::{
    account::{invite_permission::blocks_invites, users},
    core::{
        event::Pdu,
        num::{RoomNum, UserNum},
        version::{RoomVersion, StateResolution},
    },
    error::{Denied, Error, Result},
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{EventStatus, Membership, SignedInvite},
    },
};

/// How long an invite's event may take to come with the room's own, in milliseconds: the server that invites sends it as soon as it
/// has the signature, and one that is busy needs some seconds for that.
const AWAITED_MS: u64 = 10 * 1000;

/// How many are shown at once, a transaction each: in a round of some seconds there is hardly ever one, and other servers can have as
/// many wait as this one has users.
pub(crate) const SHOWN_AT_ONCE_MAX: usize = 100;

/// How many whose events do not come are looked at for those: some milliseconds. Those of users who are in the room are not shown.
const LOOKED_AT_MAX: usize = 1000;

/// Keeps an invite until its event comes; not one before another that is kept, nor one that the user was shown without the room's
/// events, or has answered. Who is in the room, as far as is known here, may have been turned out before they were invited, which is
/// still to come.
pub(crate) fn keep(tx: &mut Tx, user: UserNum, room: RoomNum, invite: &SignedInvite) -> Result<()> {
    let pdu = read(invite)?;
    if let Some(row) = tx.out_of_band(user, room)?
        && (*row.event_id == *pdu.event_id || leave_of(&row, &pdu.event_id)?.is_some())
    {
        return Ok(());
    }
    let known = tx.get(&schema::SIGNED_INVITES, &(room, user))?.map(|known| read(&known)).transpose()?;
    let is_overtaken = known.is_some_and(|known| known.depth > pdu.depth);
    if !is_overtaken {
        tx.put(&schema::SIGNED_INVITES, &(room, user), invite);
    }
    Ok(())
}

/// Forgets the invite that a user's membership event is, answers or comes after, be it on another end of the graph. Another join of
/// who `was_joined` before answers nothing: what turns them out before they are invited is still to come. O(1).
pub(super) fn forget(tx: &mut Tx, user: UserNum, room: RoomNum, event: &Pdu, was_joined: bool) -> Result<()> {
    let Some(known) = tx.get(&schema::SIGNED_INVITES, &(room, user))? else { return Ok(()) };
    let invite = read(&known)?;
    let is_answer = event.membership() == Some(Membership::Join.name()) && !was_joined;
    let is_over = invite.depth <= event.depth || has_left_since(room_version(known.version)?, &invite, event);
    if is_answer || is_over {
        tx.delete(&schema::SIGNED_INVITES, &(room, user));
    }
    Ok(())
}

/// Whether an event is the user's own leave and counts in the room, though it may stand beside the invite, on another end of the graph,
/// and be less deep. Both are allowed, and of two such the later one counts.
///
/// Specification: room version 2, "State resolution", "Mainline ordering". In version 1 the deeper one counts.
pub(super) fn has_left_since(version: &RoomVersion, invite: &Pdu, event: &Pdu) -> bool {
    version.state_resolution != StateResolution::V1
        && event.membership() == Some(Membership::Leave.name())
        && event.state_key.as_deref() == Some(&*event.sender)
        && event.origin_server_ts >= invite.origin_server_ts
        // One that was made since names the leave.
        && !invite.auth_events.contains(&event.event_id)
}

/// Shows the invites whose events will not come any more, if this server is in the room no longer. O(invites kept), and for each
/// O(its user's rooms).
pub(super) fn show_if_left(tx: &mut Tx, room: &RoomCtx) -> Result<()> {
    if tx.is_server_in_room(&tx.shared.server_name, room.num)? {
        return Ok(());
    }
    let mut kept = Vec::new();
    tx.scan(
        &schema::SIGNED_INVITES,
        &room.num,
        Direction::Forward,
        |(_, user): (RoomNum, UserNum), invite| {
            kept.push((user, invite));
            true
        },
    )?;
    for (user, invite) in kept {
        match show(tx, user, room.num, invite) {
            // It stays with those whose events do not come, which are looked at again and again.
            Err(Error::Denied(Denied::TooManyInvites)) => {}
            shown => shown?,
        }
    }
    Ok(())
}

/// Shows a user an invite, instead of keeping it. Who has closed their account since, or wants no invites any more, is not shown it later
/// either.
///
/// Errors: [`Denied::TooManyInvites`]. It is kept then, and may be shown when the user has answered others.
pub(crate) fn show(tx: &mut Tx, user: UserNum, room: RoomNum, invite: SignedInvite) -> Result<()> {
    let pdu = read(&invite)?;
    let is_open = users::account(tx, user)?.is_some_and(|account| !account.is_deactivated);
    // Or the room has judged it, and what it says of the user counts.
    if !is_open || blocks_invites(tx, user)? || is_judged(tx, &pdu.event_id)? {
        discard(tx, user, room);
        return Ok(());
    }
    check_open_invites(tx, (user, room), (&invite.server, &pdu.sender))?;
    discard(tx, user, room);
    let notice = Notice {
        version: room_version(invite.version)?,
        pdu: &pdu,
        membership: Membership::Invite,
        stripped_state: Some(invite.stripped_state),
        servers: vec![invite.server],
    };
    note(tx, user, room, notice)
}

/// Keeps the invite no longer, if there is one.
pub(crate) fn discard(tx: &mut Tx, user: UserNum, room: RoomNum) {
    tx.delete(&schema::SIGNED_INVITES, &(room, user));
}

/// The invite of a user that is kept, if there is one. O(1).
pub(crate) fn kept(
    reader: &Reader,
    user: UserNum,
    room: RoomNum,
) -> Result<Option<SignedInvite>, StorageError> {
    reader.get(&schema::SIGNED_INVITES, &(room, user))
}

/// The same if its event should have come by now, and its user is neither in the room, nor shown an invite to it, nor banned.
pub(crate) fn unseen_of(reader: &Reader, user: UserNum, room: RoomNum) -> Result<Option<SignedInvite>> {
    let overdue = kept(reader, user, room)?.filter(|invite| is_overdue(reader, invite));
    match overdue.is_some() && is_unseen(reader, user, room)? {
        true => Ok(overdue),
        false => Ok(None),
    }
}

/// Some of those for whom there is such an invite.
pub(crate) struct Unseen {
    /// The room, the user and who invites them.
    pub invites: Vec<(RoomNum, UserNum, Arc<str>)>,
    /// Behind which there may be more.
    pub last: Option<(RoomNum, UserNum)>,
}

/// The next of those for whom there is such an invite, behind one or from the first on. O([`LOOKED_AT_MAX`]), and what is not overdue yet.
pub(crate) fn unseen(reader: &Reader, after: Option<(RoomNum, UserNum)>) -> Result<Unseen> {
    let next = |(room, user): (RoomNum, UserNum)| (room, UserNum(user.0.saturating_add(1)));
    let from = after.map_or((RoomNum(0), UserNum(0)), next);
    let mut overdue = Vec::new();
    reader.scan_between(
        &schema::SIGNED_INVITES,
        &from,
        &RoomNum(u64::MAX),
        Direction::Forward,
        |row: (RoomNum, UserNum), invite| {
            if is_overdue(reader, &invite) {
                overdue.push(row);
            }
            overdue.len() < LOOKED_AT_MAX
        },
    )?;
    let last = overdue.last().copied().filter(|_| overdue.len() >= LOOKED_AT_MAX);
    let mut unseen = Unseen { invites: Vec::new(), last };
    for (room, user) in overdue {
        if is_unseen(reader, user, room)?
            && let Some(invite) = kept(reader, user, room)?
            // What cannot be read keeps no other from being shown; a check tells of it.
            && let Ok(sender) = sender(&invite)
        {
            unseen.invites.push((room, user, sender));
        }
        if unseen.invites.len() >= SHOWN_AT_ONCE_MAX {
            unseen.last = Some((room, user));
            break;
        }
    }
    Ok(unseen)
}

/// Whether a user is neither in the room nor shown an invite to it, nor banned: anybody could have made up the invite, and who is banned,
/// as far as is known here, is told nothing else by it.
fn is_unseen(reader: &Reader, user: UserNum, room: RoomNum) -> Result<bool> {
    let is_seen = matches!(reader.membership(user, room)?, Some(Membership::Join | Membership::Invite));
    Ok(!is_seen && reader.membership_in_room(user, room)? != Some(Membership::Ban))
}

fn is_overdue(reader: &Reader, invite: &SignedInvite) -> bool {
    invite.since_ms.saturating_add(AWAITED_MS) <= reader.shared.clock.now_ms()
}

/// Who sends an invite.
fn sender(invite: &SignedInvite) -> Result<Arc<str>> {
    Ok(read(invite)?.sender)
}

/// Whether an event has come, and not only as part of what others tell of a state.
pub(crate) fn is_judged(reader: &Reader, event_id: &str) -> Result<bool> {
    let Some(num) = reader.event_num(event_id)? else { return Ok(false) };
    Ok(reader.event(num)?.header.status != EventStatus::Outlier)
}

fn read(invite: &SignedInvite) -> Result<Pdu> {
    let corrupt = |error| StorageError::Corrupt(format!("an invite that was signed: {error}"));
    Ok(Pdu::parse(room_version(invite.version)?, &invite.json).map_err(corrupt)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BOB: &str = "@bob:here.example";

    fn member(version: &RoomVersion, sender: &str, membership: &str, sent_ms: u64, auth: &[&str]) -> Pdu {
        let json = json!({
            "type": "m.room.member", "state_key": BOB, "sender": sender, "room_id": "!room:there.example", "depth": 5,
            "content": {"membership": membership}, "prev_events": [], "auth_events": auth, "origin_server_ts": sent_ms,
            "hashes": {"sha256": ""}, "signatures": {}
        });
        Pdu::parse(version, &bytes::Bytes::from(json.to_string())).unwrap()
    }

    #[test]
    fn who_is_invited_again_has_not_left_since_by_the_leave_that_the_invite_names() {
        let version = RoomVersion::get("10").unwrap();
        let leave = |sent_ms: u64| member(version, BOB, "leave", sent_ms, &[]);
        let invite = |auth: &[&str]| member(version, "@alice:there.example", "invite", 10, auth);
        // The clock of the user's server is ahead, or is not.
        for (sent_ms, is_later) in [(9, false), (10, true), (20, true)] {
            let left = leave(sent_ms);
            assert_eq!(has_left_since(version, &invite(&[]), &left), is_later, "{sent_ms}");
            assert!(!has_left_since(version, &invite(&[&left.event_id]), &left), "{sent_ms}");
            // Another leave was answered by it.
            let other = leave(1);
            assert_eq!(has_left_since(version, &invite(&[&other.event_id]), &left), is_later, "{sent_ms}");
        }
        let kick = member(version, "@alice:there.example", "leave", 20, &[]);
        assert!(
            !has_left_since(version, &invite(&[]), &kick),
            "nobody is rid of an invite by another's word"
        );
    }
}
