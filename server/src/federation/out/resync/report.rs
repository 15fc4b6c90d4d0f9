//! What a resynchronisation tells of itself, as it goes on and for as long as the server runs.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use warren_engine::core::num::NodeId;
use warren_engine::intake::Lack;
use warren_engine::view::federation::{ChangedEntry, ChangedState};

/// Entries of a list in a report; how many there are is told beside it.
pub const LISTED_MAX: usize = 1_000;

/// Servers of one report, those that were asked for while it was written among them.
const SERVERS_OF_REPORT_MAX: usize = 100;

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
    /// How many entries of the state are others than when it was begun.
    pub changed: usize,
    pub changes: Vec<Change>,
    /// The root of the room's state when it was begun, which is all that is kept of it.
    #[serde(skip)]
    pub state_before: NodeId,
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
    /// The last events there that cannot be judged yet.
    pub waiting: Vec<Waiting>,
    pub refused: usize,
    pub refusals: Vec<Refusal>,
}

/// An event that is not taken in yet.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    pub event_id: String,
    /// What it takes to judge it, and is not here.
    pub lacks: String,
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
    /// The server that was asked when it changed.
    pub server: String,
}

/// The part of a report that is of one server.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub report: &'a Mutex<Report>,
    pub index: usize,
    pub server: &'a str,
}

impl Resyncs {
    pub fn report(&self, room_id: &str) -> Option<Report> {
        Some(self.0.lock().get(room_id)?.lock().clone())
    }

    /// The report that is being written.
    pub fn running(&self, room_id: &str) -> Option<Report> {
        self.report(room_id).filter(Report::is_active)
    }

    /// A new report, and that it is; or the one that is being written, to which the servers are added. Nothing if these are too many
    /// for it.
    pub fn begin(
        &self,
        room_id: &str,
        servers: Vec<String>,
        state_before: NodeId,
    ) -> Option<(Arc<Mutex<Report>>, bool)> {
        let mut rooms = self.0.lock();
        if let Some(running) = rooms.get(room_id) {
            let mut report = running.lock();
            if report.is_active() {
                return report.add(servers).then(|| (running.clone(), false));
            }
        }
        if rooms.len() >= REPORTS_MAX {
            rooms.retain(|_, report| report.lock().is_active());
        }
        let mut report = Report {
            room_id: room_id.to_owned(),
            status: "active",
            servers: Vec::new(),
            changed: 0,
            changes: Vec::new(),
            state_before,
        };
        if !report.add(servers) {
            return None;
        }
        let report = Arc::new(Mutex::new(report));
        rooms.insert(room_id.to_owned(), report.clone());
        Some((report, true))
    }
}

impl Report {
    fn is_active(&self) -> bool {
        self.status == "active"
    }

    /// Has servers asked, too, but those that wait for it or are being asked. Answers whether there is room for them.
    fn add(&mut self, servers: Vec<String>) -> bool {
        let before = self.servers.len();
        for server in servers {
            let is_unfinished =
                |of: &OfServer| of.server == server && matches!(of.status, "waiting" | "active");
            if !self.servers.iter().any(is_unfinished) {
                self.servers.push(OfServer { server, status: "waiting", ..OfServer::default() });
            }
        }
        let has_room = self.servers.len() <= SERVERS_OF_REPORT_MAX;
        if !has_room {
            self.servers.truncate(before);
        }
        has_room
    }

    /// The next server to be asked, and its place; nothing when all were, with which the report is complete.
    pub fn next_server(&mut self) -> Option<(usize, String)> {
        let mut waiting = self.servers.iter_mut().enumerate().filter(|(_, of)| of.status == "waiting");
        let Some((index, next)) = waiting.next() else {
            self.status = "complete";
            return None;
        };
        next.status = "active";
        Some((index, next.server.clone()))
    }

    /// Nobody goes on with it, whatever became of the work.
    pub fn end(&mut self) {
        self.status = "complete";
        let unfinished = self.servers.iter_mut().filter(|of| !matches!(of.status, "complete" | "failed"));
        unfinished.for_each(|of| of.status = "failed");
    }

    /// Tells what is another in the room's state than when it was begun. What was not told before came about by this server.
    pub fn tell_changes(&mut self, state: ChangedState, server: &str) {
        let told = std::mem::take(&mut self.changes).into_iter();
        let told: HashMap<(String, String), (Option<String>, String)> =
            told.map(|change| ((change.kind, change.state_key), (change.after, change.server))).collect();
        let change = |entry: ChangedEntry| {
            let key = (entry.kind.to_string(), entry.state_key.to_string());
            let [before, after] = [entry.before, entry.after].map(|event| event.map(|id| id.to_string()));
            let by = told.get(&key).filter(|(was, _)| *was == after).map(|(_, by)| by.clone());
            Change {
                kind: key.0,
                state_key: key.1,
                change: match (&before, &after) {
                    (None, _) => "added",
                    (_, None) => "removed",
                    _ => "changed",
                },
                before,
                after,
                server: by.unwrap_or_else(|| server.to_owned()),
            }
        };
        self.changed = state.count;
        self.changes = state.entries.into_iter().map(change).collect();
    }
}

impl Place<'_> {
    /// Tells something of the server at once.
    pub fn note(self, told: impl FnOnce(&mut OfServer)) {
        if let Some(of_server) = self.report.lock().servers.get_mut(self.index) {
            told(of_server);
        }
    }

    /// One of the server's last events waits, of which there are few.
    pub fn wait(self, event_id: &str, lack: &Lack) {
        let waiting = Waiting { event_id: event_id.to_owned(), lacks: lack.to_string() };
        self.note(|of| of.waiting.push(waiting));
    }

    pub fn refuse(self, event_id: &str, reason: String) {
        self.note(|of| {
            of.refused += 1;
            // Of what is not listed there may be very much.
            if of.refusals.len() < LISTED_MAX
                && !of.refusals.iter().any(|refusal| refusal.event_id == event_id)
            {
                of.refusals.push(Refusal { event_id: event_id.to_owned(), reason });
            }
        });
    }
}
