//! What every change of a membership has in common: its content, and what is checked besides the room's rules.
//!
//! Not here: the rows that follow from a membership event (`members`).

use serde_json::Value;

use super::{NewEvent, RoomCtx, append, presets::one};
use crate::{
    account::profile,
    core::{
        event::JsonObject,
        identifiers::{is_user_id, server_name},
        power_levels::Field,
    },
    error::{Denied, Invalid, Result},
    store::{Reader, Tx, schema::Membership},
};

/// The property by which a join to a restricted room names who vouches for it.
const AUTHORISING_USER: &str = "join_authorised_via_users_server";

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
/// Errors: [`Invalid::Identifier`] if the target is not a user; [`Denied::GuestAccess`], [`Denied::OtherServer`].
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
    }
    if matches!(membership, Some(Membership::Join | Membership::Knock)) && is_guest {
        check_guest_access(reader, room)?;
        content.insert("kind".to_owned(), "guest".into());
    }
    if membership == Some(Membership::Join) {
        authorise_restricted(reader, room, target, content)?;
    }
    Ok(())
}

/// Refuses what is not a user id.
pub(crate) fn check_user_id(what: &'static str, user_id: &str) -> Result<()> {
    if is_user_id(user_id) {
        return Ok(());
    }
    let why = format!("`{user_id}` is not a user id, which looks like @name:server");
    Err(Invalid::Identifier { what, why }.into())
}

/// Refuses users of other servers, which this server does not talk to.
pub(crate) fn check_local(reader: &Reader, user_id: &str) -> Result<()> {
    match server_name(user_id) == Some(&*reader.shared.server_name) {
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
    let Some(event) = room.state(reader, "m.room.guest_access", "")? else { return Ok(false) };
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
    let Some(join_rules) = room.state(reader, "m.room.join_rules", "")? else { return Ok(()) };
    let join_rules = join_rules.pdu()?;
    let is_restricted = match join_rules.content.get("join_rule").and_then(Value::as_str) {
        Some("restricted") => room.version.restricted,
        Some("knock_restricted") => room.version.knock_restricted,
        _ => false,
    };
    let Some(user) = reader.user_num(target)? else { return Ok(()) };
    let membership = reader.membership(user, room.num)?;
    if !is_restricted || matches!(membership, Some(Membership::Join | Membership::Invite)) {
        return Ok(());
    }
    let allow = join_rules.content.get("allow").and_then(Value::as_array).into_iter().flatten();
    for condition in allow {
        if condition.get("type").and_then(Value::as_str) != Some("m.room_membership") {
            continue;
        }
        let Some(other) = condition.get("room_id").and_then(Value::as_str) else { continue };
        let Some(other) = reader.room_num(other)? else { continue };
        if reader.membership(user, other)? == Some(Membership::Join) {
            let authorising = authorising_user(reader, room)?;
            content.extend(authorising.map(|user| (AUTHORISING_USER.to_owned(), user.into())));
            return Ok(());
        }
    }
    Ok(())
}

/// A joined local user who may invite.
fn authorising_user(reader: &Reader, room: &RoomCtx) -> Result<Option<String>> {
    let Some(levels) = room.power_levels(reader)? else { return Ok(None) };
    let needed = levels.level(Field::Invite);
    // Those with a level of their own are few and the likeliest, so they are asked before all members are.
    let create = room.state(reader, "m.room.create", "")?.map(|create| create.pdu()).transpose()?;
    let creators = create.iter().flat_map(|create| crate::core::power_levels::creators(room.version, create));
    let named = levels.users().iter().map(|entry| entry.0);
    for user_id in creators.chain(named) {
        let Some(user) = reader.user_num(user_id)? else { continue };
        if server_name(user_id) == Some(&*reader.shared.server_name)
            && levels.user_level(user_id).reaches(needed)
            && reader.membership(user, room.num)? == Some(Membership::Join)
        {
            return Ok(Some(user_id.to_owned()));
        }
    }
    for (user, _) in reader.members(room.num, Membership::Join)? {
        let user_id = reader.user_id(user)?;
        if server_name(&user_id) == Some(&*reader.shared.server_name)
            && levels.user_level(&user_id).reaches(needed)
        {
            return Ok(Some(user_id.to_string()));
        }
    }
    Ok(None)
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

/// Lets the guests of this server leave, if the room does not admit guests any more.
///
/// Specification: client-server API, "Guest Access", "Server behaviour".
pub(crate) fn remove_guests(tx: &mut Tx, room: &mut RoomCtx) -> Result<()> {
    if allows_guests(tx, room)? {
        return Ok(());
    }
    for (user, event) in tx.members(room.num, Membership::Join)? {
        let user_id = tx.user_id(user)?;
        let is_local = server_name(&user_id) == Some(&*tx.shared.server_name);
        let pdu = tx.event(event)?.pdu()?;
        if is_local && pdu.content.get("kind").and_then(Value::as_str) == Some("guest") {
            let content = content(tx, &user_id, Membership::Leave, None)?;
            let origin_server_ts = tx.shared.clock.now_ms();
            append(tx, room, member_event(&user_id, &user_id, content, origin_server_ts))?;
        }
    }
    Ok(())
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
