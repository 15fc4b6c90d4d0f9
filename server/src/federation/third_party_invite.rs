//! `third_party_invite.yaml`: somebody who was invited by an address turns out to be a user, of this server or of another.
//!
//! An identity server tells the user's server (`/3pid/onbind`), which asks the server of the user who invited to make the
//! invite (`/exchange_third_party_invite`). What the identity server has signed is checked there, by the keys in the room,
//! and by everybody in the room; until then nothing here depends on it.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use warren_engine::core::identifiers;
use warren_engine::view::Profile;
use warren_engine::view::federation::MakeInvite;

use super::out::Asker;
use super::out::invite::{ask_for_invite, send_invite};
use crate::context::Context;
use crate::http::{ALREADY_INVITED, Answer, ApiError, Call, Outcome, endpoints};
use crate::worker;

endpoints! {
    PUT "/_matrix/federation/v1/exchange_third_party_invite/{roomId}" [] Server Federation Json exchange_third_party_invite;
    PUT "/_matrix/federation/v1/3pid/onbind"                          [] None   Join       Json on_bind_third_party_identifier;
    // As the identity service API says, and identity servers do.
    POST "/_matrix/federation/v1/3pid/onbind"                         [] None   Join       Json on_bind_third_party_identifier;
}

/// Invites that wait for one address: more than anybody has. Each is a request to another server, which everybody may cause.
const PENDING_INVITES_MAX: usize = 20;

#[derive(Deserialize)]
struct Exchange {
    #[serde(rename = "type")]
    kind: String,
    room_id: String,
    sender: String,
    state_key: String,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: ThirdPartyInvite,
}

#[derive(Deserialize)]
struct ThirdPartyInvite {
    signed: Value,
}

async fn exchange_third_party_invite(call: Call) -> Outcome {
    let exchange: Exchange = call.json()?;
    let is_invite = exchange.kind == "m.room.member" && exchange.content.membership == "invite";
    if !is_invite || exchange.room_id != call.path("roomId")? {
        return Err(ApiError::invalid_param("This is not an invite to the room in the path"));
    }
    let Exchange { room_id, sender, state_key, content, .. } = exchange;
    let ctx = call.ctx.clone();
    // The invited user's server shows the invite before it is in the room: that must not be left half done.
    worker::finish(&call.ctx, async move {
        invite(&ctx, room_id, sender, state_key, content.third_party_invite.signed).await
    })
    .await?;
    Ok(Answer::empty())
}

/// Invites in the name of our user, who has invited whoever the address belongs to. Everybody in the room has the proof, and may
/// come with it again and again: whoever waits for an answer to an invite is not invited anew.
async fn invite(
    ctx: &Arc<Context>,
    room_id: String,
    sender: String,
    target: String,
    signed: Value,
) -> Result<(), ApiError> {
    let content = Map::new();
    let make = MakeInvite { room_id, sender, target, content, third_party_signed: Some(signed) };
    match send_invite(ctx, make).await {
        Err(error) if error.reason == ALREADY_INVITED => Ok(()),
        sent => sent.map(drop),
    }
}

#[derive(Deserialize)]
struct Bound {
    mxid: String,
    invites: Vec<Pending>,
}

#[derive(Deserialize)]
struct Pending {
    room_id: String,
    sender: String,
    signed: Value,
}

/// The request need not be signed, and proves nothing: each invite carries its own proof.
async fn on_bind_third_party_identifier(call: Call) -> Outcome {
    let bound: Bound = call.json()?;
    if bound.invites.len() > PENDING_INVITES_MAX {
        return Err(ApiError::too_large(format!(
            "No more than {PENDING_INVITES_MAX} invites are taken at once"
        )));
    }
    if identifiers::server_name(&bound.mxid) != Some(call.ctx.engine.server_name()) {
        return Err(ApiError::not_found("This user is not of this server"));
    }
    call.ctx.engine.read(&Profile(&bound.mxid))?;
    let asks = once(bound.invites).into_iter().map(|pending| {
        let (ctx, asker, target) = (call.ctx.clone(), call.asker(), bound.mxid.clone());
        async move {
            let (room_id, sender) = (pending.room_id.clone(), pending.sender.clone());
            if let Err(error) = ask_to_invite(&ctx, &asker, target, pending).await {
                tracing::info!(room_id, sender, error = %error.error, "an invite by an address comes to nothing");
            }
        }
    });
    let asks = asks.collect::<Vec<_>>();
    let ctx = call.ctx.clone();
    let asking = async move { Ok::<_, ApiError>(worker::side_by_side(&ctx, asks).await) };
    worker::finish(&call.ctx, asking).await?;
    Ok(Answer::empty())
}

/// Each of the invites once: a token is of one.
fn once(mut invites: Vec<Pending>) -> Vec<Pending> {
    let mut found = HashSet::new();
    invites.retain(|Pending { room_id, sender, signed }| {
        let token = signed.get("token").and_then(Value::as_str).unwrap_or_default();
        found.insert((room_id.clone(), sender.clone(), token.to_owned()))
    });
    invites
}

/// Has the server of the user who invited by an address invite our user. If that is this one, it takes a proof, so that whoever invited
/// may be who asks.
async fn ask_to_invite(
    ctx: &Arc<Context>,
    asker: &Asker,
    target: String,
    pending: Pending,
) -> Result<(), ApiError> {
    let Pending { room_id, sender, signed } = pending;
    let server = identifiers::server_name(&sender)
        .ok_or_else(|| ApiError::invalid_param("A user id has a server name"))?
        .to_owned();
    if server == ctx.engine.server_name() {
        return invite(ctx, room_id, sender, target, signed).await;
    }
    let event = json!({
        "type": "m.room.member",
        "room_id": room_id,
        "sender": sender,
        "state_key": target,
        "content": { "membership": "invite", "third_party_invite": { "signed": signed } },
    });
    Ok(ask_for_invite(ctx, asker, &server, &room_id, &event).await?)
}
