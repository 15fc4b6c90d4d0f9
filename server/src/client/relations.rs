//! `relations.yaml`: the events that relate to an event.

use warren_engine::view::RelatedEvents;

use super::message_pagination::{is_forwards, limit, token};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"                       ["unstable"] Guest Read Nothing get_relating_events;
    GET "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}"             ["unstable"] Guest Read Nothing get_relating_events_with_rel_type;
    GET "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}" ["unstable"] Guest Read Nothing get_relating_events_with_rel_type_and_event_type;
}

async fn get_relating_events(call: Call) -> Outcome {
    related(&call, None, None)
}

async fn get_relating_events_with_rel_type(call: Call) -> Outcome {
    related(&call, Some(call.path("relType")?.into_owned()), None)
}

async fn get_relating_events_with_rel_type_and_event_type(call: Call) -> Outcome {
    related(&call, Some(call.path("relType")?.into_owned()), Some(call.path("eventType")?.into_owned()))
}

fn related(call: &Call, rel_type: Option<String>, kind: Option<String>) -> Outcome {
    let session = call.session()?;
    let related = RelatedEvents {
        room_id: call.path("roomId")?.into_owned(),
        event_id: call.path("eventId")?.into_owned(),
        user: session.user_id.to_string(),
        device: session.device_id.as_ref().map(ToString::to_string),
        rel_type,
        kind,
        from: token(call, "from")?,
        to: token(call, "to")?,
        forwards: is_forwards(call)?.unwrap_or(false),
        limit: limit(call)?,
        recurse: call.query_bool("recurse", false)?,
    };
    let read = || call.ctx.engine.read(&related);
    // What lies below an event may be much, and is looked for in all of it.
    let page = if related.recurse { tokio::task::block_in_place(read) } else { read() };
    Ok(Answer::json_bytes(page?.into()))
}
