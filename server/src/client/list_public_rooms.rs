//! `list_public_rooms.yaml`: the directory of rooms.

use serde::{Deserialize, Serialize};
use serde_json::json;
use warren_engine::RoomSummary;
use warren_engine::command::ListRoom;
use warren_engine::core::identifiers;
use warren_engine::view::{IsListed, PUBLIC_ROOMS_MAX, PublicRooms};

use super::membership::room_id;
use crate::context::Context;
use crate::federation::out::queries;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints, null_is_absent};

endpoints! {
    GET  "/_matrix/client/v3/directory/list/room/{roomId}" ["r0"] None     Read   Nothing get_room_visibility_on_directory;
    PUT  "/_matrix/client/v3/directory/list/room/{roomId}" ["r0"] Required Write  Json    set_room_visibility_on_directory;
    GET  "/_matrix/client/v3/publicRooms"                  ["r0"] Optional Search Nothing get_public_rooms;
    POST "/_matrix/client/v3/publicRooms"                  ["r0"] Guest    Search Json    query_public_rooms;
}

async fn get_room_visibility_on_directory(call: Call) -> Outcome {
    let is_listed = call.ctx.engine.read(&IsListed { room_id: room_id(&call)? })?;
    Answer::json(&json!({ "visibility": if is_listed { "public" } else { "private" } }))
}

#[derive(Deserialize)]
struct Visibility {
    visibility: Option<String>,
}

async fn set_room_visibility_on_directory(call: Call) -> Outcome {
    let session = call.session()?;
    let request: Visibility = call.json_or_empty()?;
    let is_listed = match request.visibility.as_deref() {
        None | Some("public") => true,
        Some("private") => false,
        Some(_) => return Err(ApiError::invalid_param("visibility must be `public` or `private`")),
    };
    let user_id = session.user_id.to_string();
    let list = ListRoom { room_id: room_id(&call)?, user_id, is_admin: session.is_admin, is_listed };
    call.ctx.engine.write(list).await?;
    Ok(Answer::empty())
}

/// What of the directory is asked for.
#[derive(Default, Deserialize, Serialize)]
pub struct Query {
    /// How many rooms; none, like on other servers, is no limit.
    #[serde(skip_serializing_if = "is_no_limit")]
    limit: Option<u64>,
    /// Where a page begins; an empty one is none.
    #[serde(skip_serializing_if = "is_no_token")]
    since: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    filter: Filter,
    /// Whether rooms of all networks are asked for.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "std::ops::Not::not")]
    include_all_networks: bool,
    /// The network whose rooms are asked for, if it is not the main list.
    #[serde(skip_serializing_if = "Option::is_none")]
    third_party_instance_id: Option<String>,
}

fn is_no_limit(limit: &Option<u64>) -> bool {
    limit.is_none_or(|limit| limit == 0)
}

fn is_no_token(since: &Option<String>) -> bool {
    since.as_deref().is_none_or(str::is_empty)
}

#[derive(Default, Deserialize, Serialize)]
struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    generic_search_term: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_types: Option<Vec<Option<String>>>,
}

/// A page of a directory, this server's or another's.
#[derive(Serialize)]
pub struct Page {
    pub chunk: Vec<RoomSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_room_count_estimate: Option<u64>,
}

async fn get_public_rooms(call: Call) -> Outcome {
    let query = Query::from_parameters(&call)?;
    list(&call, query).await
}

impl Query {
    /// From the query string.
    pub fn from_parameters(call: &Call) -> Result<Query, ApiError> {
        let text = |name| Ok::<_, ApiError>(call.query(name)?.map(|text| text.into_owned()));
        Ok(Query {
            limit: call.query_u64("limit")?,
            since: text("since")?,
            filter: Filter::default(),
            include_all_networks: call.query_bool("include_all_networks", false)?,
            third_party_instance_id: text("third_party_instance_id")?,
        })
    }

    /// Whether the rooms of one network are asked for.
    ///
    /// Errors: 400 if those of all are as well.
    fn is_of_network(&self) -> Result<bool, ApiError> {
        let network = self.third_party_instance_id.as_deref().filter(|network| !network.is_empty());
        match (network, self.include_all_networks) {
            (Some(_), true) => Err(ApiError::invalid_param(
                "third_party_instance_id can only be used if include_all_networks is false",
            )),
            (network, _) => Ok(network.is_some()),
        }
    }
}

async fn query_public_rooms(call: Call) -> Outcome {
    let query = call.json_or_empty()?;
    list(&call, query).await
}

async fn list(call: &Call, query: Query) -> Outcome {
    query.is_of_network()?;
    let is_another = |server: &str| !server.is_empty() && server != call.ctx.engine.server_name();
    if let Some(server) = call.query("server")?.filter(|server| is_another(server)) {
        if !identifiers::is_server_name(&server) {
            return Err(ApiError::invalid_param("Query parameter server is not a server's name"));
        }
        // Whom a server shows its directory is its own to say; guests and strangers do not speak for this one.
        call.session()?;
        let query = serde_json::to_value(&query).map_err(ApiError::internal)?;
        return Answer::json(&queries::public_rooms(&call.ctx, &call.asker(), &server, &query).await?);
    }
    page(&call.ctx, query, false)
}

/// A page of this server's directory, for a client or for another server.
pub fn page(ctx: &Context, query: Query, is_for_server: bool) -> Outcome {
    if query.is_of_network()? {
        // There are no networks here that rooms could be listed for.
        let (chunk, total_room_count_estimate) = (Vec::new(), Some(0));
        return Answer::json(&Page { chunk, next_batch: None, prev_batch: None, total_room_count_estimate });
    }
    let limit = query.limit.filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(PUBLIC_ROOMS_MAX);
    let page = ctx.engine.read(&PublicRooms {
        limit,
        since: query.since.filter(|since| !since.is_empty()),
        search_term: query.filter.generic_search_term.filter(|term| !term.is_empty()),
        room_types: query.filter.room_types,
        is_for_server,
    })?;
    Answer::json(&Page {
        chunk: page.rooms,
        next_batch: page.next_batch,
        prev_batch: page.prev_batch,
        total_room_count_estimate: Some(page.total as u64),
    })
}
