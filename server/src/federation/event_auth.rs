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
    let place = call.ctx.federation.room_answers.place(&call).await?;
    // Long chains take some time; other requests go to other threads meanwhile.
    let auth_chain = tokio::task::block_in_place(|| call.ctx.engine.read(&view))?;
    Ok(lists::answer(&call.ctx, place, "", vec![("auth_chain", Part::Pdus(auth_chain))], ""))
}
