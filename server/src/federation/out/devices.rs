//! Device lists of which something was missed are asked for anew: whose, in which order, and what is kept, the engine says
//! ([`warren_engine::following`]).
//!
//! Specification: server-server API, "Device Management".

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::sleep;
use tracing::{debug, warn};
use warren_engine::following::{Asked, Failure, Following};

use super::RemoteError;
use super::ask::{Ask, path};
use crate::context::Context;
use crate::federation::refusals;

/// How often it is looked for lists to be asked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Asks for lists until the server stops.
pub async fn run(ctx: Arc<Context>) {
    let mut following = Following::default();
    loop {
        tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        let mut looked = tokio::task::block_in_place(|| following.look(&ctx.engine));
        while looked.is_ok() {
            let asked = match following.next_step(&ctx.engine) {
                Ok(Some(asked)) => asked,
                Ok(None) => break,
                Err(error) => {
                    looked = Err(error);
                    continue;
                }
            };
            let refreshed = tokio::select! {
                () = ctx.shutdown.cancelled() => return,
                refreshed = refresh(&ctx, &asked) => refreshed,
            };
            if let Err((failure, error)) = refreshed {
                debug!(user_id = asked.place().0, error, "the devices of a user cannot be had");
                following.failed(&asked, failure, ctx.engine.now_ms());
            }
        }
        if let Err(error) = looked {
            warn!(%error, "it cannot be told whose devices are to be asked for");
        }
    }
}

/// Asks a user's server for all their devices and keys, and keeps what it says.
///
/// Errors: who is at fault, and a sentence about why they cannot be had or kept.
async fn refresh(ctx: &Context, asked: &Asked) -> Result<(), (Failure, String)> {
    let (user_id, server) = asked.place();
    let target = path("v1/user/devices/{userId}", &[user_id]);
    let answer = Ask::get(server, target).for_list().bytes(ctx).await;
    let answer = answer.map_err(|error| (failure(&error), error.to_string()))?;
    let store = asked.answered(&answer).inspect_err(|_| refusals::answer("unreadable"));
    let store = store.map_err(|error| (Failure::NoList, error))?;
    let stored = ctx.engine.write(store).await;
    stored.map(drop).map_err(|error| (Failure::NoList, error.to_string()))
}

/// A server that asks for a pause is not asked for its other users either.
fn failure(error: &RemoteError) -> Failure {
    match error {
        RemoteError::Unreachable(_)
        | RemoteError::Timeout
        | RemoteError::NotAdmitted
        | RemoteError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. } => Failure::SilentServer,
        RemoteError::Refused { .. } | RemoteError::BadAnswer(_) | RemoteError::NoMemory => Failure::NoList,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_with_an_error_is_not_silent() {
        let refused = |status| {
            let (errcode, error) = ("M_UNKNOWN".to_owned(), String::new());
            failure(&RemoteError::Refused { status, errcode, error, retry_after: None, room_version: None })
        };
        for status in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR] {
            assert_eq!(refused(status), Failure::NoList, "{status}");
        }
        assert_eq!(failure(&RemoteError::BadAnswer("too large".to_owned())), Failure::NoList);
        assert_eq!(refused(StatusCode::TOO_MANY_REQUESTS), Failure::SilentServer);
        assert_eq!(failure(&RemoteError::Timeout), Failure::SilentServer);
        assert_eq!(failure(&RemoteError::Unreachable("no route".to_owned())), Failure::SilentServer);
    }
}
