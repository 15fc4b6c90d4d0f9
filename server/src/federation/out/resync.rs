//! A room is resynchronised: other servers are asked where it stands and what its state is there, and what the rules allow of
//! it is adopted.
//!
//! Where a server stands is told by the template that it gives for a leave, which is never sent. Its last events are taken in as
//! any others; then the state before each is compared with the one here. Nothing of it does harm when it is done again. One server
//! holds up the others for a bounded time, and what is told of it is told as it comes.

mod report;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, from_slice};
use tokio::time::timeout;
use warren_engine::command::AdoptState;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::{Answer, Intake};
use warren_engine::view::federation::{PrunedEvents, Spokesmen, StateSince, UnknownEvents};
use warren_engine::{Error, GivenState, LeftOut, Outcome, What};

use super::RemoteError;
use super::ask::{Ask, path};
use super::fetch::{ToldState, follow_up, servers_to_ask, state, take_in_as_told, whole_state};
use super::guests;
use super::join::{At, store};
use super::keys::Cause;
use super::single_events::events;
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;
use report::{LISTED_MAX, Place};
pub use report::{Report, Resyncs};

/// Servers that one request may name.
pub const SERVERS_MAX: usize = 10;

/// Last events of a server that are looked at: as many as an event can follow.
const ENDS_MAX: usize = 20;

/// Time for one server: two of the largest states that take as long as one may. It holds up those behind it, and a second request goes
/// on with what is left.
const SERVER_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// Begins; where it is under way already, the servers that are named are asked behind its own, and its report is answered.
///
/// Errors: 404 if nobody of this server is in the room; 400 if there is no server to ask, or too many are.
pub fn begin(ctx: &Arc<Context>, room_id: &str, named: &[String]) -> Result<Report, ApiError> {
    ctx.engine.read(&Spokesmen { room_id })?;
    let resyncs = &ctx.federation.resyncs;
    if let Some(running) = resyncs.running(room_id).filter(|_| named.is_empty()) {
        return Ok(running);
    }
    let servers = match named {
        [] => servers_to_ask(ctx, room_id, std::iter::empty())?,
        named => named.iter().filter(|server| *server != ctx.engine.server_name()).cloned().collect(),
    };
    if servers.is_empty() {
        return Err(ApiError::invalid_param("There is no other server that could be asked about the room"));
    }
    let now = ctx.engine.read(&StateSince { room_id, before: None, limit: 0 })?;
    let too_many = || ApiError::invalid_param("Too many servers wait to be asked about the room already");
    let (report, is_new) = resyncs.begin(room_id, servers, now.root).ok_or_else(too_many)?;
    if is_new {
        let (work, room_id, report) = (ctx.clone(), room_id.to_owned(), report.clone());
        worker::run(ctx, "resynchronisation of a room", async move {
            let _running = Running(&report);
            resynchronise(&work, &room_id, &report).await;
        });
    }
    let answer = report.lock().clone();
    Ok(answer)
}

/// That a report is being written. When it is dropped, the report is complete, whatever became of the work.
struct Running<'a>(&'a Mutex<Report>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().end();
    }
}

async fn resynchronise(ctx: &Arc<Context>, room_id: &str, report: &Mutex<Report>) {
    loop {
        let next = report.lock().next_server();
        let Some((index, server)) = next else { return };
        let place = Place { report, index, server: &server };
        let done = within(SERVER_TIME_MAX, ask_server(ctx, room_id, place)).await;
        tell_changes(ctx, room_id, place);
        let (status, error) = match done {
            Ok(()) => ("complete", None),
            Err(error) => ("failed", Some(error.error.into_owned())),
        };
        tracing::info!(room_id, server, status, ?error, "a room is resynchronised with a server");
        // What waited for what has come now goes on.
        follow_up(ctx, room_id);
        place.note(|of| (of.status, of.error) = (status, error));
    }
}

/// Lets a server be asked for so long and no longer. What has come of it by then stays.
async fn within(
    time_max: Duration,
    asked: impl Future<Output = Result<(), ApiError>>,
) -> Result<(), ApiError> {
    let late = || ApiError::unknown(format!("It takes longer than {} s", time_max.as_secs()));
    timeout(time_max, asked).await.unwrap_or_else(|_| Err(late()))
}

/// Tells what is another in the room's state by now, whatever changed it: last events that were taken in and what was missing before them,
/// as well as what was adopted.
fn tell_changes(ctx: &Context, room_id: &str, place: Place<'_>) {
    let before = Some(place.report.lock().state_before);
    let view = StateSince { room_id, before, limit: LISTED_MAX };
    match tokio::task::block_in_place(|| ctx.engine.read(&view)) {
        Ok(state) => place.report.lock().tell_changes(state, place.server),
        // A purge of the history may have taken what the state was.
        Err(error) => tracing::warn!(room_id, %error, "it cannot be told what changed in a room's state"),
    }
}

/// Asks one server. What it tells, and what that changes, is in the report at once.
async fn ask_server(ctx: &Arc<Context>, room_id: &str, place: Place<'_>) -> Result<(), ApiError> {
    let (user_ids, version) = ctx.engine.read(&Spokesmen { room_id })?;
    let ends = last_events(ctx, place.server, room_id, &user_ids).await?;
    place.note(|of| of.last_events = ends.len());
    take_in_ends(ctx, (room_id, version), &ends, place).await?;
    tell_changes(ctx, room_id, place);
    let mut asked_for = HashSet::new();
    let mut untold = Vec::new();
    for end in &ends {
        match state(ctx, place.server, room_id, end).await? {
            Ok(told) => compare(ctx, (room_id, version), (end, told), &mut asked_for, place).await?,
            // It would be as silent about the others.
            Err(failure @ (RemoteError::Timeout | RemoteError::Unreachable(_))) => return Err(failure.into()),
            Err(failure) => {
                place.refuse(end, format!("the state before it is not told: {failure}"));
                untold.push(failure);
            }
        }
    }
    match untold.pop() {
        Some(failure) if untold.len() + 1 == ends.len() => Err(failure.into()),
        _ => Ok(()),
    }
}

/// Compares the state before a last event with the one here, and adopts what the rules allow of it.
async fn compare(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    (end, told): (&Arc<str>, ToldState),
    asked_for: &mut HashSet<Arc<str>>,
    place: Place<'_>,
) -> Result<(), ApiError> {
    let Answer::State { state, pdus, .. } = &told.answer else { return Ok(()) };
    place.note(|of| of.state_events_fetched += pdus.len());
    let pdus: Vec<Box<RawValue>> = pdus.iter().filter_map(|pdu| from_slice(pdu).ok()).collect();
    let cause = Cause::Kept(place.server.to_owned());
    store(ctx, (room_id, &cause), version, At::Compared, (pdus, Vec::new()), |_, _| {}).await?;
    make_whole(ctx, (room_id, version), (end, state), asked_for, place).await?;
    let given = GivenState { event_id: end.clone(), state: state.clone() };
    let adopt = AdoptState { room_id: room_id.to_owned(), state: given };
    match tokio::task::block_in_place(|| ctx.engine.write(adopt)).await {
        Ok(adopted) => {
            place.note(|of| of.differing += adopted.differing);
            for (event_id, why) in &adopted.left_out {
                place.refuse(event_id, why.to_string());
            }
            tell_changes(ctx, room_id, place);
            // Those whose leaves its policy server has to sign.
            guests::begin_to_remove(ctx, room_id);
            Ok(())
        }
        // The event has been refused, which is told already.
        Err(Error::NotFound(What::Event)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has the server tell those events of the state before `end` that are here without their content, and were not `asked_for` before:
/// what it prunes where it is asked for single events or for history, it tells whole as part of a state.
async fn make_whole(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    (end, state): (&str, &[Arc<str>]),
    asked_for: &mut HashSet<Arc<str>>,
    place: Place<'_>,
) -> Result<(), ApiError> {
    let mut pruned = pruned_among(ctx, state)?;
    pruned.retain(|event_id| asked_for.insert(event_id.clone()));
    if pruned.is_empty() {
        return Ok(());
    }
    let server = place.server;
    let (whole, _memory) = match whole_state(ctx, server, room_id, end, |_| {}).await {
        Ok(told) => told,
        Err(failure) => {
            // What it has told of the state by ids is compared all the same.
            tracing::info!(room_id, server, %failure, "a server does not tell a room's state whole");
            return Ok(());
        }
    };
    let told = (whole.pdus, whole.auth_chain);
    let cause = Cause::Kept(server.to_owned());
    store(ctx, (room_id, &cause), version, At::Compared, told, |_, _| {}).await?;
    let left = pruned_among(ctx, &pruned)?;
    place.note(|of| of.state_events_made_whole += pruned.len().saturating_sub(left.len()));
    Ok(())
}

/// Each of many events is hashed.
fn pruned_among(ctx: &Context, event_ids: &[Arc<str>]) -> Result<Vec<Arc<str>>, ApiError> {
    Ok(tokio::task::block_in_place(|| ctx.engine.read(&PrunedEvents { event_ids }))?)
}

#[derive(Deserialize)]
struct Template {
    event: LastEvents,
}

#[derive(Deserialize)]
struct LastEvents {
    prev_events: Vec<Value>,
}

/// The events that one which is sent there now would follow, as the first of the users is told who is known to be in the room there.
async fn last_events(
    ctx: &Context,
    server: &str,
    room_id: &str,
    user_ids: &[Arc<str>],
) -> Result<Vec<Arc<str>>, ApiError> {
    let is_not_known = |failure: &RemoteError| {
        matches!(failure, RemoteError::Refused { status: StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, .. })
    };
    let mut refused = ApiError::from(Error::NotFound(What::Room));
    for user_id in user_ids {
        let target = path("v1/make_leave/{roomId}/{userId}", &[room_id, user_id]);
        match Ask::get(server, target).for_event().read::<Template>(ctx).await {
            Ok(template) => return Ok(template.event.ids()),
            Err(failure) if is_not_known(&failure) => refused = failure.into(),
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(refused)
}

impl LastEvents {
    fn ids(&self) -> Vec<Arc<str>> {
        // In room versions 1 and 2 an id stands before its hashes.
        let id = |reference: &Value| reference.as_str().or_else(|| reference.get(0)?.as_str()).map(Arc::from);
        self.prev_events.iter().filter_map(id).take(ENDS_MAX).collect()
    }
}

/// Takes in those of the server's last events that are not here, with what is missing before them.
async fn take_in_ends(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    ends: &[Arc<str>],
    place: Place<'_>,
) -> Result<(), ApiError> {
    let unknown = ctx.engine.read(&UnknownEvents { event_ids: ends })?;
    let mut intake = Intake::new(room_id.to_owned(), version, events(ctx, place.server, &unknown).await?);
    take_in_as_told(ctx, &mut intake, place.server).await?;
    for (event_id, outcome) in &intake.outcomes {
        let reason = match outcome {
            Outcome::Accepted => {
                place.note(|of| of.events_accepted += 1);
                continue;
            }
            Outcome::Known | Outcome::Stored | Outcome::Past | Outcome::Waiting => continue,
            Outcome::SoftFailed(denied) => format!("soft-failed: {denied}"),
            Outcome::Rejected(denied) => format!("rejected: {denied}"),
            Outcome::Refused(refused) => refused.to_string(),
            Outcome::NotRecommended => "the room's policy server has not signed it".to_owned(),
        };
        place.refuse(event_id, reason);
    }
    let lacks = intake.lacks();
    for event_id in &unknown {
        match (intake.outcomes.get(event_id), lacks.get(event_id)) {
            (None | Some(Outcome::Stored), Some(lack)) => place.wait(event_id, lack),
            (None, None) => place.refuse(event_id, LeftOut::NotHere.to_string()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use warren_engine::core::num::NodeId;
    use warren_engine::view::federation::{ChangedEntry, ChangedState};

    use super::*;

    const ROOM: &str = "!a:here.test";

    fn begin(resyncs: &Resyncs, servers: &[&str]) -> Option<(Arc<Mutex<Report>>, bool)> {
        resyncs.begin(ROOM, servers.iter().map(ToString::to_string).collect(), NodeId(1))
    }

    fn next(report: &Mutex<Report>) -> Option<String> {
        Some(report.lock().next_server()?.1)
    }

    #[test]
    fn a_resynchronisation_that_falls_is_over_and_can_be_begun_again() {
        let resyncs = Resyncs::default();
        let (report, is_new) = begin(&resyncs, &["there.test"]).unwrap();
        assert!(is_new && !begin(&resyncs, &["there.test"]).unwrap().1, "it is under way");
        let fallen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _running = Running(&report);
            panic!("a fault of ours");
        }));
        assert!(fallen.is_err());
        let told = resyncs.report(ROOM).unwrap();
        assert_eq!((told.status, told.servers[0].status), ("complete", "failed"));
        assert!(begin(&resyncs, &["there.test"]).unwrap().1);
    }

    #[test]
    fn servers_that_are_asked_for_meanwhile_are_asked_once() {
        let resyncs = Resyncs::default();
        let (report, _) = begin(&resyncs, &["a.test", "b.test", "a.test"]).unwrap();
        assert_eq!(next(&report).as_deref(), Some("a.test"));
        assert!(!begin(&resyncs, &["a.test", "c.test", "b.test"]).unwrap().1);
        assert_eq!(next(&report).as_deref(), Some("b.test"));
        assert_eq!(next(&report).as_deref(), Some("c.test"));
        let many: Vec<String> = (0..100).map(|n| format!("s{n}.test")).collect();
        assert!(resyncs.begin(ROOM, many, NodeId(1)).is_none(), "a report does not grow for ever");
        assert_eq!((next(&report), resyncs.running(ROOM).is_none()), (None, true));
        assert!(begin(&resyncs, &["d.test"]).unwrap().1, "what is complete takes no more");
    }

    #[tokio::test]
    async fn a_server_has_so_much_time() {
        let error = within(Duration::ZERO, std::future::pending()).await.expect_err("it never ends");
        assert_eq!(error.error, "It takes longer than 0 s");
        within(Duration::from_secs(3_600), std::future::ready(Ok(()))).await.expect("it is quick");
    }

    #[test]
    fn a_change_is_of_the_server_that_was_asked_when_it_came() {
        let resyncs = Resyncs::default();
        let (report, _) = begin(&resyncs, &["a.test"]).unwrap();
        let entry = |kind: &str, after: &str| ChangedEntry {
            kind: kind.into(),
            state_key: "".into(),
            before: Some("$was".into()),
            after: Some(after.into()),
        };
        let tell = |entries: Vec<ChangedEntry>, server: &str| {
            let state = ChangedState { root: NodeId(2), count: entries.len(), entries };
            report.lock().tell_changes(state, server);
            let report = report.lock();
            report.changes.iter().map(|change| change.server.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            tell(vec![entry("m.room.name", "$a"), entry("m.room.topic", "$b")], "a.test"),
            ["a.test"; 2]
        );
        let now = vec![entry("m.room.name", "$a"), entry("m.room.topic", "$c")];
        assert_eq!(tell(now, "b.test"), ["a.test", "b.test"]);
    }
}
