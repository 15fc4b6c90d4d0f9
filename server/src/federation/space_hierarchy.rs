//! `space_hierarchy.yaml`: a space and its rooms, for other servers.

use warren_engine::view::federation::PeerHierarchy;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/hierarchy/{roomId}" ["unstable/org.matrix.msc2946"] Server Federation Nothing get_space_hierarchy;
}

async fn get_space_hierarchy(call: Call) -> Outcome {
    let view = PeerHierarchy {
        room_id: call.path("roomId")?.into_owned(),
        suggested_only: call.query_bool("suggested_only", false)?,
        server: call.origin()?.to_string(),
    };
    // The largest spaces take some time; other requests go to other threads meanwhile.
    Answer::json(&tokio::task::block_in_place(|| call.ctx.engine.read(&view))?)
}
