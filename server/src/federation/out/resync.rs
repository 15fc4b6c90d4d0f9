//! A room is resynchronised: other servers are asked where it stands and what its state is there, and what the rules allow of
//! it is adopted.
//!
//! Where a server stands is told by the template that it gives for a leave, which is never sent. Its last events are taken in as
//! any others; then the state before each is compared with the one here. Nothing of it does harm when it is done again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, from_slice};
use warren_engine::command::AdoptState;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::{Answer, Intake};
use warren_engine::view::federation::{PrunedEvents, Spokesman, UnknownEvents};
use warren_engine::{Adopted, Error, GivenState, LeftOut, Outcome, What};

use super::ask::{Ask, path};
use super::fetch::{follow_up, servers_to_ask, state, take_in, whole_state};
use super::guests;
use super::join::{At, store};
use super::keys::Cause;
use super::single_events::events;
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

/// Servers that one request may name.
pub const SERVERS_MAX: usize = 10;

/// Last events of a server that are looked at: as many as an event can follow.
const ENDS_MAX: usize = 20;

/// Entries of a list in a report; how many there are is told beside it.
const LISTED_MAX: usize = 1_000;

/// Reports that are kept, of which those that are over make room for new ones.
const REPORTS_MAX: usize = 100;

/// What was done in which rooms since the server was started.
#[derive(Default)]
pub struct Resyncs(Mutex<HashMap<String, Arc<Mutex<Report>>>>);

/// How far it is, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub room_id: String,
    /// `active`, or `complete` when all servers were asked.
    pub status: &'static str,
    /// In the order in which they are asked.
    pub servers: Vec<OfServer>,
    /// How many entries of the state are others now.
    pub changed: usize,
    pub changes: Vec<Change>,
}

/// What one server told.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OfServer {
    pub server: String,
    /// `waiting`, `active`, `complete`, `failed`.
    pub status: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The last events of the room there.
    pub last_events: usize,
    /// Events of the room that were taken in, with those that were missing before them.
    pub events_accepted: usize,
    /// Events of states that were not here before.
    pub state_events_fetched: usize,
    /// Events of states that were here without their content, and have it now.
    pub state_events_made_whole: usize,
    /// Entries of the state that are others there.
    pub differing: usize,
    pub refused: usize,
    pub refusals: Vec<Refusal>,
}

/// An event that is not taken over.
#[derive(Debug, Clone, Serialize)]
pub struct Refusal {
    pub event_id: String,
    pub reason: String,
}

/// An entry of the state that is another one now.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    #[serde(rename = "type")]
    pub kind: String,
    pub state_key: String,
    /// `added`, `changed`, `removed`.
    pub change: &'static str,
    pub before: Option<String>,
    pub after: Option<String>,
    /// By what server's word.
    pub server: String,
}

impl Resyncs {
    pub fn report(&self, room_id: &str) -> Option<Report> {
        Some(self.0.lock().get(room_id)?.lock().clone())
    }

    /// A new report, or the one that is being written.
    fn begin(&self, room_id: &str, servers: Vec<String>) -> (Arc<Mutex<Report>>, bool) {
        let mut rooms = self.0.lock();
        if let Some(running) = rooms.get(room_id).filter(|report| report.lock().status == "active") {
            return (running.clone(), false);
        }
        if rooms.len() >= REPORTS_MAX {
            rooms.retain(|_, report| report.lock().status == "active");
        }
        let waiting = |server| OfServer { server, status: "waiting", ..OfServer::default() };
        let report = Arc::new(Mutex::new(Report {
            room_id: room_id.to_owned(),
            status: "active",
            servers: servers.into_iter().map(waiting).collect(),
            changed: 0,
            changes: Vec::new(),
        }));
        rooms.insert(room_id.to_owned(), report.clone());
        (report, true)
    }
}

/// Begins, unless it is under way: then the report of that is answered.
///
/// Errors: 404 if nobody of this server is in the room; 400 if there is no server to ask.
pub fn begin(ctx: &Arc<Context>, room_id: &str, named: &[String]) -> Result<Report, ApiError> {
    ctx.engine.read(&Spokesman { room_id })?;
    let servers = match named {
        [] => servers_to_ask(ctx, room_id, std::iter::empty())?,
        named => named.iter().filter(|server| *server != ctx.engine.server_name()).cloned().collect(),
    };
    if servers.is_empty() {
        return Err(ApiError::invalid_param("There is no other server that could be asked about the room"));
    }
    let (report, is_new) = ctx.federation.resyncs.begin(room_id, servers);
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
        let mut report = self.0.lock();
        report.status = "complete";
        for server in
            report.servers.iter_mut().filter(|server| !matches!(server.status, "complete" | "failed"))
        {
            server.status = "failed";
        }
    }
}

async fn resynchronise(ctx: &Arc<Context>, room_id: &str, report: &Mutex<Report>) {
    let count = report.lock().servers.len();
    for index in 0..count {
        let mut of_server = match report.lock().servers.get_mut(index) {
            Some(of_server) => {
                of_server.status = "active";
                of_server.clone()
            }
            None => continue,
        };
        let done = ask_server(ctx, room_id, &mut of_server, report).await;
        of_server.status = match done {
            Ok(()) => "complete",
            Err(error) => {
                of_server.error = Some(error.error.into_owned());
                "failed"
            }
        };
        let OfServer { server, status, error, .. } = &of_server;
        tracing::info!(room_id, server, status, ?error, "a room is resynchronised with a server");
        if let Some(place) = report.lock().servers.get_mut(index) {
            *place = of_server;
        }
    }
    // What waited for what has come now goes on.
    follow_up(ctx, room_id);
}

/// Asks one server. What it is told to have changed is in the report at once.
async fn ask_server(
    ctx: &Arc<Context>,
    room_id: &str,
    of_server: &mut OfServer,
    report: &Mutex<Report>,
) -> Result<(), ApiError> {
    let (user_id, version) = ctx.engine.read(&Spokesman { room_id })?;
    let server = of_server.server.clone();
    let ends = last_events(ctx, &server, room_id, &user_id).await?;
    of_server.last_events = ends.len();
    take_in_ends(ctx, room_id, version, &ends, of_server).await?;
    let mut asked_for = HashSet::new();
    for end in &ends {
        let told = state(ctx, &server, room_id, end).await??;
        let Answer::State { state, pdus, .. } = &told.answer else { continue };
        of_server.state_events_fetched += pdus.len();
        let pdus: Vec<Box<RawValue>> = pdus.iter().filter_map(|pdu| from_slice(pdu).ok()).collect();
        let cause = Cause::Kept(server.clone());
        store(ctx, (room_id, &cause), version, At::Compared, (pdus, Vec::new()), |_, _| {}).await?;
        make_whole(ctx, (room_id, version), (end, state), &mut asked_for, of_server).await?;
        let given = GivenState { event_id: end.clone(), state: state.clone() };
        let adopt = AdoptState { room_id: room_id.to_owned(), state: given };
        match tokio::task::block_in_place(|| ctx.engine.write(adopt)).await {
            Ok(adopted) => {
                note(of_server, report, adopted);
                // Those whose leaves its policy server has to sign.
                guests::begin_to_remove(ctx, room_id);
            }
            // The event has been refused, which is told already.
            Err(Error::NotFound(What::Event)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Has the server tell those events of the state before `end` that are here without their content, and were not `asked_for` before:
/// what it prunes where it is asked for single events or for history, it tells whole as part of a state.
async fn make_whole(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    (end, state): (&str, &[Arc<str>]),
    asked_for: &mut HashSet<Arc<str>>,
    of_server: &mut OfServer,
) -> Result<(), ApiError> {
    let mut pruned = pruned_among(ctx, state)?;
    pruned.retain(|event_id| asked_for.insert(event_id.clone()));
    if pruned.is_empty() {
        return Ok(());
    }
    let server = of_server.server.clone();
    let (whole, _memory) = match whole_state(ctx, &server, room_id, end, |_| {}).await {
        Ok(told) => told,
        Err(failure) => {
            // What it has told of the state by ids is compared all the same.
            tracing::info!(room_id, server, %failure, "a server does not tell a room's state whole");
            return Ok(());
        }
    };
    let told = (whole.pdus, whole.auth_chain);
    let cause = Cause::Kept(server);
    store(ctx, (room_id, &cause), version, At::Compared, told, |_, _| {}).await?;
    let left = pruned_among(ctx, &pruned)?;
    of_server.state_events_made_whole += pruned.len().saturating_sub(left.len());
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

/// The events that one which is sent there now would follow.
async fn last_events(
    ctx: &Context,
    server: &str,
    room_id: &str,
    user_id: &str,
) -> Result<Vec<Arc<str>>, ApiError> {
    let target = path("v1/make_leave/{roomId}/{userId}", &[room_id, user_id]);
    let template: Template = Ask::get(server, target).for_event().read(ctx).await?;
    // In room versions 1 and 2 an id stands before its hashes.
    let id = |reference: &Value| reference.as_str().or_else(|| reference.get(0)?.as_str()).map(Arc::from);
    Ok(template.event.prev_events.iter().filter_map(id).take(ENDS_MAX).collect())
}

/// Takes in those of the server's last events that are not here, with what is missing before them.
async fn take_in_ends(
    ctx: &Arc<Context>,
    room_id: &str,
    version: &'static RoomVersion,
    ends: &[Arc<str>],
    of_server: &mut OfServer,
) -> Result<(), ApiError> {
    let server = of_server.server.clone();
    let unknown = ctx.engine.read(&UnknownEvents { event_ids: ends })?;
    let mut intake = Intake::new(room_id.to_owned(), version, events(ctx, &server, &unknown).await?);
    take_in(ctx, &mut intake, &[server]).await?;
    for (event_id, outcome) in &intake.outcomes {
        let reason = match outcome {
            Outcome::Accepted => {
                of_server.events_accepted += 1;
                continue;
            }
            Outcome::Known | Outcome::Stored | Outcome::Past | Outcome::Waiting => continue,
            Outcome::SoftFailed(denied) => format!("soft-failed: {denied}"),
            Outcome::Rejected(denied) => format!("rejected: {denied}"),
            Outcome::Refused(refused) => refused.to_string(),
            Outcome::NotRecommended => "the room's policy server has not signed it".to_owned(),
        };
        of_server.refuse(event_id, reason);
    }
    for event_id in &unknown {
        if !intake.outcomes.contains_key(event_id) {
            of_server.refuse(event_id, LeftOut::NotHere.to_string());
        }
    }
    Ok(())
}

impl OfServer {
    fn refuse(&mut self, event_id: &str, reason: String) {
        self.refused += 1;
        let is_listed = self.refusals.iter().any(|refusal| refusal.event_id == event_id);
        if !is_listed && self.refusals.len() < LISTED_MAX {
            self.refusals.push(Refusal { event_id: event_id.to_owned(), reason });
        }
    }
}

fn note(of_server: &mut OfServer, report: &Mutex<Report>, adopted: Adopted) {
    of_server.differing += adopted.differing;
    for (event_id, why) in &adopted.left_out {
        of_server.refuse(event_id, why.to_string());
    }
    let mut report = report.lock();
    report.changed += adopted.changes.len();
    for entry in adopted.changes {
        if report.changes.len() >= LISTED_MAX {
            break;
        }
        report.changes.push(Change {
            change: match (&entry.before, &entry.after) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            },
            kind: entry.kind.to_string(),
            state_key: entry.state_key.to_string(),
            before: entry.before.map(|event_id| event_id.to_string()),
            after: entry.after.map(|event_id| event_id.to_string()),
            server: of_server.server.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resynchronisation_that_falls_is_over_and_can_be_begun_again() {
        let resyncs = Resyncs::default();
        let begin = || resyncs.begin("!a:here.test", vec!["there.test".to_owned()]);
        let (report, is_new) = begin();
        assert!(is_new && !begin().1, "it is under way");
        let fallen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _running = Running(&report);
            panic!("a fault of ours");
        }));
        assert!(fallen.is_err());
        let told = resyncs.report("!a:here.test").unwrap();
        assert_eq!((told.status, told.servers[0].status), ("complete", "failed"));
        assert!(begin().1);
    }
}
