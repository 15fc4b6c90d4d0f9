//! `threads_list.yaml`: the threads of a room.

use warren_engine::view::Threads;

use super::message_pagination::{limit, token};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v1/rooms/{roomId}/threads" ["unstable/org.matrix.msc3856"] Guest Read Nothing get_thread_roots;
}

async fn get_thread_roots(call: Call) -> Outcome {
    let session = call.session()?;
    let threads = Threads {
        room_id: call.path("roomId")?.into_owned(),
        user: session.user_id.to_string(),
        device: session.device_id.as_ref().map(ToString::to_string),
        participated: call.query_enum("include", &[("all", false), ("participated", true)])?.unwrap_or(false),
        limit: limit(&call)?,
        from: token(&call, "from")?,
    };
    Ok(Answer::json_bytes(call.ctx.engine.read(&threads)?.into()))
}
