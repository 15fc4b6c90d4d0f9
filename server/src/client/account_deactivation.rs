//! `account_deactivation.yaml`: closing one's account for ever.

use serde::Deserialize;
use serde_json::json;
use warren_engine::command::{ChangeMembership, Deactivate, MembershipAction};
use warren_engine::view::RoomsOf;
use warren_engine::{Engine, Error, Membership};

use crate::federation::out::policy;
use crate::http::uia::{self, Stage};
use crate::http::{Answer, Call, Outcome, endpoints};
use crate::worker;

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

async fn deactivate(call: Call, erase: bool) -> Outcome {
    let user_id = call.user()?.to_string();
    let ctx = call.ctx.clone();
    worker::finish(async move {
        for leave in close(&ctx.engine, &user_id, erase).await? {
            if let Err(error) = policy::write(&ctx, leave).await {
                // One room that cannot be left must not keep the user in the others.
                tracing::warn!(error = %error.error, "a deactivated user stays in a room");
            }
        }
        Ok::<(), Error>(())
    })
    .await?;
    // There are no third-party identifiers here, so all of them are unbound.
    Answer::json(&json!({ "id_server_unbind_result": "success" }))
}

/// Closes an account. What is left to do is to leave its rooms, also those that it was only invited to.
pub async fn close(engine: &Engine, user_id: &str, erase: bool) -> Result<Vec<ChangeMembership>, Error> {
    engine.write(Deactivate { user_id: user_id.to_owned(), erase }).await?;
    let memberships = &[Membership::Join, Membership::Invite, Membership::Knock];
    let rooms = engine.read(&RoomsOf { user_id, memberships })?;
    let leave = |room_id| ChangeMembership {
        room_id,
        sender: user_id.to_owned(),
        target: user_id.to_owned(),
        action: MembershipAction::Leave,
        reason: None,
        is_guest: false,
    };
    Ok(rooms.into_iter().map(leave).collect())
}
