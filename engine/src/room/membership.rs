//! What every change of a membership has in common: its content, and what is checked besides the room's rules.
//!
//! Not here: the rows that follow from a membership event (`members`).

use serde_json::Value;

use super::{
    NewEvent, RoomCtx, append,
    presets::one,
    restricted_join::{AUTHORISING_USER, Admission, admission},
};
use crate::{
    account::{invite_permission::check_invitable, profile},
    core::{
        event::JsonObject,
        identifiers::{is_user_id, server_name},
        json::INTEGER_MAX,
        num::{NodeId, RoomNum},
    },
    error::{Conflict, Denied, Error, Invalid, Result},
    store::{Reader, StorageError, Tx, schema, schema::Membership},
};

/// The content of a membership event. Who joins, knocks or is invited is shown with their profile.
pub(crate) fn content(
    reader: &Reader,
    user_id: &str,
    membership: Membership,
    reason: Option<&str>,
) -> Result<JsonObject> {
    let mut content = one("membership", membership.name());
    if matches!(membership, Membership::Join | Membership::Invite | Membership::Knock) {
        add_profile(reader, user_id, &mut content)?;
    }
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), reason.into());
    }
    Ok(content)
}

/// Checks and completes the content of a membership event that a local user sends about `target`, before the room's
/// rules are asked.
///
/// Errors: [`Invalid::Identifier`] if the target is not a user; [`Denied::GuestAccess`], [`Denied::InvitesBlocked`];
/// [`Conflict::PartialState`] for who wants to come in, or is invited, while it is not known whether they are banned;
/// [`Denied::OtherServer`] for an invite that another server has to sign first
/// ([`crate::view::federation::MakeInvite`]).
pub(crate) fn prepare(
    reader: &Reader,
    room: &RoomCtx,
    target: &str,
    is_guest: bool,
    content: &mut JsonObject,
) -> Result<()> {
    check_user_id("user_id", target)?;
    let membership = content.get("membership").and_then(Value::as_str).and_then(Membership::from_name);
    if membership == Some(Membership::Invite) {
        check_local(reader, target)?;
        check_invite(reader, room, target)?;
    }
    if matches!(membership, Some(Membership::Join | Membership::Knock)) {
        if lacks_membership(reader, room, target)? {
            return Err(Conflict::PartialState.into());
        }
        if is_guest {
            check_guest_access(reader, room)?;
            content.insert("kind".to_owned(), "guest".into());
        }
    }
    if membership == Some(Membership::Join) {
        authorise_restricted(reader, room, target, content)?;
    }
    Ok(())
}

/// Whether the room lacks members and the user is not in it, as far as is known: another server has to say whether they may come
/// in. Letting them in until it is known would show the room to who was banned from it.
pub(crate) fn lacks_membership(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<bool, StorageError> {
    if !room.head.partial_state {
        return Ok(false);
    }
    let Some(user) = reader.user_num(user_id)? else { return Ok(true) };
    Ok(reader.membership(user, room.num)? != Some(Membership::Join))
}

/// Refuses to invite who does not want it, and who may be in the room already or banned from it: servers that know refuse the invite.
///
/// Errors: [`Denied::InvitesBlocked`]; [`Conflict::PartialState`].
pub(crate) fn check_invite(reader: &Reader, room: &RoomCtx, target: &str) -> Result<()> {
    check_invitable(reader, target)?;
    match is_unknown(reader, room, target)? {
        true => Err(Conflict::PartialState.into()),
        false => Ok(()),
    }
}

/// Whether the room lacks members, and that of the user may be among them: they may be in the room, or banned from it.
pub(crate) fn is_unknown(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<bool, StorageError> {
    Ok(room.head.partial_state && room.state(reader, "m.room.member", user_id)?.is_none())
}

/// When an event is sent that replaces the membership event of `target`, in milliseconds since the epoch: now, but later than one
/// of this server even if its clock has been set back since. Where the room is forked, the later one counts.
///
/// Specification: room version 2, "State resolution", "Mainline ordering".
pub(crate) fn sent_ms(reader: &Reader, room: &RoomCtx, target: &str) -> Result<u64> {
    let now_ms = reader.shared.clock.now_ms();
    let Some(last) = room.state(reader, "m.room.member", target)? else { return Ok(now_ms) };
    let last = last.pdu()?;
    if server_name(&last.sender) != Some(&*reader.shared.server_name) {
        return Ok(now_ms);
    }
    Ok(now_ms.max(last.origin_server_ts.saturating_add(1).min(INTEGER_MAX.unsigned_abs())))
}

/// Refuses what is not a user id.
pub(crate) fn check_user_id(what: &'static str, user_id: &str) -> Result<()> {
    if is_user_id(user_id) {
        return Ok(());
    }
    let why = format!("`{user_id}` is not a user id, which looks like @name:server");
    Err(Invalid::Identifier { what, why }.into())
}

/// Refuses users and aliases of other servers.
pub(crate) fn check_local(reader: &Reader, id: &str) -> Result<()> {
    match server_name(id) == Some(&*reader.shared.server_name) {
        true => Ok(()),
        false => Err(Denied::OtherServer.into()),
    }
}

/// Specification: client-server API, "Guest Access", "Server behaviour".
fn check_guest_access(reader: &Reader, room: &RoomCtx) -> Result<()> {
    match allows_guests(reader, room)? {
        true => Ok(()),
        false => Err(Denied::GuestAccess.into()),
    }
}

/// Whether guests may be in the room.
pub(crate) fn allows_guests(reader: &Reader, room: &RoomCtx) -> Result<bool> {
    allowed_guests(reader, room.num, room.head.state)
}

/// Whether guests may be in the room when this is its state.
pub(crate) fn allowed_guests(reader: &Reader, room: RoomNum, state: NodeId) -> Result<bool> {
    let Some(event) = reader.state_event(room, state, "m.room.guest_access", "")? else { return Ok(false) };
    Ok(event.pdu()?.content.get("guest_access").and_then(Value::as_str) == Some("can_join"))
}

/// Names a user who vouches for the join, where the room's rule is that members of other rooms may join and the user is
/// one of them.
///
/// Specification: client-server API, "Restricted rooms"; room version 8, authorisation rules.
fn authorise_restricted(
    reader: &Reader,
    room: &RoomCtx,
    target: &str,
    content: &mut JsonObject,
) -> Result<()> {
    content.remove(AUTHORISING_USER);
    if let Admission::By(user) = admission(reader, room, target)? {
        content.insert(AUTHORISING_USER.to_owned(), user.into());
    }
    Ok(())
}

/// Adds what a user shows of themselves.
fn add_profile(reader: &Reader, user_id: &str, content: &mut JsonObject) -> Result<()> {
    let Some(user) = reader.user_num(user_id)? else { return Ok(()) };
    for name in [profile::DISPLAY_NAME, profile::AVATAR_URL] {
        if let Some(text) = profile::text(reader, user, name)? {
            content.insert(name.to_owned(), text.into());
        }
    }
    Ok(())
}

/// Lets guests of this server leave, if the room does not admit guests any more: `count_max` of them. Answers how many left.
/// O(this server's users in the room).
///
/// Specification: client-server API, "Guest Access", "Server behaviour".
pub(crate) fn remove_guests(tx: &mut Tx, room: &mut RoomCtx, count_max: usize) -> Result<usize> {
    let mut removed = 0;
    if allows_guests(tx, room)? {
        return Ok(removed);
    }
    let own_name = tx.shared.server_name.clone();
    for user in tx.users_of_server(&own_name, room.num)? {
        if removed == count_max {
            break;
        }
        // The account knows, not the event: its user may have become more than a guest since.
        let is_guest = tx.get(&schema::ACCOUNTS, &user)?.is_some_and(|account| account.is_guest);
        if !is_guest || tx.membership(user, room.num)? != Some(Membership::Join) {
            continue;
        }
        let user_id = tx.user_id(user)?;
        let content = content(tx, &user_id, Membership::Leave, None)?;
        let origin_server_ts = sent_ms(tx, room, &user_id)?;
        match append(tx, room, member_event(&user_id, &user_id, content, origin_server_ts)) {
            Ok(_) => removed += 1,
            // In a room of very many ends, those that the event would follow may not know of the join.
            Err(Error::Denied(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Lets the guests of this server leave, if events of other servers have ended that the room allows guests, which it did before
/// them if it `allowed` them. Nothing keeps those events from coming in: answers whether the guests stay until the room's policy
/// server has signed that they leave.
pub(crate) fn follow_guest_access(tx: &mut Tx, room: &mut RoomCtx, allowed: bool) -> Result<bool> {
    // Of a room that has come to nothing, nothing is written.
    if !allowed || room.head.extremities.is_empty() || allows_guests(tx, room)? {
        return Ok(false);
    }
    let stay = shut_out_guests(tx, room)?;
    room.save(tx);
    Ok(stay)
}

/// Lets all guests of this server leave, if the room does not admit guests any more. Answers whether they stay until the room's
/// policy server has signed that they leave, one after the other: what closes the room does not wait for that.
pub(crate) fn shut_out_guests(tx: &mut Tx, room: &mut RoomCtx) -> Result<bool> {
    match remove_guests(tx, room, usize::MAX) {
        Ok(_) => Ok(false),
        Err(Error::Unsigned(_)) => {
            tx.put(&schema::GUESTS_TO_REMOVE, &room.num, &());
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// A membership event about `target`.
pub(crate) fn member_event<'e>(
    sender: &'e str,
    target: &'e str,
    content: JsonObject,
    origin_server_ts: u64,
) -> NewEvent<'e> {
    NewEvent {
        sender,
        kind: "m.room.member",
        state_key: Some(target),
        content,
        redacts: None,
        origin_server_ts,
        transaction: None,
    }
}
