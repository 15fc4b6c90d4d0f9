//! `create_room.yaml`: creating rooms.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use warren_engine::Preset;
use warren_engine::command::{CreateRoom, InitialState};
use warren_engine::view::federation::MakeInvite;

use super::membership::is_local;
use crate::federation::out::invite::send_invite;
use crate::http::limits::NEW_ROOM_EVENTS_MAX;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints, null_is_absent};

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
    #[serde(default)]
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
    let elsewhere: Vec<String> =
        request.invite.iter().filter(|user_id| !is_local(&call.ctx, user_id)).cloned().collect();
    let room_id = call
        .ctx
        .engine
        .write(CreateRoom {
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
        })
        .await?;
    let mut content = Map::new();
    if request.is_direct {
        content.insert("is_direct".to_owned(), true.into());
    }
    for target in elsewhere {
        let invite = MakeInvite {
            room_id: room_id.clone(),
            sender: call.user()?.to_string(),
            target,
            content: content.clone(),
            third_party_signed: None,
        };
        // The room is there by now: who could not be reached can be invited again.
        if let Err(error) = send_invite(&call.ctx, invite).await {
            tracing::info!(room_id, error = %error.error, "an invite to a new room could not be sent");
        }
    }
    Answer::json(&json!({ "room_id": room_id }))
}
