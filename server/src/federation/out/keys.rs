//! The signing keys of other servers: fetched from them, or from notaries that the operator trusts, verified, and stored.
//!
//! Invariant: what is stored was signed by a key in it, and comes from the server itself over TLS or bears the signature
//! of a trusted notary; this server's own keys of before, if it has lost them, are told by notaries alone. How often a server is asked does not depend on how often others name it (server-server API,
//! "Retrieving server keys"; `key_pauses`).
//!
//! A server that is silent holds its place for long, and anybody may make this one ask by naming it. So servers in rooms with
//! this one have places of their own, and nobody who makes it ask has all of any kind.

mod notaries;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use http::Method;
use ruma_common::{OwnedServerName, ServerName};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};
use warren_engine::command::StorePublishedKeys;
use warren_engine::core::checked::MissingKey;
use warren_engine::remote::{KeyStanding, ServerKey};
use warren_engine::view::federation::SharesRoom;
use warren_engine::view::{PublishedKeys, PublishedKeysOf, StandingOfKey};

use self::notaries::fetch_elsewhere;
use super::fetch::keys_came;
use super::flights::Flights;
use super::key_pauses::{Asked, Need, Outcome, Turn, Wish};
use super::queried_keys::QueriedKeys;
use super::silences::Silences;
use super::{RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{
    KEYS_BYTES_MAX, KEYS_OF_FAILING_AT_ONCE, KEYS_OF_ROOMS_AT_ONCE, KEYS_OF_ROOMS_FOR_EACH,
    KEYS_OF_STRANGERS_AT_ONCE, KEYS_OF_STRANGERS_FOR_EACH, KEYS_QUERIED_AT_ONCE, KEYS_SERVERS_MAX,
    KEYS_TIME_MAX, NOTARY_PAUSE, QUERIED_KEYS_BYTES_MAX,
};
use crate::federation::places::{Place, Places};
use crate::federation::published::Published;
use crate::federation::refusals;
use crate::http::peer::owner;
use crate::worker::ended;

/// Who is asked for keys now, and when each server was last.
pub struct KeyFetches {
    flights: Flights,
    asked: DashMap<OwnedServerName, Asked>,
    of_rooms: Places<Who>,
    of_failing: Semaphore,
    of_strangers: Places<Who>,
    queried: Places<Who>,
    /// Of servers of which nothing is stored.
    queried_keys: QueriedKeys,
    /// Notaries that kept this server waiting.
    silent_notaries: Silences,
}

/// Whether what comes is stored, or only remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Stored,
    Remembered,
}

/// Why keys are asked for.
#[derive(Debug, Clone)]
pub enum Cause {
    /// A request from this address names the server as its sender. `None` on a unix socket.
    Request(Option<IpAddr>),
    /// A query from this address is for this server as a notary.
    Query(Option<IpAddr>),
    /// This server has sent something.
    Sent(String),
    /// This server has told what a user here waits for, of a room that they come into perhaps, since this time.
    Told(String, Instant),
    /// This server has told, or kept, what can be taken in later as well, of a room's past perhaps.
    Kept(String),
}

/// Who makes this server ask.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Who {
    Address(IpAddr),
    Server(String),
}

impl Cause {
    /// A server has told what a user here waits for. All that it tells for that is one errand.
    pub fn told(server: &str) -> Cause {
        Cause::Told(server.to_owned(), Instant::now())
    }

    fn who(&self) -> Option<Who> {
        match self {
            Cause::Request(address) | Cause::Query(address) => address.map(owner).map(Who::Address),
            Cause::Sent(server) | Cause::Told(server, _) | Cause::Kept(server) => {
                Some(Who::Server(server.clone()))
            }
        }
    }

    /// Who needs the keys, and since when.
    fn need(&self) -> (Need, Instant) {
        match self {
            Cause::Request(_) | Cause::Query(_) => (Need::Others, Instant::now()),
            Cause::Sent(_) => (Need::Sent, Instant::now()),
            Cause::Kept(_) => (Need::Later, Instant::now()),
            Cause::Told(_, since) => (Need::Now, *since),
        }
    }

    /// How long a place is waited for, if not for ever: the sender of a request gives up; and a user who comes into a room waits no longer
    /// than such a server would be silent, behind however many that are gone. What they leave unasked is asked for later.
    fn patience(&self, is_failing: bool) -> Option<Duration> {
        let is_short = match self {
            Cause::Request(_) => true,
            Cause::Told(..) => is_failing,
            Cause::Query(_) | Cause::Sent(_) | Cause::Kept(_) => false,
        };
        is_short.then_some(KEYS_TIME_MAX)
    }
}

impl Default for KeyFetches {
    fn default() -> KeyFetches {
        KeyFetches {
            flights: Flights::default(),
            asked: DashMap::new(),
            of_rooms: Places::new(KEYS_OF_ROOMS_AT_ONCE, KEYS_OF_ROOMS_FOR_EACH),
            of_failing: Semaphore::new(KEYS_OF_FAILING_AT_ONCE),
            of_strangers: Places::new(KEYS_OF_STRANGERS_AT_ONCE, KEYS_OF_STRANGERS_FOR_EACH),
            queried: Places::new(KEYS_QUERIED_AT_ONCE, KEYS_OF_STRANGERS_FOR_EACH),
            queried_keys: QueriedKeys::new(QUERIED_KEYS_BYTES_MAX),
            silent_notaries: Silences::new(NOTARY_PAUSE),
        }
    }
}

impl KeyFetches {
    /// Who is to be asked for keys of the server now.
    fn turn(&self, server_name: &ServerName, wish: &Wish<'_>) -> Turn {
        let asked = self.asked.get(server_name);
        asked.map_or(Turn::All, |asked| asked.turn(wish, Instant::now()))
    }

    fn is_failing(&self, server_name: &ServerName) -> bool {
        self.asked.get(server_name).is_some_and(|asked| asked.is_failing())
    }

    fn note(&self, server_name: &ServerName, wish: &Wish<'_>, turn: &Turn, outcome: Outcome) {
        let now = Instant::now();
        if self.asked.len() >= KEYS_SERVERS_MAX {
            self.asked.retain(|_, asked| !asked.is_over(now));
            if self.asked.len() >= KEYS_SERVERS_MAX {
                self.asked.clear();
            }
        }
        self.asked.entry(server_name.to_owned()).or_default().note(wish, turn, outcome, now);
    }

    /// Waits for a place. `None` where that would take too long.
    async fn place(
        &self,
        cause: &Cause,
        is_in_rooms: bool,
        is_failing: bool,
    ) -> Option<(Option<SemaphorePermit<'_>>, Place)> {
        let (places, is_of_rooms) = match cause {
            Cause::Query(_) => (&self.queried, false),
            Cause::Request(_) | Cause::Sent(_) if !is_in_rooms => (&self.of_strangers, false),
            Cause::Request(_) | Cause::Sent(_) | Cause::Told(..) | Cause::Kept(_) => (&self.of_rooms, true),
        };
        let taking = async {
            // Before the other, of which those that wait here shall have none. It is never closed.
            let of_failing =
                if is_failing && is_of_rooms { self.of_failing.acquire().await.ok() } else { None };
            (of_failing, places.take(cause.who()).await)
        };
        match cause.patience(is_failing) {
            Some(time) => timeout(time, taking).await.ok(),
            None => Some(taking.await),
        }
    }
}

/// Fetches keys that checking events or requests lacked, each server's once for all who wait. Whether they are there now
/// is told by checking again: what is still missing then cannot be had at the moment.
pub async fn ensure_keys(ctx: &Arc<Context>, cause: &Cause, missing: &[MissingKey]) {
    let mut servers: BTreeSet<&str> = BTreeSet::new();
    servers.extend(missing.iter().map(|key| key.server_name.as_str()));
    let mut fetches = JoinSet::new();
    for server_name in servers {
        let Ok(server_name) = ServerName::parse(server_name) else { continue };
        let of_server = missing.iter().filter(|key| key.server_name == server_name.as_str());
        let wanted: Vec<String> = of_server.map(|key| key.key_id.clone()).collect();
        let (work, cause) = (ctx.clone(), cause.clone());
        let fetching = async move { fetch(&work, &cause, &server_name, &wanted).await };
        fetches.spawn(ctx.under_way.counted(fetching));
    }
    while let Some(fetched) = fetches.join_next().await {
        ended("fetching of keys", fetched);
    }
}

/// Fetches a server's keys, unless they were fetched a moment ago or that failed a while ago.
pub async fn fetch(ctx: &Arc<Context>, cause: &Cause, server_name: &ServerName, wanted: &[String]) {
    let keys = &ctx.federation.keys;
    let is_own = *server_name == *ctx.config.server_name;
    // Its own keys of before are for events alone, and it tells nobody what others tell of them.
    if is_own && (!has_notaries(ctx) || matches!(cause, Cause::Request(_) | Cause::Query(_))) {
        return;
    }
    let is_queried = matches!(cause, Cause::Query(_));
    let (need, since) = cause.need();
    let has_notaries = has_notaries(ctx);
    let lacking = not_here(ctx, server_name.as_str(), wanted);
    // It is looked up for those alone for whom it counts.
    let wish = Wish { need, since, lacking: &lacking, is_in_rooms: true, has_notaries };
    // Before what queries had asked for is looked for: it is there by the time at which that counts as asked.
    let turn = keys.turn(server_name, &wish);
    if (!is_queried && has_queried(ctx, server_name, wanted).await) || turn == Turn::Nobody {
        return;
    }
    let is_in_rooms = ctx.engine.read(&SharesRoom(server_name.as_str())).unwrap_or_default();
    let is_failing = keys.is_failing(server_name);
    // Before the turn, which is for those who ask at once: whoever waited here with it would keep the server's keys from all.
    let Some(_place) = keys.place(cause, is_in_rooms, is_failing).await else { return };
    let _alone = keys.flights.alone(server_name.as_str()).await;
    // The turn before may have been a query's.
    if !is_queried && has_queried(ctx, server_name, wanted).await {
        return;
    }
    // Some may have come.
    let lacking = not_here(ctx, server_name.as_str(), wanted);
    let wish = Wish { lacking: &lacking, is_in_rooms, ..wish };
    let turn = keys.turn(server_name, &wish);
    let is_stored = !is_queried
        || is_in_rooms
        || !matches!(ctx.engine.read(&PublishedKeysOf(server_name.as_str())), Ok(None));
    let keep = if is_stored { Keep::Stored } else { Keep::Remembered };
    let outcome = match &turn {
        Turn::Nobody => return,
        Turn::Notaries(key_ids) => fetch_elsewhere(ctx, server_name, key_ids, keep).await,
        Turn::All | Turn::AllOnce if is_own => fetch_elsewhere(ctx, server_name, wanted, keep).await,
        Turn::All | Turn::AllOnce => fetch_now(ctx, server_name, wanted, keep).await,
    };
    if let Some(error) = &outcome.error {
        debug!(%server_name, %error, "the keys of a server could not be fetched");
    }
    keys.note(server_name, &wish, &turn, outcome);
}

fn has_notaries(ctx: &Context) -> bool {
    !ctx.config.trusted_key_servers.is_empty()
}

/// When a server's keys may be asked for again, if they were had the last time. Where they were not, whoever waits for them has pauses
/// of their own, which grow as well.
pub fn asked_again(ctx: &Context, server_name: &str) -> Option<Instant> {
    let server_name = ServerName::parse(server_name).ok()?;
    let asked = ctx.federation.keys.asked.get(&server_name)?;
    asked.again()
}

/// How long asking for a key was put off for what was begun at a time: nothing where it was done in vain.
pub fn put_off(ctx: &Context, key: &MissingKey, begun: Instant) -> Option<Duration> {
    let server_name = ServerName::parse(&key.server_name).ok()?;
    // Nobody is asked for them.
    if *server_name == *ctx.config.server_name && !has_notaries(ctx) {
        return None;
    }
    let asked = ctx.federation.keys.asked.get(&server_name).map(|asked| asked.clone());
    asked.unwrap_or_default().put_off(begun, Instant::now())
}

/// Whether nobody need be asked for a key.
pub fn is_here(ctx: &Context, key: &MissingKey) -> bool {
    has_all(ctx, &key.server_name, std::slice::from_ref(&key.key_id))
}

/// From the server; what it does not have, from the notaries.
async fn fetch_now(ctx: &Arc<Context>, server_name: &ServerName, wanted: &[String], keep: Keep) -> Outcome {
    let refusal = fetch_from_server(ctx, server_name, keep).await.err();
    let is_had = (refusal.is_none() && has_come(ctx, server_name, wanted, keep))
        || fetch_elsewhere(ctx, server_name, wanted, keep).await.error.is_none();
    Outcome::of(refusal, is_had)
}

fn has_come(ctx: &Context, server_name: &ServerName, wanted: &[String], keep: Keep) -> bool {
    match keep {
        Keep::Stored => has_all(ctx, server_name.as_str(), wanted),
        Keep::Remembered => remembers_all(ctx, server_name, wanted),
    }
}

fn remembers_all(ctx: &Context, server_name: &ServerName, wanted: &[String]) -> bool {
    let Some(kept) = ctx.federation.keys.queried_keys.get(server_name) else { return false };
    Published::read(&kept.json, server_name.as_str())
        .is_ok_and(|published| wanted.iter().all(|key_id| published.has(key_id)))
}

/// What is known of what a server published, be it only remembered.
pub fn published(ctx: &Context, server_name: &ServerName) -> warren_engine::Result<Option<PublishedKeys>> {
    let stored = ctx.engine.read(&PublishedKeysOf(server_name.as_str()))?;
    Ok(stored.or_else(|| ctx.federation.keys.queried_keys.get(server_name)))
}

/// Whether what queries had this server ask for has all that is wanted, which is stored then.
async fn has_queried(ctx: &Arc<Context>, server_name: &ServerName, wanted: &[String]) -> bool {
    store_queried(ctx, server_name).await && has_all(ctx, server_name.as_str(), wanted)
}

/// What was only remembered of a server is stored: somebody needs it here. Answers whether there was anything.
async fn store_queried(ctx: &Arc<Context>, server_name: &ServerName) -> bool {
    let queried_keys = &ctx.federation.keys.queried_keys;
    let Some(kept) = queried_keys.get(server_name) else { return false };
    let Ok(published) = read_keys(&kept.json, server_name) else { return false };
    let is_stored = write(ctx, &published, kept.clone()).await.is_ok();
    // Until then it is there for others who need it at the same time; and if it could not be written, for the next.
    if is_stored {
        queried_keys.remove(server_name, &kept);
    }
    is_stored
}

fn has_all(ctx: &Context, server_name: &str, wanted: &[String]) -> bool {
    wanted.iter().all(|key_id| has(ctx, server_name, key_id))
}

fn has(ctx: &Context, server_name: &str, key_id: &str) -> bool {
    match ctx.engine.read(&StandingOfKey { server_name, key_id }) {
        Ok(KeyStanding::Known(key)) => key.is_old || key.valid_until_ts > ctx.engine.now_ms(),
        // Nobody can help with a key that is never trusted.
        Ok(KeyStanding::NeverTrusted) => true,
        Ok(KeyStanding::Unknown) | Err(_) => false,
    }
}

/// Those of the keys that are not here.
fn not_here(ctx: &Context, server_name: &str, wanted: &[String]) -> Vec<String> {
    wanted.iter().filter(|key_id| !has(ctx, server_name, key_id)).cloned().collect()
}

async fn fetch_from_server(
    ctx: &Arc<Context>,
    server_name: &ServerName,
    keep: Keep,
) -> Result<(), RemoteError> {
    let request = Request::new(Method::GET, "/_matrix/key/v2/server").unsigned();
    let request = request.with_time(KEYS_TIME_MAX).with_bytes_max(KEYS_BYTES_MAX);
    let body = request.bytes(ctx, server_name).await?;
    store(ctx, server_name, &read_keys(&body, server_name)?, None, keep).await?;
    Ok(())
}

/// What is published under a server's name, or why not: which is counted.
fn read_keys(body: &[u8], server_name: &ServerName) -> Result<Published, RemoteError> {
    Published::read(body, server_name.as_str()).map_err(|bad| bad_keys(bad.reason, bad.cause))
}

fn bad_keys(reason: &'static str, cause: impl Into<String>) -> RemoteError {
    refusals::keys(reason);
    RemoteError::BadAnswer(cause.into())
}

fn failed(error: warren_engine::Error) -> RemoteError {
    RemoteError::BadAnswer(error.to_string())
}

/// Stores or remembers keys that have been verified. What the server published is kept as it is: what it says itself, or of what notaries
/// say the newest, which may be older than what is `kept`. Answers whether there are any news in it that are stored.
async fn store(
    ctx: &Arc<Context>,
    server_name: &ServerName,
    published: &Published,
    kept: Option<PublishedKeys>,
    keep: Keep,
) -> Result<bool, RemoteError> {
    let mut json = published.json.clone();
    if let Some(kept) = kept
        && let Ok(kept) = Published::read(&kept.json, &published.server_name)
        && kept.valid_until_ts > published.valid_until_ts
    {
        json = kept.json;
    }
    let kept = PublishedKeys { json, fetched_ts: ctx.engine.now_ms() };
    match keep {
        Keep::Stored => write(ctx, published, kept).await,
        Keep::Remembered => {
            ctx.federation.keys.queried_keys.put(server_name, kept);
            Ok(false)
        }
    }
}

/// Goes on with what lacked the keys, if there are any news in it, and answers whether there are.
async fn write(ctx: &Arc<Context>, published: &Published, kept: PublishedKeys) -> Result<bool, RemoteError> {
    write_keys(ctx, &published.server_name, published.keys(kept.fetched_ts), kept).await
}

async fn write_keys(
    ctx: &Arc<Context>,
    server_name: &str,
    keys: Vec<ServerKey>,
    PublishedKeys { json, fetched_ts }: PublishedKeys,
) -> Result<bool, RemoteError> {
    let news = keys.iter().filter(|key| is_news(ctx, server_name, key));
    let news: Vec<String> = news.map(|key| key.key_id.clone()).collect();
    let store = StorePublishedKeys { server_name: server_name.to_owned(), keys, json, fetched_ts };
    let refused = ctx.engine.write(store).await.map_err(failed)?;
    if !refused.is_empty() {
        refusals::keys("other_key");
        warn!(%server_name, ?refused, "a server gives key ids to other keys than before");
    }
    let is_news = news.iter().any(|key_id| !refused.contains(key_id));
    if is_news {
        keys_came(ctx, server_name);
    }
    Ok(is_news)
}

/// Whether anything lacked a key that is told so. Many servers let theirs count for longer whenever they are asked, and anybody may have
/// them asked: nothing waited for that while it counted.
fn is_news(ctx: &Context, server_name: &str, key: &ServerKey) -> bool {
    match ctx.engine.read(&StandingOfKey { server_name, key_id: &key.key_id }) {
        Ok(KeyStanding::Known(known)) => {
            let has_lapsed = !known.is_old && known.valid_until_ts <= ctx.engine.now_ms();
            has_lapsed && known.valid_until_ts < key.valid_until_ts
        }
        Ok(KeyStanding::NeverTrusted) => false,
        Ok(KeyStanding::Unknown) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests;
