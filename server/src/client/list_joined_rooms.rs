//! `list_joined_rooms.yaml`: which rooms the asker is in.

use serde_json::json;
use warren_engine::view::JoinedRooms;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/joined_rooms" ["r0"] Required Read Nothing get_joined_rooms;
}

async fn get_joined_rooms(call: Call) -> Outcome {
    let rooms = call.ctx.engine.read(&JoinedRooms { user_id: call.user()?.to_string() })?;
    let rooms: Vec<&str> = rooms.iter().map(|room_id| &**room_id).collect();
    Answer::json(&json!({ "joined_rooms": rooms }))
}
