//! `knocking.yaml`: asking to be let into a room.

use serde_json::json;
use warren_engine::command::MembershipAction;

use super::membership::{Own, change_elsewhere, change_own, target, way};
use crate::federation::out::knock;
use crate::http::{Answer, Call, Outcome, endpoints};
use crate::worker;

endpoints! {
    POST "/_matrix/client/v3/knock/{roomIdOrAlias}" ["r0", "unstable/xyz.amorgan.knock"] Required Join Json knock_room;
}

async fn knock_room(call: Call) -> Outcome {
    call.refuse_suspended()?;
    let target = target(&call).await?;
    let request: Own = call.json_or_empty()?;
    let way = way(&call, &target)?;
    if way.is_here || way.servers.is_empty() {
        change_own(&call, target.room_id.clone(), MembershipAction::Knock, request.reason).await?;
    } else {
        let (ctx, change) = (call.ctx.clone(), change_elsewhere(&call, &target.room_id, request.reason)?);
        worker::finish(async move { knock::knock(&ctx, &change, &way.servers).await }).await?;
    }
    Answer::json(&json!({ "room_id": target.room_id }))
}
