//! `room_state.yaml`, and from `rooms.yaml` the reading of state: setting and getting the state of rooms.

use serde_json::{Map, Value, json};
use warren_engine::command::{SendEvent, SetCanonicalAlias};
use warren_engine::view::{RoomState, RoomStateEvent, Whose};

use super::inviting::invite_elsewhere;
use super::membership::{is_local, room_id, until_membership_known};
use super::rooms::when_known;
use crate::federation::out::queries::confirmed_aliases;
use crate::federation::out::{guests, policy};
use crate::http::route::Rate;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/rooms/{roomId}/state"                        ["r0"] Guest Read Nothing get_room_state;
    GET "/_matrix/client/v3/rooms/{roomId}/state/{eventType}"            ["r0"] Guest Read Nothing get_room_state_without_key;
    GET "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}" ["r0"] Guest Read Nothing get_room_state_with_key;
    PUT "/_matrix/client/v3/rooms/{roomId}/state/{eventType}"            ["r0"] Guest Send Json    set_room_state_without_key;
    PUT "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}" ["r0"] Guest Send Json    set_room_state_with_key;
}

async fn get_room_state(call: Call) -> Outcome {
    let state = RoomState { room_id: room_id(&call)?, user_id: call.user()?.to_string() };
    let ctx = when_known(call, &state.room_id, Whose::Everybody).await?;
    Ok(Answer::json_bytes(ctx.engine.read(&state)?))
}

async fn get_room_state_without_key(call: Call) -> Outcome {
    get(call, String::new()).await
}

async fn get_room_state_with_key(call: Call) -> Outcome {
    let state_key = call.path("stateKey")?.into_owned();
    get(call, state_key).await
}

async fn get(call: Call, state_key: String) -> Outcome {
    let is_whole = call.query_enum("format", &[("content", false), ("event", true)])?.unwrap_or(false);
    let event = RoomStateEvent {
        room_id: room_id(&call)?,
        user_id: call.user()?.to_string(),
        kind: call.path("eventType")?.into_owned(),
        state_key,
        is_whole,
    };
    // Of a room's state nothing is left out but members.
    let ctx = match event.kind.as_str() {
        "m.room.member" => when_known(call, &event.room_id, Whose::User(&event.state_key)).await?,
        _ => call.ctx.clone(),
    };
    Ok(Answer::json_bytes(ctx.engine.read(&event)?))
}

async fn set_room_state_without_key(call: Call) -> Outcome {
    set(&call, String::new()).await
}

async fn set_room_state_with_key(call: Call) -> Outcome {
    let state_key = call.path("stateKey")?.into_owned();
    set(&call, state_key).await
}

async fn set(call: &Call, state_key: String) -> Outcome {
    call.refuse_suspended()?;
    let session = call.session()?;
    let content: Map<String, Value> = call.json()?;
    let kind = call.path("eventType")?.into_owned();
    let membership = match kind.as_str() {
        "m.room.member" => content.get("membership").and_then(Value::as_str),
        _ => None,
    };
    if membership == Some("invite") && !is_local(&call.ctx, &state_key) {
        return invite(call, &state_key, content).await;
    }
    // As with the endpoints that do only this.
    if matches!(membership, Some("invite" | "leave")) && state_key != session.user_id.as_str() {
        until_membership_known(call, &room_id(call)?, &state_key).await?;
    }
    let event = SendEvent {
        room_id: room_id(call)?,
        sender: session.user_id.to_string(),
        is_guest: session.is_guest,
        kind,
        state_key: Some(state_key),
        content,
        redacts: None,
        transaction: None,
        origin_server_ts: None,
    };
    let event_id = match event.kind.as_str() {
        "m.room.canonical_alias" => {
            let aliases_elsewhere = confirmed_aliases(&call.ctx, &event).await?;
            policy::write(&call.ctx, SetCanonicalAlias { event, aliases_elsewhere }).await?
        }
        _ => guests::send(&call.ctx, event).await?,
    };
    Answer::json(&json!({ "event_id": event_id }))
}

/// Invites a user of another server, for whom and from whom the same holds as for `/invite`.
async fn invite(call: &Call, target: &str, content: Map<String, Value>) -> Outcome {
    let session = call.session()?;
    if session.is_guest {
        return Err(ApiError::guest_access_forbidden("Guests cannot invite users of other servers"));
    }
    call.ctx.rate_limits.take(Rate::Join, Some(session), call.client)?;
    let event_id = invite_elsewhere(call, target, content).await?;
    Answer::json(&json!({ "event_id": &*event_id }))
}
