//! What the topics about membership share: the body, the room that is named, the command, and who helps where this server is
//! not in the room.

use http::StatusCode;
use serde::Deserialize;
use warren_engine::approach::Change;
use warren_engine::command::{ChangeMembership, MembershipAction};
use warren_engine::core::identifiers;
use warren_engine::view::federation::{Way, WayIntoRoom};
use warren_engine::view::{AwaitedMembers, Whose};
use warren_engine::{Conflict, Error};

use crate::context::Context;
use crate::federation::out::complete::until_known;
use crate::federation::out::flights::Flight;
use crate::federation::out::policy;
use crate::federation::out::queries::room_of_alias;
use crate::http::{ApiError, Call};

/// Servers by which a client may ask to be let in.
const VIA_MAX: usize = 20;

/// The body of a change of the asker's own membership.
#[derive(Default, Deserialize)]
pub struct Own {
    pub reason: Option<String>,
    pub third_party_signed: Option<serde_json::Value>,
}

/// The body of a change of another user's membership.
#[derive(Deserialize)]
pub struct OfOther {
    pub user_id: String,
    pub reason: Option<String>,
}

/// A room that is named, and the servers that may help with it.
pub struct Target {
    pub room_id: String,
    pub servers: Vec<String>,
}

/// Whether a user is of this server.
pub fn is_local(ctx: &Context, user_id: &str) -> bool {
    identifiers::server_name(user_id) == Some(ctx.engine.server_name())
}

/// The room that `roomId` in the path names.
pub fn room_id(call: &Call) -> Result<String, ApiError> {
    let room_id = call.path("roomId")?;
    match room_id.starts_with('!') {
        true => Ok(room_id.into_owned()),
        false => Err(ApiError::invalid_param("A room id begins with an exclamation mark")),
    }
}

/// The room that `roomIdOrAlias` in the path names, with the servers that an alias or the query names.
pub async fn target(call: &Call) -> Result<Target, ApiError> {
    let name = call.path("roomIdOrAlias")?.into_owned();
    let mut servers = via(call)?;
    match name.chars().next() {
        Some('!') => Ok(Target { room_id: name, servers }),
        Some('#') => {
            let (room_id, known) = room_of_alias(&call.ctx, &call.asker(), &name).await?;
            servers.extend(known);
            Ok(Target { room_id, servers })
        }
        _ => Err(ApiError::invalid_param("A room is named by its id, with `!`, or an alias, with `#`")),
    }
}

/// The servers that the query names, by the parameter of today and that of old.
pub fn via(call: &Call) -> Result<Vec<String>, ApiError> {
    let mut servers = call.query_all("via")?;
    servers.extend(call.query_all("server_name")?);
    servers.retain(|server| identifiers::is_server_name(server));
    servers.truncate(VIA_MAX);
    Ok(servers)
}

/// How the asker gets into a room, with all servers that may help.
pub fn way(call: &Call, target: &Target) -> Result<Way, ApiError> {
    way_of(&call.ctx, call.user()?.as_str(), target)
}

/// The same for any user of this server.
pub fn way_of(ctx: &Context, user_id: &str, target: &Target) -> Result<Way, ApiError> {
    let (room_id, named) = (&target.room_id, &target.servers);
    Ok(ctx.engine.read(&WayIntoRoom { room_id, user_id, named })?)
}

/// A change of the asker's membership, for which another server's help is needed.
pub fn change_elsewhere(
    call: &Call,
    way: &Way,
    room_id: &str,
    reason: Option<String>,
) -> Result<Change, ApiError> {
    if call.session()?.is_guest {
        if way.lacks_members {
            return Err(Error::from(Conflict::PartialState).into());
        }
        return Err(ApiError::guest_access_forbidden("Guests can only be in rooms that this server is in"));
    }
    Ok(Change { room_id: room_id.to_owned(), user_id: call.user()?.to_string(), reason })
}

/// What a user is told whom no other server has let in: where this one does not know yet whether they may come in, and nobody has
/// said that they may not, that is why.
pub fn why_not(way: &Way, error: ApiError) -> ApiError {
    // Servers that lack members themselves know no more. What this one cannot do for now it says itself.
    let is_told = match error.status {
        StatusCode::NOT_FOUND => false,
        status => status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE,
    };
    if !way.lacks_members || is_told {
        return error;
    }
    let why = "The members of this room are not known yet, and no server that knows them can be asked whether you may come in";
    ApiError::unknown(format!("{why} ({}); try again in a while", error.error))
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
}

/// The turn of a user to change their own membership of a room by way of other servers, or to leave it: what was asked for first is
/// done first, so that who leaves while they come in is out in the end.
pub async fn turn<'c>(ctx: &'c Context, change: &Change) -> Flight<'c> {
    ctx.federation.own_changes.alone(&format!("{} {}", change.user_id, change.room_id)).await
}

/// Changes the asker's own membership.
pub async fn change_own(
    call: &Call,
    room_id: String,
    action: MembershipAction,
    reason: Option<String>,
) -> Result<(), ApiError> {
    change(call, room_id, call.user()?.to_string(), action, reason).await
}

/// The same for who is known to be no guest.
pub async fn change_here(ctx: &Context, change: Change, action: MembershipAction) -> Result<(), ApiError> {
    let Change { room_id, user_id, reason } = change;
    let change = ChangeMembership {
        room_id,
        sender: user_id.clone(),
        target: user_id,
        action,
        reason,
        is_guest: false,
    };
    policy::write(ctx, change).await
}

/// Changes another user's membership of the room in the path, as the body asks.
pub async fn change_of_other(call: &Call, action: MembershipAction) -> Result<(), ApiError> {
    let request: OfOther = call.json()?;
    change(call, room_id(call)?, request.user_id, action, request.reason).await
}

async fn change(
    call: &Call,
    room_id: String,
    target: String,
    action: MembershipAction,
    reason: Option<String>,
) -> Result<(), ApiError> {
    if matches!(action, MembershipAction::Invite | MembershipAction::Kick | MembershipAction::Unban) {
        until_membership_known(call, &room_id, &target).await?;
    }
    let session = call.session()?;
    let change = ChangeMembership {
        room_id,
        sender: session.user_id.to_string(),
        target,
        action,
        reason,
        is_guest: session.is_guest,
    };
    policy::write(&call.ctx, change).await
}

/// Waits until it is known whether a user is in a room whose members are still being fetched, or banned from it: what is done to
/// who is not as it is thought would be refused by all servers that know.
///
/// Errors: 503 if that does not become known for a while.
pub async fn until_membership_known(call: &Call, room_id: &str, target: &str) -> Result<(), ApiError> {
    let session = call.session()?;
    let awaited = AwaitedMembers { room_id, user: session.user_id.as_str(), whose: Whose::User(target) };
    until_known(&call.ctx, session.user, &awaited).await
}
