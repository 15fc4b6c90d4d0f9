//! `query.yaml`: profiles of this server's users, and rooms by its aliases.

use serde_json::json;
use warren_engine::core::identifiers;
use warren_engine::view::{Profile, ProfileField, RoomAlias};
use warren_engine::{Error, What};

use crate::client::directory::servers_of;
use crate::client::profile::fields_answer;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/query/directory"   [] Server Federation Nothing query_room_directory;
    GET "/_matrix/federation/v1/query/profile"     [] Server Federation Nothing query_profile;
    GET "/_matrix/federation/v1/query/{queryType}" [] Server Federation Nothing query_info;
}

async fn query_room_directory(call: Call) -> Outcome {
    let alias = call.query_required("room_alias")?.into_owned();
    if identifiers::server_name(&alias) != Some(call.ctx.engine.server_name()) {
        return Err(ApiError::not_found("This alias is not of this server"));
    }
    let room_id = call.ctx.engine.read(&RoomAlias { alias })?;
    let servers = servers_of(&call.ctx, &room_id)?;
    Answer::json(&json!({ "room_id": room_id, "servers": servers }))
}

async fn query_profile(call: Call) -> Outcome {
    let user_id = call.query_required("user_id")?;
    if !identifiers::is_user_id(&user_id) {
        return Err(ApiError::invalid_param("`user_id` is not the id of a user"));
    }
    if identifiers::server_name(&user_id) != Some(call.ctx.engine.server_name()) {
        return Err(ApiError::not_found("This user is not of this server"));
    }
    let Some(name) = call.query("field")? else {
        return Ok(fields_answer(call.ctx.engine.read(&Profile(&user_id))?));
    };
    match call.ctx.engine.read(&ProfileField { user_id: &user_id, name: &name }) {
        Ok(value) => Ok(fields_answer([(name.to_string(), value)])),
        // Specification: "If the user does not have a particular field set on their profile, the server MUST either exclude
        // it from the response body or give it the value `null`."
        Err(Error::NotFound(What::ProfileField)) => Ok(Answer::empty()),
        Err(error) => Err(error.into()),
    }
}

/// Specification: "Unsupported endpoints".
async fn query_info(call: Call) -> Outcome {
    let kind = call.path("queryType")?;
    Err(ApiError::unrecognized(format!("This server answers no queries of the type {kind}")))
}
