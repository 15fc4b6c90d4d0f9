//! `joining.yaml`: joining rooms.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;
use warren_engine::approach::Change;
use warren_engine::command::MembershipAction;

use super::membership::{
    Own, Target, change_elsewhere, change_here, change_own, room_id, target, turn, via, way, way_of, why_not,
};
use crate::context::Context;
use crate::federation::out::join;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::worker;

/// How long others may take to let in a user whose invite alone is why they are asked: the invite may be made up by who never answers.
/// Whoever means it answers each of the two requests within some seconds, and what it lets in is judged here within thirty.
const BEHIND_TIME_MAX: Duration = Duration::from_secs(60);

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/join"    ["r0"] Guest Join Json join_room_by_id;
    POST "/_matrix/client/v3/join/{roomIdOrAlias}"   ["r0"] Guest Join Json join_room;
}

async fn join_room_by_id(call: Call) -> Outcome {
    let target = Target { room_id: room_id(&call)?, servers: via(&call)? };
    enter(call, target).await
}

async fn join_room(call: Call) -> Outcome {
    let target = target(&call).await?;
    enter(call, target).await
}

async fn enter(call: Call, target: Target) -> Outcome {
    call.refuse_suspended()?;
    let request: Own = call.json_or_empty()?;
    if request.third_party_signed.is_some() {
        return Err(ApiError::threepid_denied(
            "This server uses no identity server to invite by e-mail or phone",
        ));
    }
    let way = way(&call, &target)?;
    // Guests do not come in by way of others, so that no invite of another server's is to keep them out of a room that is here.
    let is_guest_here = call.session()?.is_guest && way.is_only_behind();
    if way.needs_help() && !is_guest_here {
        let change = change_elsewhere(&call, &way, &target.room_id, request.reason)?;
        let (ctx, room_id) = (call.ctx.clone(), target.room_id.clone());
        // The other server lets the user in before this one knows: that must not be left half done.
        let enter = |tell| async move { enter_in_turn(&ctx, change, &target, tell).await };
        worker::finish_behind(&call.ctx, enter).await?;
        return Answer::json(&json!({ "room_id": room_id }));
    }
    change_own(&call, target.room_id.clone(), MembershipAction::Join, request.reason).await?;
    // The room that this one replaces may have said so only since somebody of this server came in. The user is in, whatever becomes of it.
    if let Err(error) = join::move_names(&call.ctx, &target.room_id).await {
        tracing::warn!(room_id = target.room_id, %error, "a room is not found by what the one that it replaces is called");
    }
    Answer::json(&json!({ "room_id": target.room_id }))
}

/// A join that nobody waits for any more.
type Late = Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>>;

/// Lets a user in, and tells what came of it. Their turn is over once nobody is asked to let them in any more: who leaves before that
/// is to be out in the end.
async fn enter_in_turn(
    ctx: &Arc<Context>,
    change: Change,
    target: &Target,
    tell: oneshot::Sender<Result<(), ApiError>>,
) {
    let _own = turn(ctx, &change).await;
    let mut late = None;
    let entered = enter_by(ctx, change, target, &mut late).await;
    // The client may be gone.
    drop(tell.send(entered));
    if let Some(late) = late {
        drop(late.await);
    }
}

async fn enter_by(
    ctx: &Arc<Context>,
    change: Change,
    target: &Target,
    late: &mut Option<Late>,
) -> Result<(), ApiError> {
    let door = ctx.federation.joins.alone(&target.room_id).await;
    // Another user of this server may have come in meanwhile.
    let way = way_of(ctx, &change.user_id, target)?;
    // Where the room is here it is not entered: nobody has to wait for the servers that one user goes by.
    let _door = (!way.is_here).then_some(door);
    if !way.needs_help() {
        return change_here(ctx, change, MembershipAction::Join).await;
    }
    let joined = if way.is_only_behind() {
        let (work, change, servers) = (ctx.clone(), change.clone(), way.servers.clone());
        let until = Some(Instant::now() + BEHIND_TIME_MAX);
        // What was handed in by then is seen to its end, whoever waits: the user may have been let in.
        let asked = async move { join::join(&work, &change, &servers, until).await };
        let mut asked = Box::pin(worker::finish(ctx, asked));
        match timeout(BEHIND_TIME_MAX, &mut asked).await {
            Ok(joined) => joined,
            Err(_) => {
                *late = Some(asked);
                Err(ApiError::unknown("No server that was asked has answered in time"))
            }
        }
    } else {
        join::join(ctx, &change, &way.servers, None).await
    };
    match joined {
        // Who invites them may be gone, or may have made it up.
        Err(error) if way.may_be_behind => {
            let here = change_here(ctx, change, MembershipAction::Join).await;
            here.map_err(|_| why_not(&way, error))
        }
        joined => joined.map_err(|error| why_not(&way, error)),
    }
}
