//! `invites-v1.yaml`, `invites-v2.yaml`: users of other servers invite users of this one.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use warren_engine::command::ReceiveInvite;
use warren_engine::core::event::{JsonObject, is_stripped};
use warren_engine::core::version::RoomVersion;

use super::out::check::{check_one, readable, shown};
use super::out::keys::Cause;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/federation/v1/invite/{roomId}/{eventId}" [] Server Federation Bulk send_invite_v1;
    PUT "/_matrix/federation/v2/invite/{roomId}/{eventId}" [] Server Federation Bulk send_invite_v2;
}

#[derive(Deserialize)]
struct OldInvite<'a> {
    #[serde(borrow, default)]
    unsigned: Unsigned<'a>,
}

#[derive(Default, Deserialize)]
struct Unsigned<'a> {
    #[serde(borrow, default)]
    invite_room_state: Vec<&'a RawValue>,
}

async fn send_invite_v1(call: Call) -> Outcome {
    let invite: OldInvite<'_> = call.json()?;
    // Specification: "Servers which receive a v1 invite request must assume that the room version is either "1" or "2"."
    let version = version("1")?;
    let event = receive(&call, version, call.body().clone(), &invite.unsigned.invite_room_state).await?;
    let (head, tail) = (Bytes::from_static(b"[200,{\"event\":"), Bytes::from_static(b"}]"));
    Ok(Answer::json_chunks(vec![head, event, tail]))
}

#[derive(Deserialize)]
struct Invite<'a> {
    room_version: String,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow, default)]
    invite_room_state: Vec<&'a RawValue>,
}

async fn send_invite_v2(call: Call) -> Outcome {
    let invite: Invite<'_> = call.json()?;
    let version = version(&invite.room_version)?;
    let event = Bytes::copy_from_slice(invite.event.get().as_bytes());
    let event = receive(&call, version, event, &invite.invite_room_state).await?;
    let (head, tail) = (Bytes::from_static(b"{\"event\":"), Bytes::from_static(b"}"));
    Ok(Answer::json_chunks(vec![head, event, tail]))
}

fn version(id: &str) -> Result<&'static RoomVersion, ApiError> {
    RoomVersion::get(id).ok_or_else(|| {
        ApiError::incompatible_room_version("This server does not speak the room's version")
            .with("room_version", id)
    })
}

/// Signs the invite and shows it to its user.
async fn receive(
    call: &Call,
    version: &'static RoomVersion,
    event: Bytes,
    room_state: &[&RawValue],
) -> Result<Bytes, ApiError> {
    call.ctx.rate_limits.take_for_inviting(call.origin()?.as_str())?;
    let cause = Cause::Sent(call.origin()?.to_string());
    let event = check_one(&call.ctx, &cause, version, event).await?;
    // Specification: "which servers MAY apply to room versions 1 through 11 and SHOULD apply to all other room versions". But
    // most servers show stripped events in the latter, too (Synapse before 1.163), whose users could invite nobody here.
    let room_state = readable(room_state);
    note_stripped(call, version, &room_state)?;
    // Nor is an invite refused because of a member whose server is gone: it would be so for good.
    let shown = shown(&call.ctx, &cause, version, room_state).await?;
    if shown.has_wrong {
        let why = "An event of invite_room_state is not rightly signed";
        return Err(ApiError::invalid_param(why).because("bad_room_state"));
    }
    let user_id = event.pdu().state_key.as_deref().unwrap_or_default();
    call.ctx.rate_limits.take_for_invited(user_id)?;
    let receive = ReceiveInvite {
        room_id: call.path("roomId")?.into_owned(),
        event_id: call.path("eventId")?.into_owned(),
        version,
        event: event.pdu().clone(),
        room_state: shown.events,
        server: call.origin()?.to_string(),
    };
    let received = call.ctx.engine.write(receive).await;
    // What is refused or known leaves nothing behind, and must not keep others from inviting the user. The server is not given its
    // own back: it could go on without end.
    if !received.as_ref().is_ok_and(|received| received.is_news) {
        call.ctx.rate_limits.give_back_invited(user_id);
    }
    Ok(received?.event)
}

/// So that it can be seen how many servers there are yet that strip what is to be whole.
fn note_stripped(call: &Call, version: &RoomVersion, room_state: &[JsonObject]) -> Result<(), ApiError> {
    let count = room_state.iter().filter(|event| is_stripped(event)).count();
    if version.room_id_is_create_hash && count > 0 {
        tracing::info!(server = %call.origin()?, count, "an invite shows stripped events where whole ones are due");
    }
    Ok(())
}
