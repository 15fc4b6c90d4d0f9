//! `event_auth.yaml`: the events that allow an event.

use warren_engine::view::federation::EventAuth;

use super::lists::{self, Part};
use crate::http::{Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/event_auth/{roomId}/{eventId}" [] Server Federation Nothing get_event_auth;
}

async fn get_event_auth(call: Call) -> Outcome {
    let view = EventAuth {
        room_id: call.path("roomId")?.into_owned(),
        event_id: call.path("eventId")?.into_owned(),
        server: call.origin()?.to_string(),
    };
    let auth_chain = call.ctx.engine.read(&view)?;
    Ok(lists::answer(&call.ctx, "", vec![("auth_chain", Part::Pdus(auth_chain))], ""))
}
