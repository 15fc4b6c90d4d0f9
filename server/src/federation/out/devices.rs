//! Device lists of which something was missed are asked for anew: whose, in which order, and what is kept, the engine says
//! ([`warren_engine::following`]).
//!
//! Specification: server-server API, "Device Management".

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};
use warren_engine::following::{Asked, Following};

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
            if let Err(error) = refreshed {
                debug!(user_id = asked.place().0, error, "the devices of a user cannot be had");
                following.failed(&asked, ctx.engine.now_ms());
            }
        }
        if let Err(error) = looked {
            warn!(%error, "it cannot be told whose devices are to be asked for");
        }
    }
}

/// Asks a user's server for all their devices and keys, and keeps what it says.
///
/// Errors: a sentence about why they cannot be had or kept.
async fn refresh(ctx: &Context, asked: &Asked) -> Result<(), String> {
    let (user_id, server) = asked.place();
    let target = path("v1/user/devices/{userId}", &[user_id]);
    let answer = Ask::get(server, target).for_list().bytes(ctx).await.map_err(|error| error.to_string())?;
    let answered = asked.answered(&answer).inspect_err(|_| refusals::answer("unreadable"))?;
    ctx.engine.write(answered).await.map(drop).map_err(|error| error.to_string())
}
