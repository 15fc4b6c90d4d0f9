//! A local user joins a room by way of a server that is in it.
//!
//! Invariant: what the server tells of the room is stored before the room is entered, every event of it checked and allowed
//! by others that are; the join and all that follows from it for others are one batch. What the user set for a room that this
//! one replaces comes behind it. The user is answered as soon as the room is entered; members that were left out are fetched
//! behind (`complete`).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use warren_engine::approach::{Approach, Change, SERVERS_TRIED_MAX};
use warren_engine::command::{CarrySettings, EnterRoom, MoveNames, Received, StoreOutliers};
use warren_engine::core::checked::{CheckedPdu, Refused};
use warren_engine::core::event::{EVENT_TEXT_BYTES_MAX, JsonObject, Pdu};
use warren_engine::core::json::{Limits, Strictness, parse_object};
use warren_engine::core::version::RoomVersion;
use warren_engine::view::federation::{Handshake, IsJoined, IsUntold, SignedEvent, UntoldEnds};
use warren_engine::view::{ReplacedRoom, UncarriedSettingsIn};
use warren_engine::{Outcome, Pending, in_order};

use super::RemoteError;
use super::ask::read_answer;
use super::check::{check_each, check_one, take_signature};
use super::complete;
use super::fetch::{bytes_of, follow_up};
use super::keys::Cause;
use super::membership::{
    JUDGED_TIME_MAX, NoHelp, hand_in, next_event, no_help, take_in_own, takes_part, told,
};
use super::unchecked::{self, KeptBack};
use super::untold::until_told;
use crate::context::Context;
use crate::http::ApiError;

/// Events that are stored in one batch, as the engine recommends.
const BATCH: usize = 500;
/// How long a user who comes into a room again waits until the server that lets them in has taken what it was not told of the room.
/// It has answered, so that this is a matter of a transaction or two; if it takes none, the room is forked, and whole all the same.
const UNTOLD_TIME_MAX: Duration = Duration::from_secs(10);
/// Batches that are under way at once: while one is decided, others are on their way to the disk. More are no faster.
const BATCHES_UNDER_WAY_MAX: usize = 3;

/// Joins by way of one of the servers, to none of which a join is handed in after `until`.
///
/// Errors: what the last server that knew the room refused; 404 if none could be reached.
pub async fn join(
    ctx: &Arc<Context>,
    change: &Change,
    servers: &[String],
    until: Option<Instant>,
) -> Result<(), ApiError> {
    let mut approach = Approach::new(change.clone(), Handshake::Join, servers);
    // Before any server is asked: what it takes only after it has made its template, that does not follow.
    let mut owed_before = HashMap::new();
    for server in servers.iter().take(SERVERS_TRIED_MAX) {
        let ends = ctx.engine.read(&UntoldEnds { room_id: &change.room_id, server })?;
        owed_before.insert(server.clone(), ends);
    }
    let (mut waited_for, mut owed) = (None, Vec::new());
    let begun = Instant::now();
    while let Some((server, event)) = next_event(ctx, &mut approach).await {
        let is_first = waited_for.replace(server.clone()).is_none_or(|before| before != server);
        if is_first {
            owed = ctx.engine.read(&UntoldEnds { room_id: &change.room_id, server: &server })?;
            owed.extend(owed_before.remove(&server).unwrap_or_default());
            if is_told_first(ctx, &change.room_id, &server).await {
                approach.ask_again();
                continue;
            }
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        match join_by(ctx, change, &server, event, (begun, &owed)).await {
            Ok(()) => {
                // The user is in the room, whatever becomes of this.
                carry_settings(ctx, &change.room_id, &change.user_id).await;
                return Ok(());
            }
            Err(why) => no_help(&mut approach, &server, why),
        }
    }
    Err(told(approach))
}

/// Lets the room be found by what this server calls the one that it replaces, if that says so by now.
pub async fn move_names(ctx: &Context, room_id: &str) -> Result<(), warren_engine::Error> {
    match ctx.engine.read(&ReplacedRoom(room_id))? {
        Some(old_room_id) => ctx.engine.write(MoveNames { old_room_id, room_id: room_id.to_owned() }).await,
        None => Ok(()),
    }
}

/// Lets the user find in the room what they set for the one that it replaces, and everybody the room by what this server calls that
/// one. Answers whether they do.
async fn carry_settings(ctx: &Context, room_id: &str, user_id: &str) -> bool {
    let carried = follow_replacement(ctx, room_id, user_id).await;
    carried.inspect_err(|error| tracing::warn!(room_id, %error, "settings do not follow into a room")).is_ok()
}

async fn follow_replacement(ctx: &Context, room_id: &str, user_id: &str) -> Result<(), warren_engine::Error> {
    // The user's mark, by which this is taken up again, goes last.
    move_names(ctx, room_id).await?;
    ctx.engine.write(CarrySettings { room_id: room_id.to_owned(), user_id: user_id.to_owned() }).await
}

/// Does so for all who have come into the room, and for whom it was not done. Answers whether it is.
pub async fn carry_all_settings(ctx: &Context, room_id: &str) -> bool {
    let user_ids = match ctx.engine.read(&UncarriedSettingsIn(room_id)) {
        Ok(user_ids) => user_ids,
        Err(error) => {
            tracing::warn!(room_id, %error, "it cannot be told whose settings do not follow into a room");
            return false;
        }
    };
    let mut is_done = true;
    for user_id in user_ids {
        is_done &= carry_settings(ctx, room_id, &user_id).await;
    }
    is_done
}

/// Lets a server that has just answered first take what it was not told yet of the room, so that the join follows from it and
/// nothing is forked. Answers whether it has.
async fn is_told_first(ctx: &Context, room_id: &str, server: &str) -> bool {
    let is_untold = || ctx.engine.read(&IsUntold { room_id, server }).is_ok_and(|is_untold| is_untold);
    // What is done in a room that this server takes part in is told as ever.
    if takes_part(ctx, room_id) || !is_untold() {
        return false;
    }
    until_told(ctx, UNTOLD_TIME_MAX, is_untold).await
}

#[derive(Deserialize)]
struct Joined {
    state: Vec<Box<RawValue>>,
    auth_chain: Vec<Box<RawValue>>,
    /// Our event, as it may have been signed by another server.
    event: Option<Box<RawValue>>,
    #[serde(default)]
    members_omitted: bool,
    #[serde(default)]
    servers_in_room: Vec<String>,
}

async fn join_by(
    ctx: &Arc<Context>,
    change: &Change,
    server: &str,
    event: SignedEvent,
    (begun, owed): (Instant, &[Arc<str>]),
) -> Result<(), NoHelp> {
    let is_here = takes_part(ctx, &change.room_id);
    // Before the server answers: what it is told while that is stored here it does not go by.
    let now = ctx.engine.read(&UntoldEnds { room_id: &change.room_id, server })?;
    let mut untold = not_followed(&event, now.iter().chain(owed));
    // Members come behind, or are here, or are on their way.
    let query = if is_here || untold.is_empty() { "?omit_members=true" } else { "" };
    let answer = hand_in(ctx, server, "send_join", query, change, &event).await?;
    let (joined, _memory) = answer.parse_by(read_joined)?;
    let own = with_vouching(ctx, &event, joined.event.as_deref()).await?;
    if is_here {
        take_in_own(ctx, change, server, &event, own, JUDGED_TIME_MAX).await?;
        return is_in_room(ctx, change);
    }
    tracing::info!(
        room_id = change.room_id,
        server,
        state = joined.state.len(),
        members_omitted = joined.members_omitted,
        "a room is entered"
    );
    // Whose keys cannot be had is not asked again by way of the next server.
    let cause = Cause::Told(server.to_owned(), begun);
    let join = check_one(ctx, &cause, event.version, own).await?;
    let told = (joined.state, joined.auth_chain);
    let Stored { state, named, without_keys } =
        store(ctx, (change.room_id.as_str(), &cause), event.version, At::Join(&join), told, |_, _| {})
            .await?;
    // What that names, the join follows, in however many steps.
    untold.retain(|event_id| !named.contains(event_id));
    let partial = joined.members_omitted.then(|| servers(server, joined.servers_in_room));
    let enter = EnterRoom {
        room_id: change.room_id.clone(),
        version: event.version,
        join,
        untold,
        state,
        partial: partial.clone(),
    };
    match ctx.engine.write(enter).await? {
        (Outcome::Accepted | Outcome::Known, _) => {}
        (Outcome::Refused(Refused::OtherVersion), _) => return Err(other_version().into()),
        (Outcome::Rejected(denied) | Outcome::SoftFailed(denied), _) => {
            return Err(ApiError::forbidden(denied.to_string()).into());
        }
        (outcome, missing) => {
            tracing::warn!(
                room_id = change.room_id,
                server,
                ?outcome,
                ?missing,
                "what a server tells of a room is not whole"
            );
            return Err(not_whole(&without_keys));
        }
    }
    if partial.is_some() {
        complete::start(ctx, &change.room_id);
    }
    follow_up(ctx, &change.room_id);
    is_in_room(ctx, change)
}

/// Those of the ends, each once, that the join names neither as what it follows nor as what allows it, such as how the user left:
/// some servers answer before they go by what they were told.
fn not_followed<'e>(event: &SignedEvent, ends: impl Iterator<Item = &'e Arc<str>>) -> Vec<Arc<str>> {
    let join = Pdu::parse_history(event.version, &event.json);
    let mut seen = join.map(|join| [join.prev_events, join.auth_events].concat()).unwrap_or_default();
    let mut left = Vec::new();
    for event_id in ends {
        if !seen.contains(event_id) {
            seen.push(event_id.clone());
            left.push(event_id.clone());
        }
    }
    left
}

/// Whether a user who was let into a room is in it here. What the resident had not heard of, that they left for one, may stand
/// against that; and the join may be older than a state that lacks members yet.
fn is_in_room(ctx: &Context, change: &Change) -> Result<(), NoHelp> {
    if ctx.engine.read(&IsJoined { room_id: &change.room_id, user_id: &change.user_id })? {
        return Ok(());
    }
    let why = "You were let in, but by what is known here of the room you are not in it: either that you left \
               stands against it, or members are still missing; try again in a while";
    Err(NoHelp::Refused(ApiError::unknown(why).with_status(StatusCode::SERVICE_UNAVAILABLE)))
}

/// Why a room cannot be entered with what a server tells of it; `without_keys` are the servers whose keys cannot be had.
fn not_whole(without_keys: &BTreeSet<String>) -> NoHelp {
    /// Servers that are named to the user.
    const NAMED_MAX: usize = 5;
    let named: Vec<&str> = without_keys.iter().take(NAMED_MAX).map(String::as_str).collect();
    let why = match named.is_empty() {
        true => "what it tells of the room is not whole".to_owned(),
        false => format!(
            "what it tells of the room cannot be checked, for the keys of some servers cannot be had: {}",
            named.join(", ")
        ),
    };
    NoHelp::Unbelieved(RemoteError::bad_answer("not_whole", why).into())
}

/// The servers that were in the room, the one that let us in first.
fn servers(resident: &str, others: Vec<String>) -> Vec<String> {
    /// Names of servers that are kept: more than any room has.
    const SERVERS_MAX: usize = 20_000;
    let others = others.into_iter().filter(|other| other != resident);
    std::iter::once(resident.to_owned()).chain(others).take(SERVERS_MAX).collect()
}

/// The body of version 2, or of version 1, where it stands in an array behind the status.
fn read_joined(answer: &[u8]) -> Result<Joined, RemoteError> {
    match answer.trim_ascii_start().first() {
        Some(b'[') => read_answer::<(u16, Joined)>(answer).map(|(_, joined)| joined),
        _ => read_answer(answer),
    }
}

/// Our event, with the signature of the server whose user vouches for the join where one does.
async fn with_vouching(
    ctx: &Arc<Context>,
    event: &SignedEvent,
    answer: Option<&RawValue>,
) -> Result<Bytes, NoHelp> {
    let own: JsonObject = serde_json::from_slice(&event.json).map_err(ApiError::internal)?;
    let voucher = own.get("content").and_then(|content| content.get("join_authorised_via_users_server"));
    let server = voucher.and_then(Value::as_str).and_then(warren_engine::core::identifiers::server_name);
    match (server, answer) {
        (Some(server), Some(answer)) => {
            let limits = Limits { bytes_max: EVENT_TEXT_BYTES_MAX, strictness: Strictness::Lenient };
            let answer = parse_object(answer.get().as_bytes(), limits)
                .map_err(|error| RemoteError::bad_answer("unreadable", format!("the join: {error}")))?;
            Ok(take_signature(ctx, event, &answer, server).await?)
        }
        (Some(_), None) => {
            Err(RemoteError::bad_answer("unsigned", "the join is not signed by who vouches for it").into())
        }
        (None, _) => Ok(event.json.clone()),
    }
}

/// Those of the events that are named by `roots`, or allow such: what else a server tells was not asked for.
fn reachable<'r>(
    all: Vec<Arc<CheckedPdu>>,
    roots: impl Iterator<Item = &'r Arc<str>>,
) -> Vec<Arc<CheckedPdu>> {
    let by_id: HashMap<Arc<str>, &Arc<CheckedPdu>> =
        all.iter().map(|checked| (checked.pdu().event_id.clone(), checked)).collect();
    let mut found: HashSet<Arc<str>> = HashSet::new();
    let mut next: Vec<Arc<str>> = roots.cloned().collect();
    while let Some(event_id) = next.pop() {
        let Some(checked) = by_id.get(&event_id) else { continue };
        if found.insert(event_id) {
            next.extend(checked.pdu().auth_events.iter().cloned());
        }
    }
    drop(by_id);
    all.into_iter().filter(|checked| found.contains(&checked.pdu().event_id)).collect()
}

/// Why nothing of a room is taken whose own beginning says another version than the template for the join did.
fn other_version() -> RemoteError {
    RemoteError::bad_answer("room_version", "it told another version than the room was created with")
}

/// How events fared that were to be stored.
#[derive(Default)]
struct Fared {
    stored: usize,
    /// Those that could not be, because what allows them is not here.
    left_out: HashSet<Arc<str>>,
}

impl Fared {
    /// Waits for a batch.
    async fn note(&mut self, pending: Pending<Received>) -> Result<(), ApiError> {
        for (event_id, outcome) in pending.await?.outcomes {
            match outcome {
                Outcome::Refused(Refused::OtherVersion) => return Err(other_version().into()),
                Outcome::Refused(_) => {}
                Outcome::Waiting => {
                    self.left_out.insert(event_id);
                }
                _ => self.stored += 1,
            }
        }
        Ok(())
    }
}

/// What was stored of what a server tells of a room.
pub struct Stored {
    /// The ids of the state's events that were believed.
    pub state: Vec<Arc<str>>,
    /// The ids of all events that could be checked, of the state and of what allows it.
    pub named: HashSet<Arc<str>>,
    /// The servers whose keys cannot be had, without which events were not.
    pub without_keys: BTreeSet<String>,
}

/// Where a state is that a server tells.
pub enum At<'a> {
    /// Before the join by which the room is about to be entered.
    Join(&'a Arc<CheckedPdu>),
    /// Before the join by which it was entered.
    Entrance(&'a str),
    /// It is only compared with the one here.
    Compared,
}

/// Stores what the server tells of the room, and tells `watch` how many events of how many are stored. What cannot be checked of the
/// state with which the room is entered is kept until it can be.
pub async fn store(
    ctx: &Arc<Context>,
    (room_id, cause): (&str, &Cause),
    version: &'static RoomVersion,
    at: At<'_>,
    (state, auth_chain): (Vec<Box<RawValue>>, Vec<Box<RawValue>>),
    watch: impl Fn(usize, usize),
) -> Result<Stored, ApiError> {
    let state = check_each(ctx, cause, version, state.into_iter().map(bytes_of).collect()).await?;
    let chain = check_each(ctx, cause, version, auth_chain.into_iter().map(bytes_of).collect()).await?;
    let keyless = state.keyless.iter().chain(&chain.keyless);
    let without_keys = keyless.map(|keyless| keyless.server.clone()).collect();
    let mut kept_back = KeptBack::default();
    kept_back.add(version, state.keyless, true);
    kept_back.add(version, chain.keyless, false);
    let mut ids: Vec<Arc<str>> = state.ready.iter().map(|pdu| pdu.pdu().event_id.clone()).collect();
    let all: Vec<Arc<CheckedPdu>> = chain.ready.into_iter().chain(state.ready).collect();
    let (join, before) = match at {
        At::Join(join) => (Some(join), Some((join.pdu().event_id.clone(), false))),
        At::Entrance(event_id) => (None, Some((Arc::from(event_id), true))),
        At::Compared => (None, None),
    };
    let ordered = tokio::task::block_in_place(|| {
        let roots = ids.iter().chain(join.into_iter().flat_map(|join| &join.pdu().auth_events));
        in_order(&reachable(all, roots.chain(kept_back.allowed_by()))).0
    });
    let left_out = store_in_order(ctx, (room_id, version), &ordered, watch).await?;
    if !left_out.is_empty() {
        let in_state: HashSet<&Arc<str>> = ids.iter().collect();
        let waiting = ordered.iter().filter(|pdu| left_out.contains(&pdu.pdu().event_id));
        let found = kept_back.add_waiting(waiting, |event_id| in_state.contains(event_id));
        let count = left_out.len() - found;
        tracing::warn!(room_id, count, "events of a state are left out: what allows them was not told");
        ids.retain(|event_id| !left_out.contains(event_id));
    }
    if let Some((before, is_entered)) = before {
        unchecked::keep(ctx, (room_id, version), (&before, is_entered), kept_back).await?;
    }
    let named = ordered.into_iter().map(|checked| checked.pdu().event_id.clone()).collect();
    Ok(Stored { state: ids, named, without_keys })
}

/// Stores events outside of the graph, each behind what allows it. Answers those that could not be, because that is not here.
async fn store_in_order(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    ordered: &[Arc<CheckedPdu>],
    watch: impl Fn(usize, usize),
) -> Result<HashSet<Arc<str>>, ApiError> {
    let mut fared = Fared::default();
    let mut under_way = VecDeque::with_capacity(BATCHES_UNDER_WAY_MAX);
    for pdus in ordered.chunks(BATCH) {
        watch(fared.stored, ordered.len());
        if under_way.len() == BATCHES_UNDER_WAY_MAX
            && let Some(first) = under_way.pop_front()
        {
            fared.note(first).await?;
        }
        let store = StoreOutliers { room_id: room_id.to_owned(), version, pdus: pdus.to_vec() };
        under_way.push_back(tokio::task::block_in_place(|| ctx.engine.write(store)));
    }
    for pending in under_way {
        fared.note(pending).await?;
        watch(fared.stored, ordered.len());
    }
    Ok(fared.left_out)
}
