//! `room_state.yaml`, and from `rooms.yaml` the reading of state: setting and getting the state of rooms.

use serde_json::{Map, Value, json};
use warren_engine::command::{SendEvent, SetCanonicalAlias};
use warren_engine::view::{RoomState, RoomStateEvent, Whose};

use super::membership::room_id;
use super::rooms::when_known;
use crate::federation::out::policy;
use crate::federation::out::queries::confirmed_aliases;
use crate::http::{Answer, Call, Outcome, endpoints};

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
    let event = SendEvent {
        room_id: room_id(call)?,
        sender: session.user_id.to_string(),
        is_guest: session.is_guest,
        kind: call.path("eventType")?.into_owned(),
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
        _ => policy::write(&call.ctx, event).await?,
    };
    Answer::json(&json!({ "event_id": event_id }))
}
