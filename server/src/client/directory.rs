//! `directory.yaml`: aliases of rooms.

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use warren_engine::command::{RemoveAlias, SetAlias};
use warren_engine::view::federation::ServersInRoom;
use warren_engine::view::{RoomAlias, RoomAliases};
use warren_engine::{Conflict, Error};

use super::membership::room_id;
use crate::context::Context;
use crate::federation::out::policy;
use crate::federation::out::queries::room_of_alias;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT    "/_matrix/client/v3/directory/room/{roomAlias}" ["r0"] Required Write Json    set_room_alias;
    GET    "/_matrix/client/v3/directory/room/{roomAlias}" ["r0"] None     Read  Nothing get_room_id_by_alias;
    DELETE "/_matrix/client/v3/directory/room/{roomAlias}" ["r0"] Required Write Nothing delete_room_alias;
    GET    "/_matrix/client/v3/rooms/{roomId}/aliases"     ["r0", "unstable/org.matrix.msc2432"] Required Read Nothing get_local_aliases;
}

/// Servers that are told of for an alias: more than anybody tries to join by.
const SERVERS_MAX: usize = 50;

#[derive(Deserialize)]
struct Target {
    room_id: String,
}

async fn set_room_alias(call: Call) -> Outcome {
    let Target { room_id } = call.json()?;
    let alias = call.path("roomAlias")?.into_owned();
    let set = SetAlias { alias, room_id, user_id: call.user()?.to_string() };
    match call.ctx.engine.write(set).await {
        Ok(()) => Ok(Answer::empty()),
        // Here, unlike in `/createRoom`, the specification wants another answer.
        Err(error @ Error::Conflict(Conflict::AliasInUse)) => {
            Err(ApiError::unknown(error.to_string()).with_status(StatusCode::CONFLICT))
        }
        Err(error) => Err(error.into()),
    }
}

async fn get_room_id_by_alias(call: Call) -> Outcome {
    let (room_id, servers) = room_of_alias(&call.ctx, &call.asker(), &call.path("roomAlias")?).await?;
    Answer::json(&json!({ "room_id": room_id, "servers": servers }))
}

/// The servers by which a room can be joined, this one first. Errors: those of the store.
pub fn servers_of(ctx: &Context, room_id: &str) -> Result<Vec<String>, ApiError> {
    let mut servers = vec![ctx.engine.server_name().to_owned()];
    let there = match ctx.engine.read(&ServersInRoom { room_id: room_id.to_owned() }) {
        // An alias may outlive its room.
        Err(Error::NotFound(_)) => Vec::new(),
        there => there?,
    };
    let others = there.into_iter().filter(|(server, _)| **server != *ctx.engine.server_name());
    servers.extend(others.take(SERVERS_MAX - 1).map(|(server, _)| server.to_string()));
    Ok(servers)
}

async fn delete_room_alias(call: Call) -> Outcome {
    let session = call.session()?;
    let alias = call.path("roomAlias")?.into_owned();
    let room_id = call.ctx.engine.read(&RoomAlias { alias: alias.clone() })?;
    let user_id = session.user_id.to_string();
    policy::write(&call.ctx, RemoveAlias { alias, room_id, user_id, is_admin: session.is_admin }).await?;
    Ok(Answer::empty())
}

async fn get_local_aliases(call: Call) -> Outcome {
    let query = RoomAliases { room_id: room_id(&call)?, user_id: call.user()?.to_string() };
    Answer::json(&json!({ "aliases": call.ctx.engine.read(&query)? }))
}
