//! Rooms, for administrators. Other homeservers have nothing like it, so the addresses are this one's.

use serde::Deserialize;
use serde_json::to_value;
use warren_engine::core::identifiers;

use super::listing::page;
use crate::federation::out::complete::partial_joins;
use crate::federation::out::resync::{self, SERVERS_MAX};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_warren/admin/v1/rooms/{roomId}/resynchronise" [] Admin Write Json    post_resynchronise;
    GET  "/_warren/admin/v1/rooms/{roomId}/resynchronise" [] Admin Read  Nothing get_resynchronise;
    GET  "/_warren/admin/v1/partial_joins"                [] Admin Read  Nothing get_partial_joins;
    GET  "/_warren/admin/v1/partial_joins/{roomId}"       [] Admin Read  Nothing get_partial_join;
}

/// Begins, and answers with the report, which is empty at first; or with that of what is under way already, to which the servers
/// that are named are added.
async fn post_resynchronise(call: Call) -> Outcome {
    #[derive(Default, Deserialize)]
    struct Request {
        /// The servers to ask; else those with the most members in the room.
        #[serde(default)]
        servers: Vec<String>,
    }
    let Request { servers } = call.json_or_empty()?;
    if servers.len() > SERVERS_MAX {
        return Err(ApiError::invalid_param(format!("At most {SERVERS_MAX} servers can be asked at once")));
    }
    if let Some(wrong) = servers.iter().find(|server| !identifiers::is_server_name(server)) {
        return Err(ApiError::invalid_param(format!("`{wrong}` is not the name of a server")));
    }
    Answer::json(&resync::begin(&call.ctx, &call.path("roomId")?, &servers)?)
}

/// Errors: 404 if the room was not resynchronised since the server was started.
async fn get_resynchronise(call: Call) -> Outcome {
    let report = call.ctx.federation.resyncs.report(&call.path("roomId")?);
    let none = || ApiError::not_found("The room was not resynchronised since the server was started");
    Answer::json(&report.ok_or_else(none)?)
}

/// Rooms that were joined without their members, and how far these have come.
async fn get_partial_joins(call: Call) -> Outcome {
    let rooms = partial_joins(&call.ctx)?;
    let rooms: Vec<_> = rooms.iter().map(to_value).collect::<Result<_, _>>().map_err(ApiError::internal)?;
    page(&call)?.answer("rooms", rooms, |room| room)
}

/// Errors: 404 for a room that lacks no members.
async fn get_partial_join(call: Call) -> Outcome {
    let room_id = call.path("roomId")?;
    let room = partial_joins(&call.ctx)?.into_iter().find(|room| room.room_id == *room_id);
    Answer::json(&room.ok_or_else(|| ApiError::not_found("The room lacks no members, or is not known here"))?)
}
