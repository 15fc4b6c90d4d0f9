//! `create_room.yaml`: creating rooms.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use warren_engine::Preset;
use warren_engine::command::{CreateRoom, InitialState};
use warren_engine::view::federation::MakeInvite;

use super::membership::is_local;
use crate::context::Context;
use crate::federation::out::invite::send_invite;
use crate::http::limits::{NEW_ROOM_EVENTS_MAX, NEW_ROOM_INVITES_AWAITED_MAX};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints, null_is_absent};
use crate::worker;

/// How many users of other servers are invited at once: a slow server holds up few others, and the room has no more ends than
/// that for the next event to bring together.
const INVITES_AT_ONCE: usize = 10;

endpoints! {
    POST "/_matrix/client/v3/createRoom" ["r0"] Required Join Bulk create_room;
}

#[derive(Deserialize)]
struct Request {
    preset: Option<String>,
    visibility: Option<String>,
    room_version: Option<String>,
    room_alias_name: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    creation_content: Map<String, Value>,
    #[serde(default, deserialize_with = "null_is_absent")]
    initial_state: Vec<StateEvent>,
    #[serde(default, deserialize_with = "null_is_absent")]
    power_level_content_override: Map<String, Value>,
    #[serde(default, deserialize_with = "null_is_absent")]
    invite: Vec<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    invite_3pid: Vec<Value>,
    #[serde(default, deserialize_with = "null_is_absent")]
    is_direct: bool,
}

#[derive(Deserialize)]
struct StateEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    state_key: String,
    content: Map<String, Value>,
}

async fn create_room(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let request: Request = call.json()?;
    if !request.invite_3pid.is_empty() {
        return Err(ApiError::threepid_denied(
            "This server uses no identity server to invite by e-mail or phone",
        ));
    }
    if request.initial_state.len() + request.invite.len() > NEW_ROOM_EVENTS_MAX {
        return Err(ApiError::too_large(format!(
            "initial_state and invite may have {NEW_ROOM_EVENTS_MAX} entries together"
        )));
    }
    let is_listed = match request.visibility.as_deref() {
        None | Some("private") => false,
        Some("public") => true,
        Some(_) => return Err(ApiError::invalid_param("visibility must be `public` or `private`")),
    };
    let preset = match request.preset.as_deref() {
        None if is_listed => Preset::PublicChat,
        None => Preset::PrivateChat,
        Some(name) => Preset::from_name(name)
            .ok_or_else(|| ApiError::invalid_param(format!("There is no preset {name}")))?,
    };
    let default_version = || call.ctx.config.default_room_version.to_string();
    let initial_state = request.initial_state.into_iter();
    let create = CreateRoom {
        creator: call.user()?.to_string(),
        version: request.room_version.unwrap_or_else(default_version),
        preset,
        is_listed,
        creation_content: request.creation_content,
        initial_state: initial_state
            .map(|StateEvent { kind, state_key, content }| InitialState { kind, state_key, content })
            .collect(),
        power_level_content_override: request.power_level_content_override,
        name: request.name,
        topic: request.topic,
        alias_localpart: request.room_alias_name,
        invite: request.invite,
        is_direct: request.is_direct,
    };
    let ctx = call.ctx.clone();
    // A large body keeps its place no longer.
    drop(call);
    // Nobody would send again the invites of a room whose creator was not told of it.
    let work = ctx.clone();
    let room_id = worker::finish(&ctx, async move { create_and_invite(&work, create).await }).await?;
    Answer::json(&json!({ "room_id": room_id }))
}

/// Creates the room, and invites to it also users of other servers. Answers with its id.
///
/// Errors: those of [`CreateRoom`]; what [`refusal`] makes of an invite that was refused, with the id of the room, which is
/// there all the same.
async fn create_and_invite(ctx: &Arc<Context>, create: CreateRoom) -> Result<String, ApiError> {
    let elsewhere = of_other_servers(ctx, &create.invite);
    let (sender, is_direct) = (create.creator.clone(), create.is_direct);
    // Each event of it is signed.
    let room_id = tokio::task::block_in_place(|| ctx.engine.write(create)).await?;
    let content: Map<String, Value> =
        is_direct.then(|| ("is_direct".to_owned(), true.into())).into_iter().collect();
    let places = Arc::new(Semaphore::new(INVITES_AT_ONCE));
    let mut invites = Vec::with_capacity(elsewhere.len());
    for target in elsewhere {
        let invite = MakeInvite {
            room_id: room_id.clone(),
            sender: sender.clone(),
            target,
            content: content.clone(),
            third_party_signed: None,
        };
        let (ctx, places) = (ctx.clone(), places.clone());
        invites.push(async move {
            let _place = places.acquire().await.map_err(ApiError::internal)?;
            let (room_id, invited) = (invite.room_id.clone(), invite.target.clone());
            send_invite(&ctx, invite).await.inspect_err(|error| {
                tracing::info!(room_id, invited, error = %error.error, "an invite to a new room could not be sent");
            })
        });
    }
    // Those that take longer go on.
    let work = ctx.clone();
    let sending = async move { Ok::<_, ApiError>(worker::side_by_side(&work, invites).await) };
    let sending = worker::finish(ctx, sending);
    let Ok(sent) = tokio::time::timeout(NEW_ROOM_INVITES_AWAITED_MAX, sending).await else {
        return Ok(room_id);
    };
    match sent?.into_iter().filter_map(Result::err).find_map(refusal) {
        Some(refused) => Err(refused.with("room_id", room_id)),
        None => Ok(room_id),
    }
}

/// Those of the users who are of other servers, each once.
fn of_other_servers(ctx: &Context, users: &[String]) -> Vec<String> {
    let mut named: HashSet<&str> = HashSet::new();
    users.iter().filter(|user_id| !is_local(ctx, user_id) && named.insert(user_id)).cloned().collect()
}

/// What the creator of a room is told of an invite that was not sent, if anything: the room is there by then, and who tried
/// again would make another. What is final the specification has the client told of; who could not be reached can be invited
/// again.
fn refusal(error: ApiError) -> Option<ApiError> {
    match error.errcode {
        "M_INVITE_BLOCKED" => Some(error),
        "M_INCOMPATIBLE_ROOM_VERSION" | "M_UNSUPPORTED_ROOM_VERSION" => {
            Some(ApiError::unsupported_room_version(error.error))
        }
        _ => None,
    }
}
