//! `rooms.yaml`: single events and the members of rooms. The room's state is in `room_state`.

use warren_engine::Membership;
use warren_engine::view::{JoinedMembers, Members, OneEvent};

use super::message_pagination::token;
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
    Ok(Answer::json_bytes(call.ctx.engine.read(&members)?.into()))
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
    Ok(Answer::json_bytes(call.ctx.engine.read(&members)?.into()))
}
