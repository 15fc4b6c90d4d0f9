//! Rooms whose rule lets the members of other rooms in: whether a user is one of them, and who vouches for it.
//!
//! Invariant: memberships count only in rooms that this server takes part in; of others it may have an old picture, and says to another
//! server that it cannot tell. Of rooms that it has entered without their members it knows who is there, but not who is not.
//! Specification: client-server API, "Restricted rooms"; server-server API, "Restricted rooms"; room version 8.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::RoomCtx;
use crate::{
    core::{
        event::{JsonObject, Pdu},
        identifiers::server_name,
        power_levels,
        power_levels::{Field, PowerLevels},
    },
    error::Result,
    store::{Reader, StorageError, schema, schema::Membership},
};

/// The property by which a join to a restricted room names who vouches for it.
pub(crate) const AUTHORISING_USER: &str = "join_authorised_via_users_server";

/// How many rooms a rule's conditions are looked at in: far more than anybody lists.
const CONDITIONS_MAX: usize = 100;

/// What the conditions of a room's rule say to a user who wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// They are not asked: the rule has none, or the user is in the room or invited.
    NotNeeded,
    /// This user of this server, who may invite, vouches for the join.
    By(String),
    /// They are met, but no user of this server may invite.
    NobodyMayVouch,
    /// They name rooms, and this server is in none of them, or does not know all members of one; for a user of another server, which may
    /// ask others as well, if it is not in all of them.
    CannotBeTold,
    /// They are not met: the user is in none of the rooms, or there are none.
    Refused,
}

/// What the conditions of the room's rule say to the user.
pub(crate) fn admission(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<Admission> {
    let Some(join_rules) = room.state(reader, "m.room.join_rules", "")? else {
        return Ok(Admission::NotNeeded);
    };
    let join_rules = join_rules.pdu()?;
    let user = reader.user_num(user_id)?;
    let membership = match user {
        // No invite that the room does not have lets anybody in.
        Some(user) => reader.membership_in_room(user, room.num)?,
        None => None,
    };
    let is_in_or_invited = matches!(membership, Some(Membership::Join | Membership::Invite));
    if !is_restricted(room, &join_rules.content) || is_in_or_invited {
        return Ok(Admission::NotNeeded);
    }
    let own_name = &*reader.shared.server_name;
    let is_elsewhere = server_name(user_id) != Some(own_name);
    let (mut is_any_named, mut can_be_told, mut may_be_member) = (false, false, false);
    for other in rooms_of_members(&join_rules.content) {
        is_any_named = true;
        let other = match reader.room_num(other)? {
            Some(other) if reader.is_server_in_room(own_name, other)? => other,
            _ => {
                // Specification: "if the user fails all conditions" the join is refused; others may know of this one.
                may_be_member |= is_elsewhere;
                continue;
            }
        };
        let there = match user {
            Some(user) => reader.membership(user, other)?,
            None => None,
        };
        if there == Some(Membership::Join) {
            let authorising = authorising_user(reader, room)?;
            return Ok(authorising.map_or(Admission::NobodyMayVouch, Admission::By));
        }
        can_be_told = true;
        // Whoever was left out when this server joined may be a member.
        may_be_member |= reader.get(&schema::ROOM_HEADS, &other)?.is_some_and(|head| head.partial_state);
    }
    Ok(if may_be_member || (is_any_named && !can_be_told) {
        Admission::CannotBeTold
    } else {
        Admission::Refused
    })
}

fn is_restricted(room: &RoomCtx, join_rules: &JsonObject) -> bool {
    match join_rules.get("join_rule").and_then(Value::as_str) {
        Some("restricted") => room.version.restricted,
        Some("knock_restricted") => room.version.knock_restricted,
        _ => false,
    }
}

/// The rooms whose members the rule lets in.
pub(crate) fn rooms_of_members(join_rules: &JsonObject) -> impl Iterator<Item = &str> {
    let allow = join_rules.get("allow").and_then(Value::as_array).into_iter().flatten();
    allow
        .filter(|condition| condition.get("type").and_then(Value::as_str) == Some("m.room_membership"))
        .filter_map(|condition| condition.get("room_id").and_then(Value::as_str))
        .take(CONDITIONS_MAX)
}

/// A joined local user who may invite.
fn authorising_user(reader: &Reader, room: &RoomCtx) -> Result<Option<String>> {
    let Some(levels) = room.power_levels(reader)? else { return Ok(None) };
    let needed = levels.level(Field::Invite);
    // Those with a level of their own are few and the likeliest, so they are asked before all members are.
    let create = create_event(reader, room)?;
    for user_id in raised(room, create.as_deref(), &levels) {
        if levels.user_level(user_id).reaches(needed) && is_local_member(reader, room, user_id)? {
            return Ok(Some(user_id.to_owned()));
        }
    }
    let own_name = &*reader.shared.server_name;
    for user in reader.users_of_server(own_name, room.num)? {
        let user_id = reader.user_id(user)?;
        if levels.user_level(&user_id).reaches(needed) && is_local_member(reader, room, &user_id)? {
            return Ok(Some(user_id.to_string()));
        }
    }
    Ok(None)
}

/// The servers of those members who may vouch for joins because they stand above others; none where every member may. O(power levels).
pub(crate) fn vouching_servers(reader: &Reader, room: &RoomCtx) -> Result<BTreeSet<String>> {
    let mut servers = BTreeSet::new();
    let Some(levels) = room.power_levels(reader)? else { return Ok(servers) };
    let needed = levels.level(Field::Invite);
    if levels.level(Field::UsersDefault) >= needed {
        return Ok(servers);
    }
    let create = create_event(reader, room)?;
    for user_id in raised(room, create.as_deref(), &levels) {
        if let Some(server) = server_name(user_id)
            && levels.user_level(user_id).reaches(needed)
            && !servers.contains(server)
            && is_member(reader, room, user_id)?
        {
            servers.insert(server.to_owned());
        }
    }
    Ok(servers)
}

fn create_event(reader: &Reader, room: &RoomCtx) -> Result<Option<Arc<Pdu>>, StorageError> {
    room.state(reader, "m.room.create", "")?.map(|create| create.pdu()).transpose()
}

/// The users who have a level of their own.
fn raised<'a>(
    room: &'a RoomCtx,
    create: Option<&'a Pdu>,
    levels: &'a PowerLevels,
) -> impl Iterator<Item = &'a str> {
    let creators = create.into_iter().flat_map(move |create| power_levels::creators(room.version, create));
    creators.chain(levels.users().iter().map(|(user, _)| user))
}

/// Whether the user may vouch for joins: one of this server's, joined, and with the power to invite.
pub(crate) fn may_vouch(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<bool> {
    let Some(levels) = room.power_levels(reader)? else { return Ok(false) };
    Ok(levels.user_level(user_id).reaches(levels.level(Field::Invite))
        && is_local_member(reader, room, user_id)?)
}

fn is_local_member(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<bool, StorageError> {
    Ok(server_name(user_id) == Some(&*reader.shared.server_name) && is_member(reader, room, user_id)?)
}

fn is_member(reader: &Reader, room: &RoomCtx, user_id: &str) -> Result<bool, StorageError> {
    let Some(user) = reader.user_num(user_id)? else { return Ok(false) };
    Ok(reader.membership(user, room.num)? == Some(Membership::Join))
}
