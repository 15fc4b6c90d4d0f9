//! `account_deactivation.yaml`: closing one's account for ever.
//!
//! Invariant: the engine has a mark of a closed account until its rooms are left, also those that the user was only invited to.
//! What a crash, or a server that cannot be reached, keeps from being done is taken up again.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use tracing::warn;
use warren_engine::approach::Change;
use warren_engine::command::{ChangeMembership, Deactivate, EndDeactivation, MembershipAction};
use warren_engine::view::RoomsOf;
use warren_engine::view::federation::{OpenMembership, OutOfBandMembership};
use warren_engine::{Engine, Error, Membership};

use crate::context::Context;
use crate::errands::{Errand, Turn, may_pass};
use crate::federation::out::{leave, policy};
use crate::http::uia::{self, Stage};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::worker;

/// How many invites and knocks of a user are answered at once: each may wait for servers that are gone.
const ELSEWHERE_AT_ONCE: usize = 10;

endpoints! {
    POST "/_matrix/client/v3/account/deactivate" ["r0"] Required Login Json post_deactivate;
}

async fn post_deactivate(call: Call) -> Outcome {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        erase: bool,
    }
    let call = uia::fill_in(call)?;
    let Request { erase } = call.json_or_empty()?;
    uia::perform(call, &[&[Stage::Password]], |call, _| deactivate(call, erase)).await
}

/// The rooms that are here are left before it is answered. Other servers are not waited for.
async fn deactivate(call: Call, erase: bool) -> Outcome {
    let user_id = call.user()?.to_string();
    let ctx = call.ctx.clone();
    worker::finish(&call.ctx, async move {
        let turn = Turn::take(&ctx, Errand::Departure(user_id.clone()), true);
        ctx.engine.write(Deactivate { user_id: user_id.clone(), erase }).await?;
        let left = leave_here(&ctx, &user_id).await?;
        let work = ctx.clone();
        worker::run(&ctx, "invites of a closed account", async move {
            if end(&work, &user_id, left).await
                && let Some(turn) = turn
            {
                turn.done();
            }
        });
        Ok::<(), Error>(())
    })
    .await?;
    // There are no third-party identifiers here, so all of them are unbound.
    Answer::json(&json!({ "id_server_unbind_result": "success" }))
}

/// Goes on with what is left to do for a closed account. Answers whether all is done.
pub async fn leave_rooms(ctx: &Arc<Context>, user_id: &str) -> bool {
    match leave_here(ctx, user_id).await {
        Ok(left) => end(ctx, user_id, left).await,
        Err(error) => {
            warn!(user_id, %error, "the rooms of a closed account cannot be told");
            false
        }
    }
}

/// What is left to do when a user has left the rooms that are here.
struct Left {
    elsewhere: Vec<(Change, OpenMembership)>,
    /// Whether nothing has to be tried again.
    is_over: bool,
}

/// A room that a user has to leave.
pub enum Departure {
    /// By an event of this server.
    Here(ChangeMembership),
    /// By way of a server that is in the room.
    Elsewhere(Change, OpenMembership),
}

/// The rooms of a user, also those that they were only invited to.
pub fn departures(engine: &Engine, user_id: &str) -> Result<Vec<Departure>, Error> {
    let memberships = &[Membership::Join, Membership::Invite, Membership::Knock];
    let rooms = engine.read(&RoomsOf { user_id, memberships })?;
    let change = |room_id| Change { room_id, user_id: user_id.to_owned(), reason: None };
    rooms.into_iter().map(|room_id| departure(engine, change(room_id))).collect()
}

/// How a user leaves a room: an invite or a knock that only another server knows of is answered there.
pub fn departure(engine: &Engine, change: Change) -> Result<Departure, Error> {
    let Change { room_id, user_id, .. } = &change;
    match engine.read(&OutOfBandMembership { room_id: room_id.clone(), user_id: user_id.clone() }) {
        Ok(open) => Ok(Departure::Elsewhere(change, open)),
        Err(Error::NotFound(_)) => Ok(Departure::Here(ChangeMembership {
            room_id: change.room_id,
            sender: change.user_id.clone(),
            target: change.user_id,
            action: MembershipAction::Leave,
            reason: change.reason,
            is_guest: false,
        })),
        Err(error) => Err(error),
    }
}

/// Leaves the rooms that are here. One that cannot be left must not keep the user in the others.
///
/// Errors: those of the store.
async fn leave_here(ctx: &Arc<Context>, user_id: &str) -> Result<Left, Error> {
    let mut left = Left { elsewhere: Vec::new(), is_over: true };
    for departure in departures(&ctx.engine, user_id)? {
        match departure {
            Departure::Here(leave) => left.is_over &= is_over(policy::write(ctx, leave).await),
            Departure::Elsewhere(change, open) => left.elsewhere.push((change, open)),
        }
    }
    Ok(left)
}

/// Answers the invites and knocks that only other servers know of, and notes that all is done, if it is. Answers whether it is.
async fn end(ctx: &Arc<Context>, user_id: &str, left: Left) -> bool {
    let Left { mut elsewhere, mut is_over } = left;
    while !elsewhere.is_empty() {
        let some = elsewhere.split_off(elsewhere.len().saturating_sub(ELSEWHERE_AT_ONCE));
        is_over &= leave_elsewhere(ctx, some).await;
    }
    if is_over && let Err(error) = ctx.engine.write(EndDeactivation { user_id: user_id.to_owned() }).await {
        warn!(user_id, %error, "it cannot be noted that a closed account has left its rooms");
        return false;
    }
    is_over
}

async fn leave_elsewhere(ctx: &Arc<Context>, some: Vec<(Change, OpenMembership)>) -> bool {
    let leaves = some.into_iter().map(|(change, open)| {
        let ctx = ctx.clone();
        async move { leave::leave(&ctx, &change, &open).await }
    });
    let left = worker::all_side_by_side(ctx, leaves.collect::<Vec<_>>()).await;
    left.is_ok_and(|left| left.into_iter().all(is_over))
}

/// Whether it need not be tried again: what is refused would be for ever.
fn is_over(left: Result<(), ApiError>) -> bool {
    match left {
        Ok(()) => true,
        Err(error) => {
            warn!(error = %error.error, "the user of a closed account stays in a room");
            !may_pass(&error)
        }
    }
}
