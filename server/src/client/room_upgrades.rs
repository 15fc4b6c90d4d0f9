//! `room_upgrades.yaml`: replacing a room by one of another version.

use serde::Deserialize;
use serde_json::json;
use warren_engine::command::UpgradeRoom;

use super::membership::room_id;
use crate::federation::out::policy;
use crate::http::{Answer, Call, Outcome, endpoints, null_is_absent};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/upgrade" ["r0"] Required Join Json upgrade_room;
}

#[derive(Deserialize)]
struct Request {
    new_version: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    additional_creators: Vec<String>,
}

async fn upgrade_room(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let request: Request = call.json()?;
    let upgrade = UpgradeRoom {
        room_id: room_id(&call)?,
        user_id: call.user()?.to_string(),
        version: request.new_version,
        additional_creators: request.additional_creators,
    };
    let replacement_room = policy::write(&call.ctx, upgrade).await?;
    Answer::json(&json!({ "replacement_room": replacement_room }))
}
