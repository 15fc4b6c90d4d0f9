//! A local user invites a user of another server, which has to sign the invite before it comes into the room.

use std::sync::Arc;
use std::time::Duration;

use ruma_common::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use warren_engine::Outcome;
use warren_engine::core::event::JsonObject;
use warren_engine::core::identifiers;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{Invite, IsUntoldOfEnd, MakeInvite};

use super::ask::{Ask, path};
use super::check::take_signature;
use super::fetch::take_in_here;
use super::policy;
use super::sender::heard_from;
use super::untold::until_told;
use super::{Asker, RemoteError};
use crate::context::Context;
use crate::http::ApiError;

/// How long an invite waits until the user's server has taken what turned its last user out before. It is sent at once, so that this
/// is a matter of a transaction or two, and the user of this server waits for the answer.
const END_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Signed {
    event: JsonObject,
}

/// Sends the invite, and takes it into the room. Answers with its event's id.
///
/// Errors: those of the room's rules; what the other server refused, or 502 when it cannot be reached.
pub async fn send_invite(ctx: &Arc<Context>, make: MakeInvite) -> Result<Arc<str>, ApiError> {
    // Who may not invite keeps no server busy.
    let mut invite = ctx.engine.read(&make)?;
    if let Some(server) = identifiers::server_name(&make.target)
        && tell_of_end(ctx, &make, server).await
    {
        // It follows what came meanwhile.
        invite = ctx.engine.read(&make)?;
    }
    invite.event = policy::sign(ctx, &make.room_id, invite.event).await?;
    let server = identifiers::server_name(&make.target)
        .ok_or_else(|| ApiError::invalid_param("A user id has a server name"))?;
    let event = match server == ctx.engine.server_name() {
        true => invite.event.json.clone(),
        false => {
            let signed = ask_to_sign(ctx, server, &make.room_id, &invite).await?;
            take_signature(ctx, &invite.event, &signed, server).await?
        }
    };
    let (room_id, version) = (make.room_id, invite.event.version);
    let mut intake = match make.third_party_signed {
        Some(_) => Intake::of_invite_by_address(room_id, version, event),
        None => Intake::new(room_id, version, vec![event]),
    };
    take_in_here(ctx, &mut intake).await?;
    match intake.outcomes.get(&invite.event.event_id) {
        Some(Outcome::Accepted | Outcome::Known) => Ok(invite.event.event_id),
        Some(Outcome::SoftFailed(denied) | Outcome::Rejected(denied)) => {
            Err(ApiError::forbidden(denied.to_string()))
        }
        // The keys of a server whose signature has just come, or whose request was answered, are known or can be had.
        outcome => Err(ApiError::unknown(format!("The invite could not be checked: {outcome:?}"))
            .with_status(http::StatusCode::BAD_GATEWAY)),
    }
}

/// Lets the server first take what turned the user out of the room, or took back an invite, which would end this one if it
/// came later. It is about to be asked, so that it may be tried as if it had been heard from. Answers whether there was such.
async fn tell_of_end(ctx: &Context, make: &MakeInvite, server: &str) -> bool {
    let (room_id, user_id) = (&*make.room_id, &*make.target);
    let is_untold = || ctx.engine.read(&IsUntoldOfEnd { room_id, user_id }).is_ok_and(|is_untold| is_untold);
    let Ok(name) = ServerName::parse(server) else { return false };
    if !is_untold() {
        return false;
    }
    if let Err(error) = heard_from(ctx, &name).await {
        tracing::warn!(server, %error, "it cannot be noted that a server is to be tried");
    }
    if !until_told(ctx, END_TIME_MAX, is_untold).await {
        tracing::info!(room_id, server, "an invite may overtake what ended another");
    }
    true
}

/// Asks the server of the user who has invited by an address to make the invite of whoever that turned out to be. `asker` is who says
/// so: anybody may, of any server.
pub async fn ask_for_invite(
    ctx: &Context,
    asker: &Asker,
    server: &str,
    room_id: &str,
    event: &Value,
) -> Result<(), RemoteError> {
    let target = path("v1/exchange_third_party_invite/{roomId}", &[room_id]);
    let asked = Ask::put(server, target, event.to_string().as_bytes()).asked_by(asker);
    asked.for_event().bytes(ctx).await.map(drop)
}

async fn ask_to_sign(
    ctx: &Context,
    server: &str,
    room_id: &str,
    invite: &Invite,
) -> Result<JsonObject, RemoteError> {
    let object = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
    let room_state: Vec<Value> = invite.room_state.iter().map(|event| object(event)).collect();
    let mut event = object(&invite.event.json);
    let body = json!({
        "room_version": invite.event.version.id,
        "event": event,
        "invite_room_state": room_state,
    });
    let values = [room_id, &*invite.event.event_id];
    let asker = Asker::User(event.get("sender").and_then(Value::as_str).unwrap_or_default().to_owned());
    let asked = Ask::put(server, path("v2/invite/{roomId}/{eventId}", &values), body.to_string().as_bytes());
    match asked.asked_by(&asker).for_event().read::<Signed>(ctx).await {
        // Specification: "Senders which receive a 400 or 404 response to this endpoint should retry using the v1 API as the
        // server may be older, if the room version is "1" or "2"."
        Err(failure) if failure.is_unknown_endpoint() && matches!(invite.event.version.id, "1" | "2") => {
            if let Some(event) = event.as_object_mut() {
                event.insert("unsigned".to_owned(), json!({ "invite_room_state": room_state }));
            }
            let target = path("v1/invite/{roomId}/{eventId}", &values);
            let asked = Ask::put(server, target, event.to_string().as_bytes()).asked_by(&asker);
            let (_, signed): (u16, Signed) = asked.for_event().read(ctx).await?;
            Ok(signed.event)
        }
        answer => answer.map(|signed| signed.event),
    }
}
