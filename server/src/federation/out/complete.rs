//! Members that were left out of a join are fetched behind it, and again after a restart until all are here. Whoever asks for
//! them meanwhile waits, a bounded time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use warren_engine::GivenState;
use warren_engine::command::CompleteState;
use warren_engine::core::num::UserNum;
use warren_engine::view::AwaitedMembers;
use warren_engine::view::federation::{IncomingRoom, PartialRoom, PartialRooms};

use super::early_receipts::settle;
use super::fetch::{follow_up, whole_state};
use super::join::{At, store};
use super::keys::Cause;
use super::{RemoteError, guests};
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

/// The first pause after all servers were asked in vain, which doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(30 * 60);

/// How long a client waits for members: less than the half minute after which clients give a request up. Who is told to come
/// back has lost nothing, while who is told less than all would share the keys of an encrypted room with nobody.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// Servers that are asked in one round: the one that let this server in, which has the state, and some of the others, in turn.
const SERVERS_ASKED_MAX: usize = 10;

/// The rooms whose members are being fetched, and how far they are.
#[derive(Default)]
pub struct Completions {
    rooms: Mutex<HashMap<String, Progress>>,
    /// Wakes who waits for one of them.
    ended: Notify,
    /// Wakes who pauses between two rounds, for the room may have been joined anew, or a server be back.
    overtaken: Notify,
}

/// How far the members of a room have come, since the server was started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    pub stage: Stage,
    /// The server that is asked, or was asked last.
    pub server: Option<String>,
    /// What has come of its answer.
    pub bytes_received: usize,
    /// How many events it has told, once its answer is here; and of these, how many are in the database.
    pub state_events_expected: Option<usize>,
    pub state_events_stored: usize,
    /// How often all servers were asked in vain.
    pub rounds_failed: u32,
    pub last_error: Option<Failure>,
    /// When the next round begins, in milliseconds since the epoch.
    pub next_try_ts: Option<u64>,
    /// The servers that gave no answer of their own in the last round, and those of them that were heard from since.
    #[serde(skip)]
    unreached: Vec<String>,
    #[serde(skip)]
    heard: Vec<String>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Nothing, until the next try.
    #[default]
    Waiting,
    /// A server is asked.
    Fetching,
    /// Signatures of what it told are checked, for which keys may have to be asked for.
    Checking,
    /// What it told is written.
    Storing,
}

/// Why a server did not help.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    pub server: String,
    pub error: String,
    /// When, in milliseconds since the epoch.
    pub ts: u64,
}

impl Completions {
    /// Waits while members of a room are being fetched, as long as those are that are `awaited`.
    async fn ended(&self, room_id: &str, awaited: impl Fn() -> bool) {
        loop {
            let mut ended = pin!(self.ended.notified());
            // From here on nothing is missed.
            ended.as_mut().enable();
            let is_at_it = self.rooms.lock().contains_key(room_id);
            if !is_at_it || !awaited() {
                return;
            }
            ended.await;
        }
    }

    /// How far a room is; nothing if nobody is at it.
    pub fn progress(&self, room_id: &str) -> Option<Progress> {
        self.rooms.lock().get(room_id).cloned()
    }

    /// Whether a server of those was heard from that could not be asked.
    fn is_heard(&self, room_id: &str) -> bool {
        self.rooms.lock().get(room_id).is_some_and(|progress| !progress.heard.is_empty())
    }

    fn note(&self, room_id: &str, what: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.rooms.lock().get_mut(room_id) {
            what(progress);
        }
    }
}

/// That the members of a room are being fetched, until it is dropped.
struct Mark<'a>(&'a Completions, &'a str);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.0.rooms.lock().remove(self.1);
        self.0.ended.notify_waiters();
    }
}

/// Takes up all rooms that lack members.
pub fn take_up(ctx: &Arc<Context>) {
    match ctx.engine.read(&PartialRooms) {
        Ok(rooms) => rooms.into_iter().for_each(|room| begin(ctx, room)),
        Err(error) => tracing::warn!(%error, "it cannot be told which rooms lack members"),
    }
}

/// Asks a server again that could not be asked, and is heard from.
pub fn take_up_of(ctx: &Context, server: &str) {
    let completions = &ctx.federation.completions;
    let mut is_waited_for = false;
    for progress in completions.rooms.lock().values_mut() {
        if progress.unreached.iter().any(|unreached| unreached == server) {
            progress.heard.push(server.to_owned());
            is_waited_for = true;
        }
    }
    if is_waited_for {
        completions.overtaken.notify_waiters();
    }
}

/// Begins to fetch the members of a room that was just entered without them.
pub fn start(ctx: &Arc<Context>, room_id: &str) {
    if let Some(room) = lacking(ctx, room_id).into_iter().next() {
        begin(ctx, room);
    }
}

/// Waits while the members are being fetched that a room lacks as it is now. Whom an earlier stay in it lacks may be told by nobody.
pub async fn until_whole(ctx: &Context, room_id: &str) {
    let lacks_some = || lacking(ctx, room_id).iter().any(|room| !room.is_past);
    ctx.federation.completions.ended(room_id, lacks_some).await;
}

/// The joins of a room that lack members: the last one, or those of earlier stays.
fn lacking(ctx: &Context, room_id: &str) -> Vec<PartialRoom> {
    match ctx.engine.read(&PartialRooms) {
        Ok(rooms) => rooms.into_iter().filter(|room| room.room_id == room_id).collect(),
        Err(error) => {
            tracing::warn!(%error, room_id, "it cannot be told whether a room lacks members");
            Vec::new()
        }
    }
}

fn begin(ctx: &Arc<Context>, room: PartialRoom) {
    if room.is_left {
        return;
    }
    match ctx.federation.completions.rooms.lock().entry(room.room_id.clone()) {
        Entry::Occupied(_) => {
            ctx.federation.completions.overtaken.notify_waiters();
            return;
        }
        Entry::Vacant(entry) => entry.insert(Progress::default()),
    };
    let work = ctx.clone();
    worker::run(ctx, "completion of a room", async move {
        let mark = Mark(&work.federation.completions, &room.room_id);
        complete(&work, &room.room_id).await;
        drop(mark);
        follow_up(&work, &room.room_id);
        // There may be other joins, or the room was left and joined anew meanwhile.
        start(&work, &room.room_id);
    });
}

/// Asks until what one of the room's joins lacks is here, or there are others to be asked for, or this server is in the room no more.
async fn complete(ctx: &Arc<Context>, room_id: &str) {
    let begun = Instant::now();
    let mut pause = PAUSE_MIN;
    let joins = lacking(ctx, room_id);
    let last = joins.len().saturating_sub(1);
    for round in 0.. {
        // One that nobody tells of is not to keep the others waiting: a round is for one of them.
        for (turn, join) in joins.iter().enumerate() {
            if complete_in(ctx, join, round, begun).await {
                return;
            }
            let next_try = ctx.engine.now_ms().saturating_add(pause.as_millis() as u64);
            ctx.federation.completions.note(room_id, |progress| {
                progress.stage = Stage::Waiting;
                progress.rounds_failed += 1;
                progress.next_try_ts = Some(next_try);
            });
            if !paused(ctx, &joins, pause).await {
                return;
            }
            if turn == last {
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        if joins.is_empty() {
            return;
        }
    }
}

/// One round for one join, which has had so many before. Returns whether what it lacks is here.
async fn complete_in(ctx: &Arc<Context>, join: &PartialRoom, round: usize, begun: Instant) -> bool {
    let (room_id, round_begun) = (&join.room_id, Instant::now());
    let mut heard = Vec::new();
    ctx.federation.completions.note(room_id, |progress| {
        progress.unreached.clear();
        heard = std::mem::take(&mut progress.heard);
    });
    // The round may be for those that are heard from: others may still be as silent as they were.
    let first = join.servers.iter().filter(|server| heard.contains(server));
    let others = asked_in(round, &join.servers).filter(|server| !heard.contains(server));
    for server in first.chain(others) {
        match complete_by(ctx, join, server, round_begun).await {
            Ok(members) => {
                let seconds = begun.elapsed().as_secs_f64();
                tracing::info!(room_id, server, members, seconds, "a room is whole");
                return true;
            }
            Err(error) => {
                tracing::info!(room_id, server, error = %error.error, "a server does not tell a room's members");
                let (server, error) = (server.clone(), error.error.into_owned());
                let failure = Failure { server, error, ts: ctx.engine.now_ms() };
                ctx.federation.completions.note(room_id, |progress| progress.last_error = Some(failure));
            }
        }
    }
    false
}

/// The servers that are asked in a round, counted from zero. Whoever is in the room may be of help, however many there are that are
/// not, and whatever place they have in what the resident told.
fn asked_in(round: usize, servers: &[String]) -> impl Iterator<Item = &String> {
    let (resident, others) = servers.split_at(servers.len().min(1));
    let others_max = SERVERS_ASKED_MAX - 1;
    let begun = round.wrapping_mul(others_max).checked_rem(others.len()).unwrap_or_default();
    let in_turn = others.iter().cycle().skip(begun).take(others.len().min(others_max));
    resident.iter().chain(in_turn)
}

/// Whether it is still these joins of a room that lack members, and this server is in it.
fn are_asked_for(ctx: &Context, joins: &[PartialRoom]) -> bool {
    let now = joins.first().map(|join| lacking(ctx, &join.room_id)).unwrap_or_default();
    let ids = |joins: &[PartialRoom]| joins.iter().map(|join| join.join_event_id.clone()).collect::<Vec<_>>();
    !now.iter().any(|join| join.is_left) && ids(&now) == ids(joins)
}

/// Waits for the next round, until a server is heard from at most that could not be asked. Returns at once, and false, when the room was
/// joined anew; what happens in other rooms shortens nothing.
async fn paused(ctx: &Context, joins: &[PartialRoom], pause: Duration) -> bool {
    let mut over = pin!(sleep(pause));
    loop {
        let mut overtaken = pin!(ctx.federation.completions.overtaken.notified());
        overtaken.as_mut().enable();
        // From here on nothing is missed.
        if !are_asked_for(ctx, joins) {
            return false;
        }
        if joins.first().is_some_and(|join| ctx.federation.completions.is_heard(&join.room_id)) {
            return true;
        }
        tokio::select! {
            () = &mut over => return true,
            () = overtaken => {}
        }
    }
}

/// Makes the room whole by what one server tells. Answers with how many events its state has. Whose keys cannot be had is asked once
/// since `begun`.
async fn complete_by(
    ctx: &Arc<Context>,
    room: &PartialRoom,
    server: &str,
    begun: Instant,
) -> Result<usize, ApiError> {
    let own_name = ctx.engine.server_name();
    let version = ctx.engine.read(&IncomingRoom { room_id: &room.room_id, server: own_name })?;
    let note = |what: &dyn Fn(&mut Progress)| ctx.federation.completions.note(&room.room_id, what);
    note(&|progress| {
        progress.stage = Stage::Fetching;
        progress.server = Some(server.to_owned());
        progress.next_try_ts = None;
        (progress.bytes_received, progress.state_events_stored) = (0, 0);
        progress.state_events_expected = None;
    });
    let received = |bytes| note(&|progress| progress.bytes_received = bytes);
    let told = whole_state(ctx, server, &room.room_id, &room.join_event_id, received).await;
    if told.as_ref().is_err_and(RemoteError::is_outage) {
        note(&|progress| progress.unreached.push(server.to_owned()));
        ctx.federation.unreached.note(server, Instant::now().into_std());
    }
    let (whole, _memory) = told?;
    let told = whole.pdus.len() + whole.auth_chain.len();
    tracing::info!(room_id = room.room_id, server, events = told, "a room's members have come");
    note(&|progress| {
        progress.stage = Stage::Checking;
        progress.state_events_expected = Some(told);
    });
    let stored = |done, all| {
        note(&|progress| {
            progress.stage = Stage::Storing;
            progress.state_events_stored = done;
            progress.state_events_expected = Some(all);
        });
    };
    let state = {
        let at = At::Entrance(&room.join_event_id);
        let told = (whole.pdus, whole.auth_chain);
        // The places of whom the server lets in meanwhile are not taken.
        let cause = Cause::Told(ctx.config.server_name.to_string(), begun.into_std());
        store(ctx, (room.room_id.as_str(), &cause), version, at, told, stored).await?.state
    };
    let count = state.len();
    let given = GivenState { event_id: room.join_event_id.as_str().into(), state };
    let complete = CompleteState { room_id: room.room_id.clone(), state: given };
    // It judges anew all that was said since the join.
    let missing = tokio::task::block_in_place(|| ctx.engine.write(complete)).await?;
    match missing.is_nothing() {
        true => {
            settle(ctx, &room.room_id).await?;
            ctx.federation.unchecked.wake(&room.room_id, Instant::now().into_std());
            // Those whose leaves its policy server has to sign.
            guests::begin_to_remove(ctx, &room.room_id);
            Ok(count)
        }
        false => {
            let why = format!("events of the state are missing: {missing:?}");
            Err(RemoteError::bad_answer("not_whole", why).into())
        }
    }
}

/// Waits until the members that a client asks for are known, or will not be. `user` is who asks.
///
/// Errors: 503 if they are still to come after a while, or when the server is told to stop; those of the view.
pub async fn until_known(ctx: &Context, user: UserNum, awaited: &AwaitedMembers<'_>) -> Result<(), ApiError> {
    let known = async {
        loop {
            let mut ended = pin!(ctx.federation.completions.ended.notified());
            ended.as_mut().enable();
            // From here on nothing is missed.
            let Some(pos) = ctx.engine.read(awaited)? else { return Ok::<(), ApiError>(()) };
            // That the asker leaves, or that the one who is asked for speaks, is news.
            tokio::select! {
                () = ended => {}
                _ = ctx.engine.wait_for(user, pos) => {}
            }
        }
    };
    tokio::select! {
        biased;
        outcome = known => return outcome,
        () = sleep(WAIT_MAX) => {}
        () = ctx.shutdown.cancelled() => {}
    }
    let why = "The members of this room are still being fetched from other servers; try again in a while";
    Err(ApiError::unknown(why).with_status(StatusCode::SERVICE_UNAVAILABLE))
}

/// A room that lacks members, as administrators are told of it.
#[derive(Debug, Serialize)]
pub struct PartialJoin {
    pub room_id: String,
    pub join_event_id: String,
    /// When it was joined, in milliseconds since the epoch.
    pub joined_ts: u64,
    /// The servers that are asked, some in each round: the first in all of them, the others in turn, in this order.
    pub servers: Vec<String>,
    #[serde(flatten)]
    pub progress: Progress,
}

/// The rooms that lack members, in the order of their ids.
///
/// Errors: those of the store.
pub fn partial_joins(ctx: &Context) -> Result<Vec<PartialJoin>, ApiError> {
    let rooms = ctx.engine.read(&PartialRooms)?.into_iter().filter(|room| !room.is_left);
    let shown = |room: PartialRoom| PartialJoin {
        progress: ctx.federation.completions.progress(&room.room_id).unwrap_or_default(),
        joined_ts: room.since_ms,
        servers: room.servers,
        room_id: room.room_id,
        join_event_id: room.join_event_id,
    };
    let mut joins: Vec<PartialJoin> = rooms.map(shown).collect();
    joins.sort_by(|one, other| one.room_id.cmp(&other.room_id));
    // Of several earlier stays in a room, one stands for all.
    joins.dedup_by(|later, first| later.room_id == first.room_id);
    Ok(joins)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_server_is_asked_in_turn_and_the_resident_always() {
        for count in [0, 1, 2, 9, 10, 11, 12, 30] {
            let servers: Vec<String> = (0..count).map(|number| format!("s{number}.test")).collect();
            let mut asked = HashSet::new();
            for round in 0..5 {
                let now: Vec<&String> = asked_in(round, &servers).collect();
                assert_eq!(now.len(), count.min(SERVERS_ASKED_MAX), "{count} {round}");
                assert_eq!(now.iter().collect::<HashSet<_>>().len(), now.len(), "{count} {round}");
                assert_eq!(now.first().copied(), servers.first(), "{count} {round}");
                asked.extend(now);
            }
            assert_eq!(asked.len(), count);
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_a_room_whose_completion_has_fallen() {
        let completions = Completions::default();
        completions.rooms.lock().insert("!a:here.test".to_owned(), Progress::default());
        let falls = worker::guarded::<()>("completion", async {
            let _mark = Mark(&completions, "!a:here.test");
            tokio::task::yield_now().await;
            panic!("a fault of ours");
        });
        let (fallen, ()) = tokio::join!(falls, completions.ended("!a:here.test", || true));
        assert!(fallen.is_none() && completions.progress("!a:here.test").is_none());
    }
}
