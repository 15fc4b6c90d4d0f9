//! `public_rooms.yaml`: this server's directory of rooms, for other servers.

use crate::client::list_public_rooms::{Query, page};
use crate::http::{Call, Outcome, endpoints};

endpoints! {
    GET  "/_matrix/federation/v1/publicRooms" [] Server Federation Nothing get_public_rooms;
    POST "/_matrix/federation/v1/publicRooms" [] Server Federation Json    query_public_rooms;
}

async fn get_public_rooms(call: Call) -> Outcome {
    page(&call.ctx, Query::from_parameters(&call)?, true)
}

async fn query_public_rooms(call: Call) -> Outcome {
    page(&call.ctx, call.json_or_empty()?, true)
}
