//! The authorisation rules in their order, save those about the `auth_events` list (`auth_events_list`).
//!
//! Comments number the rules as room version 11 does; `denied` has the numbers of the others.

use std::sync::Arc;

use serde_json::Value;

use super::denied::{Denied, Reason};
use super::stated::{Kind, Stated};
use super::{AuthState, member, power, redaction};
use crate::core::event::{JsonObject, Pdu};
use crate::core::identifiers::{is_user_id, server_name};
use crate::core::membership::Membership;
use crate::core::power_levels::{Field, Level, PowerLevels};
use crate::core::version::RoomVersion;

/// Whether `event` is allowed by `state` in a room of `version`.
///
/// # Errors
/// The first rule that rejects the event.
pub fn check(version: &RoomVersion, event: &Pdu, state: &impl AuthState) -> Result<(), Denied> {
    check_rules(version, event, state).map_err(|reason| Denied::new(version, reason))
}

/// What every group of rules asks for: the event, the state, and what was read of the state already.
pub(super) struct Context<'a, S> {
    pub version: &'a RoomVersion,
    pub event: &'a Pdu,
    pub state: &'a S,
    pub stated: Stated,
    pub create: &'a Pdu,
    pub power_levels: &'a PowerLevels,
}

impl<S: AuthState> Context<'_, S> {
    pub fn is_sender_joined(&self) -> bool {
        self.state.sender_membership(self.event) == Some(Membership::Join)
    }

    pub fn sender_level(&self) -> Level {
        self.state.sender_level(self.event, self.power_levels)
    }
}

fn check_rules(version: &RoomVersion, event: &Pdu, state: &impl AuthState) -> Result<(), Reason> {
    let stated = state.stated(event);
    // 1. Creation.
    if stated.kind == Kind::Create {
        return check_create(version, event);
    }
    // 2.4; in version 12 rule 2: the room id is the create event's id.
    let create: Arc<Pdu> = state.get("m.room.create", "").ok_or(Reason::CreateMissing)?;
    if version.room_id_is_create_hash && event.room_id.strip_prefix('!') != create.event_id.strip_prefix('$')
    {
        return Err(Reason::CreateMissing);
    }
    // 3. A room that is not federated.
    if create.content.get("m.federate") == Some(&Value::Bool(false))
        && server_name(&event.sender) != server_name(&create.sender)
    {
        return Err(Reason::NotFederated);
    }
    // 4 of versions 1 to 5.
    if version.special_aliases && stated.kind == Kind::Aliases {
        let state_key = event.state_key.as_deref().ok_or(Reason::AliasesStateKey)?;
        return allow_if(server_name(&event.sender) == Some(state_key), Reason::AliasesDomain);
    }
    let power_levels = state.power_levels(version).ok_or(Reason::CreateMissing)?;
    let context = Context { version, event, state, stated, create: &create, power_levels: &power_levels };
    // 4. Membership.
    if stated.kind == Kind::Member {
        return member::check(&context);
    }
    // 5. Only members send.
    if !context.is_sender_joined() {
        return Err(Reason::SenderNotJoined);
    }
    let level = context.sender_level();
    // 6. Third-party invites.
    if stated.kind == Kind::ThirdPartyInvite {
        return allow_if(level.reaches(power_levels.level(Field::Invite)), Reason::ThirdPartyInviteLevel);
    }
    // 7. The level that the event's type asks for.
    if !level.reaches(power_levels.required(&event.kind, event.state_key.is_some())) {
        return Err(Reason::RequiredLevel);
    }
    // 8. State that belongs to a user.
    if !stated.is_about_sender && event.state_key.as_deref().is_some_and(|key| key.starts_with('@')) {
        return Err(Reason::StateKeyUser);
    }
    // 9. Power levels.
    if stated.kind == Kind::PowerLevels {
        return power::check(&context);
    }
    // 11 of versions 1 and 2.
    if version.redaction_auth_rule && stated.kind == Kind::Redaction {
        return redaction::check(&context);
    }
    // 10. Everything else is allowed.
    Ok(())
}

/// Rule 1 and its parts.
fn check_create(version: &RoomVersion, event: &Pdu) -> Result<(), Reason> {
    // 1.1
    if !event.prev_events.is_empty() {
        return Err(Reason::CreatePrevEvents);
    }
    // 1.2
    if version.room_id_is_create_hash {
        let json: Option<JsonObject> = serde_json::from_slice(&event.json).ok();
        if json.is_none_or(|json| json.contains_key("room_id")) {
            return Err(Reason::CreateRoomId);
        }
    } else if server_name(&event.room_id) != server_name(&event.sender) {
        return Err(Reason::CreateRoomDomain);
    }
    // 1.3
    let known = |id: &Value| id.as_str().is_some_and(|id| RoomVersion::get(id).is_some());
    if !event.content.get("room_version").is_none_or(known) {
        return Err(Reason::CreateRoomVersion);
    }
    // 1.4 of versions 1 to 10.
    if version.creator_in_content && !event.content.contains_key("creator") {
        return Err(Reason::CreateCreator);
    }
    // 1.4 of version 12.
    if version.privileged_creators {
        let is_user = |user: &Value| user.as_str().is_some_and(is_user_id);
        let are_users = |users: &Value| users.as_array().is_some_and(|users| users.iter().all(is_user));
        return allow_if(
            event.content.get("additional_creators").is_none_or(are_users),
            Reason::CreateAdditionalCreators,
        );
    }
    Ok(())
}

/// Allows if `allowed`, else rejects for `reason`.
pub(super) fn allow_if(allowed: bool, reason: Reason) -> Result<(), Reason> {
    if allowed { Ok(()) } else { Err(reason) }
}
