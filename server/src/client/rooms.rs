//! `rooms.yaml`: single events and the members of rooms. The room's state is in `room_state`.

use std::sync::Arc;

use warren_engine::Membership;
use warren_engine::view::{AwaitedMembers, JoinedMembers, Members, OneEvent, Whose};

use super::message_pagination::token;
use crate::context::Context;
use crate::federation::out::complete::until_known;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/rooms/{roomId}/event/{eventId}" ["r0"] Guest Read Nothing get_one_room_event;
    GET "/_matrix/client/v3/rooms/{roomId}/members"         ["r0"] Guest Read Nothing get_members_by_room;
    GET "/_matrix/client/v3/rooms/{roomId}/joined_members"  ["r0"] Guest Read Nothing get_joined_members_by_room;
}

async fn get_one_room_event(call: Call) -> Outcome {
    Ok(Answer::json_bytes(call.ctx.engine.read(&one_event(&call)?)?.into()))
}

/// The event that the path names, for who asks.
pub(super) fn one_event(call: &Call) -> Result<OneEvent, ApiError> {
    let session = call.session()?;
    Ok(OneEvent {
        room_id: call.path("roomId")?.into_owned(),
        event_id: call.path("eventId")?.into_owned(),
        user: session.user_id.to_string(),
        device: session.device_id.as_ref().map(ToString::to_string),
    })
}

async fn get_members_by_room(call: Call) -> Outcome {
    let members = Members {
        room_id: call.path("roomId")?.into_owned(),
        user: call.user()?.to_string(),
        at: token(&call, "at")?,
        membership: membership(&call, "membership")?,
        not_membership: membership(&call, "not_membership")?,
    };
    let whose = members.at.map_or(Whose::Everybody, Whose::EverybodyAt);
    let ctx = when_known(call, &members.room_id, whose).await?;
    Ok(Answer::json_bytes(ctx.engine.read(&members)?.into()))
}

fn membership(call: &Call, name: &str) -> Result<Option<Membership>, ApiError> {
    call.query_enum(
        name,
        &[
            ("join", Membership::Join),
            ("invite", Membership::Invite),
            ("knock", Membership::Knock),
            ("leave", Membership::Leave),
            ("ban", Membership::Ban),
        ],
    )
}

async fn get_joined_members_by_room(call: Call) -> Outcome {
    let members =
        JoinedMembers { room_id: call.path("roomId")?.into_owned(), user: call.user()?.to_string() };
    let ctx = when_known(call, &members.room_id, Whose::Everybody).await?;
    Ok(Answer::json_bytes(ctx.engine.read(&members)?.into()))
}

/// Waits until members that a request asks for are known, where a room was joined without them, and gives what they are to be
/// read from. Who waits holds on to no more of the request than that.
///
/// Errors: 503 if they do not become known for a while; 403 for who may not look into the room.
pub(super) async fn when_known(
    call: Call,
    room_id: &str,
    whose: Whose<'_>,
) -> Result<Arc<Context>, ApiError> {
    let session = call.session()?;
    let (ctx, user, user_id) = (call.ctx.clone(), session.user, session.user_id.to_string());
    drop(call);
    until_known(&ctx, user, &AwaitedMembers { room_id, user: &user_id, whose }).await?;
    Ok(ctx)
}
