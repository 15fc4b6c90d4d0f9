//! `room_upgrades.yaml`: replacing a room by one of another version.

use serde::Deserialize;
use serde_json::json;
use warren_engine::command::UpgradeRoom;
use warren_engine::view::{MayUpgrade, Whose};

use super::membership::room_id;
use super::rooms::when_known;
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
    // Who may not is told so at once.
    let UpgradeRoom { room_id, user_id, version, .. } = &upgrade;
    call.ctx.engine.read(&MayUpgrade { room_id, user_id, version })?;
    // Who is banned from the old room is to be banned from the new one.
    let ctx = when_known(call, &upgrade.room_id, Whose::Everybody).await?;
    let replacement_room = policy::write(&ctx, upgrade).await?;
    Answer::json(&json!({ "replacement_room": replacement_room }))
}
