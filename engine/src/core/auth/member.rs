//! The rules about `m.room.member`: joining, inviting, leaving, kicking, banning and knocking.
//!
//! Comments number the rules as room version 11 does (rule 4).

use serde_json::Value;

use super::denied::Reason;
use super::rules::{Context, allow_if};
use super::{AuthState, third_party};
use crate::core::event::Pdu;
use crate::core::identifiers::{is_user_id, server_name};
use crate::core::membership::Membership;
use crate::core::power_levels::{Field, creators};
use crate::core::version::RoomVersion;

/// The property by which a join names the user who vouches for it.
pub(super) const AUTHORISING_USER: &str = "join_authorised_via_users_server";

/// The server that must have signed `event` besides its sender's: that of the user who vouches for a join to a
/// restricted room (rule 4.2.1, which is checked with the other signatures). `None` where none is needed.
pub fn authorising_server<'a>(version: &RoomVersion, event: &'a Pdu) -> Option<&'a str> {
    if !version.restricted || &*event.kind != "m.room.member" {
        return None;
    }
    event.content.get(AUTHORISING_USER).and_then(Value::as_str).and_then(server_name)
}

pub(super) fn check<S: AuthState>(context: &Context<'_, S>) -> Result<(), Reason> {
    let Context { version, event, .. } = *context;
    // 4.1
    let stated = &context.stated;
    if !stated.has_state_key || !stated.has_membership {
        return Err(Reason::MemberFormat);
    }
    // 4.2.1: a value that names no server cannot have been signed by it.
    if version.restricted
        && stated.is_vouched_for
        && !event.content.get(AUTHORISING_USER).is_none_or(|user| user.as_str().is_some_and(is_user_id))
    {
        return Err(Reason::MemberAuthorisingUser);
    }
    let target = || event.state_key.as_deref().unwrap_or_default();
    match stated.membership {
        Some(Membership::Join) => check_join(context),
        Some(Membership::Invite) => check_invite(context, target()),
        Some(Membership::Leave) => check_leave(context, target()),
        Some(Membership::Ban) => check_ban(context, target()),
        Some(Membership::Knock) if version.knock => check_knock(context),
        // 4.8
        _ => Err(Reason::MembershipUnknown),
    }
}

/// Rule 4.3.
fn check_join<S: AuthState>(context: &Context<'_, S>) -> Result<(), Reason> {
    let Context { version, event, create, state, .. } = *context;
    // 4.3.1
    let only_prev_is_create = || matches!(event.prev_events.as_slice(), [only] if *only == create.event_id);
    if creators(version, create).next().is_some_and(|creator| state.is_about(event, creator))
        && only_prev_is_create()
    {
        return Ok(());
    }
    // 4.3.2
    if !context.stated.is_about_sender {
        return Err(Reason::JoinSender);
    }
    let current = state.target_membership(event);
    // 4.3.3
    if current == Some(Membership::Ban) {
        return Err(Reason::JoinBanned);
    }
    let invited_or_joined = matches!(current, Some(Membership::Invite | Membership::Join));
    with_join_rule(context, |join_rule| match join_rule {
        // 4.3.4
        "invite" => allow_if(invited_or_joined, Reason::JoinRule),
        "knock" => allow_if(version.knock && invited_or_joined, Reason::JoinRule),
        // 4.3.5
        _ if is_restricted(version, join_rule) => {
            allow_if(invited_or_joined || is_authorised(context), Reason::JoinRestricted)
        }
        // 4.3.6
        "public" => Ok(()),
        // 4.3.7
        _ => Err(Reason::JoinRule),
    })
}

fn is_restricted(version: &RoomVersion, join_rule: &str) -> bool {
    (version.restricted && join_rule == "restricted")
        || (version.knock_restricted && join_rule == "knock_restricted")
}

/// 4.3.5.2: the user who vouches is joined and may invite.
fn is_authorised<S: AuthState>(context: &Context<'_, S>) -> bool {
    let Some(user) = context.event.content.get(AUTHORISING_USER).and_then(Value::as_str) else {
        return false;
    };
    let power_levels = context.power_levels;
    context.state.membership(user) == Some(Membership::Join)
        && power_levels.user_level(user).reaches(power_levels.level(Field::Invite))
}

/// Rule 4.4.
fn check_invite<S: AuthState>(context: &Context<'_, S>, target: &str) -> Result<(), Reason> {
    let Context { event, state, power_levels, .. } = *context;
    let current = state.target_membership(event);
    // 4.4.1
    if let Some(invite) = event.content.get("third_party_invite") {
        // 4.4.1.1
        if current == Some(Membership::Ban) {
            return Err(Reason::ThirdPartyBanned);
        }
        return third_party::check(event, target, invite, state);
    }
    // 4.4.2
    if !context.is_sender_joined() {
        return Err(Reason::InviteSender);
    }
    // 4.4.3
    if matches!(current, Some(Membership::Join | Membership::Ban)) {
        return Err(Reason::InviteTarget);
    }
    // 4.4.4 and 4.4.5
    allow_if(context.sender_level().reaches(power_levels.level(Field::Invite)), Reason::InviteLevel)
}

/// Rule 4.5.
fn check_leave<S: AuthState>(context: &Context<'_, S>, target: &str) -> Result<(), Reason> {
    let Context { version, event, power_levels, .. } = *context;
    let current = context.state.target_membership(event);
    // 4.5.1
    if context.stated.is_about_sender {
        let there = match current {
            Some(Membership::Invite | Membership::Join) => true,
            Some(Membership::Knock) => version.knock,
            _ => false,
        };
        return allow_if(there, Reason::LeaveNotThere);
    }
    // 4.5.2
    if !context.is_sender_joined() {
        return Err(Reason::LeaveSender);
    }
    let sender_level = context.sender_level();
    // 4.5.3
    if current == Some(Membership::Ban) && !sender_level.reaches(power_levels.level(Field::Ban)) {
        return Err(Reason::UnbanLevel);
    }
    // 4.5.4 and 4.5.5
    let allowed = sender_level.reaches(power_levels.level(Field::Kick))
        && power_levels.user_level(target) < sender_level;
    allow_if(allowed, Reason::KickLevel)
}

/// Rule 4.6.
fn check_ban<S: AuthState>(context: &Context<'_, S>, target: &str) -> Result<(), Reason> {
    let power_levels = context.power_levels;
    // 4.6.1
    if !context.is_sender_joined() {
        return Err(Reason::BanSender);
    }
    // 4.6.2 and 4.6.3
    let sender_level = context.sender_level();
    let allowed = sender_level.reaches(power_levels.level(Field::Ban))
        && power_levels.user_level(target) < sender_level;
    allow_if(allowed, Reason::BanLevel)
}

/// Rule 4.7.
fn check_knock<S: AuthState>(context: &Context<'_, S>) -> Result<(), Reason> {
    let Context { version, event, .. } = *context;
    // 4.7.1
    let allows_knocking = |join_rule: &str| {
        join_rule == "knock" || (version.knock_restricted && join_rule == "knock_restricted")
    };
    if !with_join_rule(context, allows_knocking) {
        return Err(Reason::KnockRule);
    }
    // 4.7.2
    if !context.stated.is_about_sender {
        return Err(Reason::KnockSender);
    }
    // 4.7.3 and 4.7.4
    let current = context.state.target_membership(event);
    allow_if(
        !matches!(current, Some(Membership::Ban | Membership::Invite | Membership::Join)),
        Reason::KnockMembership,
    )
}

/// What `decide` says of the room's join rule; `invite` where the room has none ("m.room.join_rules").
fn with_join_rule<S: AuthState, T>(context: &Context<'_, S>, decide: impl FnOnce(&str) -> T) -> T {
    let event = context.state.get("m.room.join_rules", "");
    let join_rule = event.as_deref().and_then(|event| event.content.get("join_rule")).and_then(Value::as_str);
    decide(join_rule.unwrap_or("invite"))
}
