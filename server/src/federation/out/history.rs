//! History that this server lacks is asked for when a client reads it.
//!
//! Invariant: a client waits a bounded time, and gets what there is then; what was begun for it goes on, once for each room, so that
//! what comes later is there when it asks again. A server that is silent keeps nothing back that another one has. What one lacks, and
//! another has, is not put before what is less deep (`lacking`). What the room's policy server has not answered about is not put anywhere
//! yet, and the gap left alone for a minute.

mod lacking;
mod pages;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ruma_common::ServerName;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use warren_engine::Outcome;
use warren_engine::core::checked::MissingKey;
use warren_engine::core::filter::LIMIT_MAX;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{EventsNotInGraph, IncomingRoom};
use warren_engine::view::{HistoryGap, OpenGap, StreamToken};

use self::lacking::{Elsewhere, Told, told_elsewhere};
pub(super) use self::pages::page_in_time;
use super::complete::until_whole;
use super::fetch::{servers_to_ask, take_in};
use super::keys::put_off;
use super::pruned;
use super::silences::Silences;
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

/// How long a client waits for other servers.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Requests for history that one page of a client leads to: each brings some hundred events. A page is full after ten; one that is
/// read towards later events waits for the whole gap, from the other end of which it is filled.
const ROUNDS_MAX: usize = 50;

/// How long a server is waited for before another one is asked, which may have all of it at hand: a client waits for two of
/// them.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);

/// How long it is waited for when all others have been asked in vain. Nobody has to wait for that but the work itself.
const LATE_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long it may take to take in what a server has told, for which it is asked for states and what allows the events.
pub(super) const TAKE_IN_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a server that did not answer soon is asked after all others, and an event left as it is that one may have whole which did
/// not answer.
const SILENT: Duration = Duration::from_secs(10 * 60);

/// Events that are asked for at once, as many as other servers give.
const EVENTS_MAX: usize = 100;

/// Events that are asked for in one request: of a gap's open ends, those that are nearest.
pub(super) const MISSING_MAX: usize = 10;

/// Pages that one server is asked for in a row, as long as nothing of them can be taken in: five hundred events by users of
/// servers that are gone, say, are passed.
const PAGES_IN_VAIN_MAX: usize = 5;

/// How long a gap that nobody could fill is left alone, and an event that a server may have which did not answer, or that is next to be
/// asked for.
const IN_VAIN: Duration = Duration::from_secs(60);

/// How long a server is not asked again for an event of which what it gives cannot be taken in; for less where only a key is lacking
/// that was not asked for, as somebody had asked for keys of its server a moment ago.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);

/// Gaps, and events, that this is remembered of.
const REMEMBERED_MAX: usize = 10_000;

/// The rooms whose gaps are being filled, gaps that could not be, events that are left behind, and who does not answer.
pub struct Histories {
    /// Whoever waits for one of them is told when it ends.
    busy: Mutex<HashMap<String, watch::Receiver<()>>>,
    in_vain: Memory<(String, i64)>,
    /// By the server that gave them, since another one may have them as they are.
    left_behind: Memory<(String, Arc<str>)>,
    /// Copies that cannot be taken in of what another server lacks, by who gave them: others are asked at once.
    bad_copies: Memory<(String, Arc<str>)>,
    /// How deep events are that a server may lack; nothing if nobody has them.
    depths: Memory<Arc<str>, Option<u64>>,
    /// Events that came without their content, and that others were asked for.
    bare: Memory<Arc<str>>,
    silences: Silences,
}

impl Default for Histories {
    fn default() -> Histories {
        Histories {
            busy: Mutex::default(),
            in_vain: Memory::default(),
            left_behind: Memory::default(),
            bad_copies: Memory::default(),
            depths: Memory::default(),
            bare: Memory::default(),
            silences: Silences::new(SILENT),
        }
    }
}

impl Histories {
    pub(super) fn is_silent(&self, server: &str) -> bool {
        ServerName::parse(server).is_ok_and(|server| self.silences.is_silent(&server))
    }

    fn has_bad_copy(&self, server: &str, event_id: &Arc<str>) -> bool {
        self.bad_copies.has(&(server.to_owned(), event_id.clone()))
    }

    /// Whether others were asked for an event that came without its content.
    pub(super) fn is_left_bare(&self, event_id: &Arc<str>) -> bool {
        self.bare.has(event_id)
    }

    /// Notes that others gave no more of an event; those that may, if not `all` have answered, are asked again later.
    pub(super) fn leave_bare(&self, event_id: Arc<str>, all: bool) {
        self.bare.note(event_id, if all { LEFT_BEHIND } else { SILENT });
    }

    /// Notes that others are being asked for an event, or were for so many that this one is to wait.
    pub(super) fn leave_bare_for_now(&self, event_id: Arc<str>) {
        self.bare.note(event_id, IN_VAIN);
    }

    fn note_silence(&self, server: &str, is_silent: bool) {
        if let Ok(server) = ServerName::parse(server) {
            self.silences.note(&server, is_silent);
        }
    }
}

/// What is known for a while, as that something is to be left alone.
struct Memory<K, V = ()>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Memory<K, V> {
        Memory(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Copy> Memory<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| *value)
    }

    fn keep(&self, key: K, value: V, time: Duration) {
        let (now, mut noted) = (Instant::now(), self.0.lock());
        if noted.len() >= REMEMBERED_MAX {
            noted.retain(|_, (until, _)| *until > now);
            if noted.len() >= REMEMBERED_MAX {
                noted.clear();
            }
        }
        noted.insert(key, (now + time, value));
    }
}

impl<K: Eq + Hash> Memory<K> {
    fn has(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    fn note(&self, key: K, time: Duration) {
        self.keep(key, (), time);
    }
}

/// What has become of the gaps that a page runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filled {
    /// There are none.
    Whole,
    /// They are filled as far as that can be.
    Ended,
    /// Other servers are still asked: the page is to end there.
    Going,
}

/// Fills the gaps that a page runs into, as far as there is time; that goes on behind. Whether the client may see the room is told
/// by the page itself, which is to be read first.
pub async fn fill(ctx: &Arc<Context>, page: HistoryGap<'_>) -> Result<Filled, ApiError> {
    let stretch = Stretch::of(page);
    if stretch.limit == 0 || ctx.engine.read(&stretch.view())?.is_none() {
        return Ok(Filled::Whole);
    }
    let work = async {
        while stretch.gap(ctx)?.is_some() {
            let Turn { is_own, mut ended } = begin(ctx, &stretch);
            drop(ended.changed().await);
            if is_own {
                break;
            }
        }
        Ok::<(), ApiError>(())
    };
    // What has come by then is there; it is looked for.
    timeout(TIME_MAX, work).await.unwrap_or(Ok(()))?;
    Ok(if stretch.gap(ctx)?.is_some() { Filled::Going } else { Filled::Ended })
}

/// The page that gaps are filled for.
#[derive(Clone)]
struct Stretch {
    room_id: String,
    from: Option<StreamToken>,
    to: Option<StreamToken>,
    forwards: bool,
    limit: usize,
}

impl Stretch {
    fn of(page: HistoryGap<'_>) -> Stretch {
        let HistoryGap { room_id, from, to, forwards, limit } = page;
        Stretch { room_id: room_id.to_owned(), from, to, forwards, limit: limit.min(LIMIT_MAX as usize) }
    }

    fn view(&self) -> HistoryGap<'_> {
        let Stretch { room_id, from, to, forwards, limit } = self;
        HistoryGap { room_id, from: *from, to: *to, forwards: *forwards, limit: *limit }
    }

    /// The first gap on the way, unless it could not be filled a short time ago.
    fn gap(&self, ctx: &Context) -> Result<Option<OpenGap>, ApiError> {
        let gap = ctx.engine.read(&self.view())?;
        Ok(gap.filter(|gap| !ctx.federation.histories.in_vain.has(&self.place(gap))))
    }

    fn place(&self, gap: &OpenGap) -> (String, i64) {
        (self.room_id.clone(), gap.pos.0)
    }
}

/// Work in a room, and whether it is for the page that is asked for.
struct Turn {
    is_own: bool,
    ended: watch::Receiver<()>,
}

/// That the gaps of a room are being filled, until it is dropped.
struct Mark {
    ctx: Arc<Context>,
    room_id: String,
    _until_dropped: watch::Sender<()>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.ctx.federation.histories.busy.lock().remove(&self.room_id);
    }
}

/// Begins to fill the gaps of a page, unless somebody is at that room's already.
fn begin(ctx: &Arc<Context>, stretch: &Stretch) -> Turn {
    let mut busy = ctx.federation.histories.busy.lock();
    if let Some(ended) = busy.get(&stretch.room_id) {
        return Turn { is_own: false, ended: ended.clone() };
    }
    let (until_dropped, ended) = watch::channel(());
    busy.insert(stretch.room_id.clone(), ended.clone());
    drop(busy);
    let mark = Mark { ctx: ctx.clone(), room_id: stretch.room_id.clone(), _until_dropped: until_dropped };
    let stretch = stretch.clone();
    worker::run(ctx, "filling of gaps", async move {
        if let Err(error) = fill_all(&mark.ctx, &stretch).await {
            tracing::debug!(room_id = stretch.room_id, error = %error.error, "gaps could not be filled");
        }
    });
    Turn { is_own: true, ended }
}

/// Fills one gap after the other until the page runs into none, or it leads no further.
async fn fill_all(ctx: &Arc<Context>, stretch: &Stretch) -> Result<(), ApiError> {
    // The state before what is filled in follows from that of the join, which is to be whole.
    if timeout(TIME_MAX, until_whole(ctx, &stretch.room_id)).await.is_err() {
        // What is on its way is waited for; only where nobody tells the members do pages go on without what is missing.
        let progress = ctx.federation.completions.progress(&stretch.room_id);
        if progress.is_some_and(|progress| progress.rounds_failed > 0)
            && let Some(gap) = stretch.gap(ctx)?
        {
            ctx.federation.histories.in_vain.note(stretch.place(&gap), IN_VAIN);
        }
        return Ok(());
    }
    let begun = Instant::now();
    for _ in 0..ROUNDS_MAX {
        let Some(gap) = stretch.gap(ctx)? else { break };
        let filled = fill_gap(ctx, &stretch.room_id, &gap, begun).await;
        if !matches!(filled, Ok(true)) {
            ctx.federation.histories.in_vain.note(stretch.place(&gap), IN_VAIN);
            return filled.map(drop);
        }
    }
    Ok(())
}

/// Events that came and are no part of the room, with what they follow.
type LeftBehind = BTreeMap<Arc<str>, Vec<Arc<str>>>;

/// What came of asking one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Something that it gave was taken in.
    Helped,
    /// It has nothing that can be.
    InVain,
    /// It has not answered yet.
    Late,
    /// The room's policy server has not answered about what it gave, and would not about what others give.
    Unsigned,
}

/// Asks one server after the other for what is missing, those that do not answer soon once more when all others were of no help.
/// Returns whether anything was taken in. `begun` is when it began for the page.
async fn fill_gap(
    ctx: &Arc<Context>,
    room_id: &str,
    gap: &OpenGap,
    begun: Instant,
) -> Result<bool, ApiError> {
    let own_name = ctx.engine.server_name();
    let Ok(version) = ctx.engine.read(&IncomingRoom { room_id, server: own_name }) else { return Ok(false) };
    let servers = servers_to_ask(ctx, room_id, std::iter::empty())?;
    let sources = Sources { ctx, room_id, version, servers: &servers };
    let is_silent = |server: &String| ctx.federation.histories.is_silent(server);
    let (mut late, quick): (Vec<String>, Vec<String>) = servers.iter().cloned().partition(is_silent);
    for server in quick {
        match fill_by(&sources, gap, (&server, ANSWER_TIME_MAX), begun).await? {
            Asked::Helped => return Ok(true),
            Asked::Unsigned => return Ok(false),
            Asked::InVain => {}
            Asked::Late => late.push(server),
        }
    }
    let end = Instant::now() + LATE_ANSWER_TIME_MAX;
    for server in late {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let asked = fill_by(&sources, gap, (&server, left), begun).await?;
        if matches!(asked, Asked::Helped | Asked::Unsigned) {
            return Ok(asked == Asked::Helped);
        }
    }
    Ok(false)
}

/// What is left behind for good of what a server told of the past: what it follows is here, or left behind as well. Whatever leads
/// on to more must be asked for again.
fn dead_ends(ctx: &Context, left: &LeftBehind) -> Result<Vec<Arc<str>>, ApiError> {
    let mut leads_on: HashSet<Arc<str>> =
        before(ctx, left, |id| !left.contains_key(*id))?.into_iter().collect();
    loop {
        let more: Vec<Arc<str>> = left
            .iter()
            .filter(|(id, before)| !leads_on.contains(*id) && before.iter().any(|id| leads_on.contains(id)))
            .map(|(id, _)| id.clone())
            .collect();
        if more.is_empty() {
            return Ok(left.keys().filter(|id| !leads_on.contains(*id)).cloned().collect());
        }
        leads_on.extend(more);
    }
}

/// What is before all that was left behind, where that is open and the graph lacks it: a part of the state may be known from outside
/// of that.
fn before(
    ctx: &Context,
    left: &LeftBehind,
    is_open: impl Fn(&&Arc<str>) -> bool,
) -> Result<Vec<Arc<str>>, ApiError> {
    let before: BTreeSet<Arc<str>> = left.values().flatten().filter(is_open).cloned().collect();
    let before: Vec<Arc<str>> = before.into_iter().collect();
    Ok(ctx.engine.read(&EventsNotInGraph { event_ids: &before })?)
}

/// A room, and who can be asked for its history.
struct Sources<'a> {
    ctx: &'a Arc<Context>,
    room_id: &'a str,
    version: &'static RoomVersion,
    servers: &'a [String],
}

impl Sources<'_> {
    /// What a server has told, with what others have whole in the place of what it gave without its content.
    async fn made_whole(&self, server: &str, mut page: Vec<Bytes>) -> Result<Vec<Bytes>, ApiError> {
        let (room, servers) = ((self.room_id, self.version), (self.servers, Some(server)));
        pruned::replace(self.ctx, room, servers, &mut page, || true).await?;
        Ok(page)
    }
}

/// Asks one server. Where nothing of what it gives can be taken in, as by users of servers whose keys nobody has any more, it is
/// asked for what is before that, which is in the same gap.
async fn fill_by(
    sources: &Sources<'_>,
    gap: &OpenGap,
    (server, answer_time_max): (&str, Duration),
    begun: Instant,
) -> Result<Asked, ApiError> {
    let Sources { ctx, room_id, version, .. } = *sources;
    let left_behind = &ctx.federation.histories.left_behind;
    let is_worth_asking = |event_id: &Arc<str>| !left_behind.has(&(server.to_owned(), event_id.clone()));
    let missing: Vec<Arc<str>> = gap.missing.iter().map(|event_id| Arc::from(&**event_id)).collect();
    let mut next: Vec<Arc<str>> = missing.iter().filter(|id| is_worth_asking(id)).cloned().collect();
    let note = |event_ids: Vec<Arc<str>>, lacks: &[MissingKey], is_late: bool| {
        // What there was no time for says nothing.
        let time = if is_late { IN_VAIN } else { left_behind_for(ctx, lacks, begun) };
        event_ids.into_iter().for_each(|id| left_behind.note((server.to_owned(), id), time));
    };
    let (mut told, mut left, mut lacks) = (Told::default(), LeftBehind::new(), Vec::new());
    let mut is_late = false;
    let mut asked: HashSet<Arc<str>> = HashSet::new();
    for _ in 0..PAGES_IN_VAIN_MAX {
        next.truncate(MISSING_MAX);
        if next.is_empty() {
            break;
        }
        let page = match page_in_time(ctx, server, room_id, &next, answer_time_max).await {
            Ok(page) => page,
            Err(outcome) => {
                note(dead_ends(ctx, &left)?, &lacks, is_late);
                return Ok(outcome);
            }
        };
        // A full page may have had no place for all that was asked for.
        let is_full = page.len() >= EVENTS_MAX;
        if !is_full || next.len() == 1 {
            asked.extend(next.iter().cloned());
        }
        let page = sources.made_whole(server, page).await?;
        told.add(version, page);
        let elsewhere = told_elsewhere(sources, server, (&next, is_full), &told).await?;
        let taken = take_in_told(sources, server, (&told, &elsewhere), begun).await?;
        // Nothing of it is left behind: it is asked for again when the gap is.
        if taken.is_unsigned {
            return Ok(Asked::Unsigned);
        }
        left = taken.left;
        is_late = taken.lacks.is_none();
        lacks = taken.lacks.unwrap_or(lacks);
        if taken.is_help {
            note(dead_ends(ctx, &left)?, &lacks, is_late);
            return Ok(Asked::Helped);
        }
        // The other ends of the gap come first; then what is before all that was left behind.
        let is_open = |id: &&Arc<str>| !left.contains_key(*id) && !asked.contains(*id) && is_worth_asking(id);
        next = missing.iter().filter(is_open).cloned().collect();
        if next.is_empty() {
            next = before(ctx, &left, is_open)?;
        }
    }
    // The server would tell the same again, or as little of what nobody has.
    note(left.into_keys().chain(asked).collect(), &lacks, is_late);
    Ok(Asked::InVain)
}

/// How long what lacks these keys is left behind, if any: no longer than until one may be asked for that was not.
fn left_behind_for(ctx: &Context, lacks: &[MissingKey], begun: Instant) -> Duration {
    let times = lacks.iter().filter_map(|key| put_off(ctx, key, begun.into_std()));
    times.min().unwrap_or(LEFT_BEHIND).min(LEFT_BEHIND)
}

/// What came of taking in what a server has told.
struct Taken {
    /// Whether anything was taken in.
    is_help: bool,
    /// What was left behind of what the server has told.
    left: LeftBehind,
    /// The keys that were lacking, if there was time to tell.
    lacks: Option<Vec<MissingKey>>,
    /// Whether some of it waits for the room's policy server.
    is_unsigned: bool,
}

/// Takes in what a server has told, together with what others have of what it lacks.
async fn take_in_told(
    sources: &Sources<'_>,
    server: &str,
    (told, elsewhere): (&Told, &Elsewhere),
    begun: Instant,
) -> Result<Taken, ApiError> {
    let (ctx, histories) = (sources.ctx, &sources.ctx.federation.histories);
    let mut attempts = vec![(told.all(), true)];
    if !elsewhere.is_nothing() {
        // Where that leads nowhere, what is less deep is not held up by it.
        attempts.insert(0, (elsewhere.with(told), false));
    }
    let servers: Vec<String> = std::iter::once(server)
        .chain(elsewhere.servers_beside(server).map(String::as_str))
        .map(str::to_owned)
        .collect();
    let mut taken = Taken { is_help: false, left: LeftBehind::new(), lacks: None, is_unsigned: false };
    for (pdus, is_all_its_own) in attempts {
        let mut intake = Intake::of_history(sources.room_id.to_owned(), sources.version, pdus);
        let lacks = timeout(TAKE_IN_TIME_MAX, take_in(ctx, &mut intake, &servers)).await.ok().transpose()?;
        // What is of another gap's past is noted there now.
        let is_help = intake.outcomes.values().any(|outcome| {
            use Outcome::{Accepted, NotRecommended, Past, Rejected};
            matches!(outcome, Accepted | Rejected(_) | NotRecommended | Past)
        });
        if intake.lacks_signatures() {
            // Others would tell the same. The policy server may have been slow, and be asked about the rest at once.
            let is_unsigned = !is_help || intake.is_policy_server_silent();
            return Ok(Taken { is_help, is_unsigned, ..taken });
        }
        if lacks.is_none() && is_all_its_own {
            histories.note_silence(server, true);
        }
        let (left, of_others): (LeftBehind, LeftBehind) =
            intake.left_behind().into_iter().partition(|(event_id, _)| told.has(event_id));
        // Another server may have a good copy.
        let time = lacks.as_deref().map_or(IN_VAIN, |lacks| left_behind_for(ctx, lacks, begun));
        for event_id in of_others.into_keys() {
            for other in elsewhere.who_told(&event_id) {
                histories.bad_copies.note((other.clone(), event_id.clone()), time);
            }
        }
        taken.left = left;
        taken.lacks = lacks.or(taken.lacks);
        if is_help {
            return Ok(Taken { is_help: true, ..taken });
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Cause, fetch};
    use super::*;
    use crate::federation::limits::KEYS_PAUSE;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_lacks_a_key_that_was_not_asked_for_is_left_behind_until_it_may_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let key_id = "ed25519:1".to_owned();
        let lacking =
            |server: &str| vec![MissingKey { server_name: server.to_owned(), key_id: key_id.clone() }];
        let begun = Instant::now();
        assert_eq!(left_behind_for(&ctx, &[], begun), LEFT_BEHIND, "it lacks no key");
        // Nobody is there.
        let there = lacking("127.0.0.1:1");
        assert_eq!(left_behind_for(&ctx, &there, begun), KEYS_PAUSE, "it is not asked for yet");
        let server_name = ServerName::parse("127.0.0.1:1").expect("a name");
        fetch(&ctx, &Cause::Kept("b.example".to_owned()), &server_name, std::slice::from_ref(&key_id)).await;
        assert_eq!(left_behind_for(&ctx, &there, begun), LEFT_BEHIND, "it was, in vain");
        let time = left_behind_for(&ctx, &there, Instant::now());
        assert!(time <= KEYS_PAUSE, "it was put off: {time:?}");
        // Without notaries nobody is asked for this server's own keys.
        assert_eq!(left_behind_for(&ctx, &lacking(ctx.engine.server_name()), begun), LEFT_BEHIND);
    }
}
