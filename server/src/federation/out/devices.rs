//! Device lists of which something was missed are asked for anew: whose, in which order, and what is kept, the engine says
//! ([`warren_engine::following`]), several at once. Whoever sees that one is missing tells of it, so that it is asked for at once; what was not
//! told is looked for.
//!
//! Specification: server-server API, "Device Management".

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};
use warren_engine::following::{Asked, Failure, Following, LISTS_MAX};

use super::RemoteError;
use super::ask::{Ask, path};
use crate::context::Context;
use crate::federation::refusals;
use crate::worker::{ended, guarded};

/// How often it is looked for lists that nobody told of: what was made stale in a room, or had no place, or was left alone.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a server may take to tell of a user's devices: as long as a client waits for keys. It has some rows to read.
const LIST_TIME_MAX: Duration = Duration::from_secs(10);

/// Users of whom it is known that their lists are missing, until these are asked for.
#[derive(Default)]
pub struct MissingLists {
    users: Mutex<Vec<String>>,
    news: Notify,
}

impl MissingLists {
    /// Lets the users' lists be asked for as soon as those before them have been. Whoever has no place is found by a look.
    pub fn tell(&self, user_ids: impl IntoIterator<Item = String>) {
        let mut users = self.users.lock();
        for user_id in user_ids {
            if users.len() < LISTS_MAX && !users.contains(&user_id) {
                users.push(user_id);
            }
        }
        if !users.is_empty() {
            self.news.notify_one();
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.users.lock())
    }
}

/// Asks for lists until the server stops.
pub async fn run(ctx: Arc<Context>) {
    let mut following = Following::default();
    let mut asking = JoinSet::new();
    let mut next_look = Instant::now() + LOOK_EVERY;
    loop {
        tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            () = sleep_until(next_look) => {
                if let Err(error) = tokio::task::block_in_place(|| following.look(&ctx.engine)) {
                    warn!(%error, "it cannot be told whose devices are to be asked for");
                }
                next_look = Instant::now() + LOOK_EVERY;
            }
            () = ctx.federation.missing_lists.news.notified() => {}
            Some(answered) = asking.join_next() => {
                if let Some((asked, Some(failure))) = ended("a list of devices", answered) {
                    following.failed(&asked, failure, ctx.engine.now_ms());
                }
            }
        }
        following.hear(ctx.federation.missing_lists.take());
        if let Err(error) = ask_for_all(&ctx, &mut following, &mut asking) {
            warn!(%error, "it cannot be told how the devices of a user are to be asked for");
        }
    }
}

/// Asks for all lists of a round that there are places for.
///
/// Errors: those of the store.
fn ask_for_all(
    ctx: &Arc<Context>,
    following: &mut Following,
    asking: &mut JoinSet<(Asked, Option<Failure>)>,
) -> warren_engine::Result<()> {
    while let Some(asked) = following.next_step(&ctx.engine)? {
        asking.spawn(ctx.under_way.counted(ask(ctx.clone(), asked)));
    }
    Ok(())
}

/// Asks for a list, and says why it could not be had, if so.
async fn ask(ctx: Arc<Context>, asked: Asked) -> (Asked, Option<Failure>) {
    let failure = match guarded("a list of devices", refresh(&ctx, &asked)).await {
        Some(Ok(())) => None,
        Some(Err((failure, error))) => {
            debug!(user_id = asked.place().0, error, "the devices of a user cannot be had");
            Some(failure)
        }
        None => Some(Failure::NoList),
    };
    (asked, failure)
}

/// Asks a user's server for all their devices and keys, and keeps what it says.
///
/// Errors: who is at fault, and a sentence about why they cannot be had or kept.
async fn refresh(ctx: &Context, asked: &Asked) -> Result<(), (Failure, String)> {
    let (user_id, server) = asked.place();
    let target = path("v1/user/devices/{userId}", &[user_id]);
    let answer = timeout(LIST_TIME_MAX, Ask::get(server, target).for_list().bytes(ctx)).await;
    let answer = answer.unwrap_or(Err(RemoteError::Timeout));
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
        | RemoteError::NotAdmitted(_)
        | RemoteError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. } => Failure::SilentServer,
        RemoteError::Refused { .. }
        | RemoteError::BadAnswer(_)
        | RemoteError::NoPlace
        | RemoteError::NoMemory => Failure::NoList,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missing_has_a_place_once_and_not_more_than_a_round() {
        let missing = MissingLists::default();
        missing.tell(["@bob:there.example", "@bob:there.example"].map(str::to_owned));
        missing.tell(["@bob:there.example".to_owned()]);
        assert_eq!(missing.take(), ["@bob:there.example"]);
        missing.tell((0..2 * LISTS_MAX).map(|number| format!("@{number}:there.example")));
        assert_eq!(missing.take().len(), LISTS_MAX);
        assert!(missing.take().is_empty());
    }

    #[test]
    fn who_answers_with_an_error_is_not_silent() {
        let refused = |status| {
            let (errcode, error) = ("M_UNKNOWN".to_owned(), String::new());
            let (retry_after, room_version) = (None, None);
            let has_code = true;
            failure(&RemoteError::Refused { status, errcode, error, retry_after, room_version, has_code })
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
