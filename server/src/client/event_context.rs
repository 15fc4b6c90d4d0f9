//! `event_context.yaml`: an event with what came before and after it.

use warren_engine::view::EventContext;

use super::message_pagination::{limit, room_event_filter};
use super::rooms::one_event;
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/rooms/{roomId}/context/{eventId}" ["r0"] Guest Read Nothing get_event_context;
}

async fn get_event_context(call: Call) -> Outcome {
    let context =
        EventContext { event: one_event(&call)?, limit: limit(&call)?, filter: room_event_filter(&call)? };
    Ok(Answer::json_bytes(call.ctx.engine.read(&context)?.into()))
}
