//! `knocking.yaml`: asking to be let into a room.

use serde_json::json;
use warren_engine::command::MembershipAction;

use super::membership::{Own, change_elsewhere, change_here, change_own, target, turn, way, way_of, why_not};
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
    if way.needs_help_to_knock() {
        let change = change_elsewhere(&call, &way, &target.room_id, request.reason)?;
        let (ctx, room_id) = (call.ctx.clone(), target.room_id.clone());
        worker::finish(&call.ctx, async move {
            let _turn = turn(&ctx, &change).await;
            // The user may have come in meanwhile, or another one of this server.
            let way = way_of(&ctx, &change.user_id, &target)?;
            if !way.needs_help_to_knock() {
                return change_here(&ctx, change, MembershipAction::Knock).await;
            }
            knock::knock(&ctx, &change, &way.servers).await.map_err(|error| why_not(&way, error))
        })
        .await?;
        return Answer::json(&json!({ "room_id": room_id }));
    }
    change_own(&call, target.room_id.clone(), MembershipAction::Knock, request.reason).await?;
    Answer::json(&json!({ "room_id": target.room_id }))
}
