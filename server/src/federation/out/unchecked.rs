//! Events of rooms' states that could not be checked when the rooms were entered: the servers that signed them were away, and their
//! keys not to be had. The keys are asked for again, and the events become part of the rooms once they are here.
//!
//! Invariant: one is at the events of a server in a room at a time. The events are in the store; what is here is read from there
//! after a start.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use warren_engine::command::{
    KeepUnchecked, TakeUnchecked, TakenUnchecked, UNCHECKED_BYTES_MAX, UNCHECKED_EVENTS_MAX, Unchecked,
};
use warren_engine::core::checked::CheckedPdu;
use warren_engine::core::event::Pdu;
use warren_engine::core::version::RoomVersion;
use warren_engine::view::federation::{AwaitedKeys, UncheckedEvents, WaitingForKeys};

use super::check::{Keyless, check_each};
use super::fetch::follow_up;
use super::guests;
use super::keys::Cause;
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

/// Events that are written at once.
const BATCH: usize = 200;
/// Events that are read, checked and taken in at once: each time the room's state is resolved anew.
const TAKEN_BATCH: usize = 1_000;

/// Pauses between attempts. A server that is away for a while is asked soon, and one that is gone for good four times a day; whoever is
/// heard from waits for none.
const PAUSES: [Duration; 5] = [
    // Behind that after which the keys are asked for again.
    Duration::from_secs(35),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(6 * 60 * 60),
];

/// Servers that are asked at once, each of which may be silent for half a minute: large rooms have hundreds that are gone for good, and
/// asking those must not be felt.
const ASKED_AT_ONCE: usize = 8;

/// Whose keys are waited for, in which rooms.
pub struct UncheckedRooms {
    /// By server, then by room. `None` until it is read.
    waiting: Mutex<Option<HashMap<String, HashMap<String, Stage>>>>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Somebody is at it; whether keys came meanwhile.
    Busy { again: bool, attempts: usize },
    /// The next attempt is made then, after so many in vain.
    Resting { until: Instant, attempts: usize },
}

impl Default for UncheckedRooms {
    fn default() -> UncheckedRooms {
        UncheckedRooms { waiting: Mutex::default(), places: Arc::new(Semaphore::new(ASKED_AT_ONCE)) }
    }
}

impl UncheckedRooms {
    /// Whether anything waits in the room, or might.
    fn has(&self, room_id: &str) -> bool {
        let waiting = self.waiting.lock();
        waiting.as_ref().is_none_or(|waiting| waiting.values().any(|rooms| rooms.contains_key(room_id)))
    }

    /// Lets events wait for the keys of servers.
    pub(super) fn add<'s>(&self, room_id: &str, servers: impl IntoIterator<Item = &'s str>, now: Instant) {
        // What is not read yet is read with these.
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        for server in servers {
            let fresh = Stage::Resting { until: now + PAUSES[0], attempts: 0 };
            let rooms = waiting.entry(server.to_owned()).or_default();
            let stage = rooms.entry(room_id.to_owned()).or_insert(fresh);
            match stage {
                Stage::Busy { again, .. } => *again = true,
                // What is new is looked at soon, and does not put off what waits already.
                Stage::Resting { until, attempts } => {
                    (*until, *attempts) = ((*until).min(now + PAUSES[0]), 0);
                }
            }
        }
    }

    /// What was looked at before waits for no pause: nothing could be taken in while members of the room were on the way, even if the
    /// keys were here. Who is at it looks again, for they may have been told so. What is new has just been asked for with the members,
    /// and would be in vain before its pause is over.
    pub(super) fn wake(&self, room_id: &str, now: Instant) {
        let mut waiting = self.waiting.lock();
        for stage in waiting.iter_mut().flatten().filter_map(|(_, rooms)| rooms.get_mut(room_id)) {
            match stage {
                Stage::Busy { again, .. } => *again = true,
                Stage::Resting { attempts: 0, .. } => {}
                Stage::Resting { until, .. } => *until = (*until).min(now),
            }
        }
    }

    /// Takes the one whose pause has been over for longest: a server, and a room.
    fn take_due(&self, now: Instant) -> Option<(String, String)> {
        let mut waiting = self.waiting.lock();
        let rooms = waiting.iter_mut().flatten().flat_map(|(server, rooms)| {
            rooms.iter_mut().map(move |(room_id, stage)| (server, room_id, stage))
        });
        let due = rooms.filter_map(|(server, room_id, stage)| match *stage {
            Stage::Resting { until, attempts } if until <= now => {
                Some((until, attempts, server, room_id, stage))
            }
            _ => None,
        });
        let (_, attempts, server, room_id, stage) = due.min_by_key(|(until, ..)| *until)?;
        *stage = Stage::Busy { again: false, attempts };
        Some((server.clone(), room_id.clone()))
    }

    /// Takes all rooms of a server, whose keys have come. Who is at one of them looks again.
    fn take_of(&self, server: &str) -> Vec<String> {
        let mut waiting = self.waiting.lock();
        let rooms = waiting.as_mut().and_then(|waiting| waiting.get_mut(server));
        let mut taken = Vec::new();
        for (room_id, stage) in rooms.into_iter().flatten() {
            match stage {
                Stage::Busy { again, .. } => *again = true,
                Stage::Resting { attempts, .. } => {
                    *stage = Stage::Busy { again: false, attempts: *attempts };
                    taken.push(room_id.clone());
                }
            }
        }
        taken
    }

    /// Ends an attempt. Answers whether another is to follow at once.
    fn end(&self, place: (&str, &str), is_done: bool, now: Instant) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return false };
        let (server, room_id) = place;
        let Some(rooms) = waiting.get_mut(server) else { return false };
        let Some(stage) = rooms.get_mut(room_id) else { return false };
        if let Stage::Busy { again: again @ true, .. } = stage {
            *again = false;
            return true;
        }
        stage.rest(now);
        if is_done {
            rooms.remove(room_id);
        }
        if rooms.is_empty() {
            waiting.remove(server);
        }
        false
    }

    /// Nobody is at it any more, if somebody was.
    fn leave(&self, (server, room_id): (&str, &str), now: Instant) {
        let mut waiting = self.waiting.lock();
        let rooms = waiting.as_mut().and_then(|waiting| waiting.get_mut(server));
        if let Some(stage) = rooms.and_then(|rooms| rooms.get_mut(room_id)) {
            stage.rest(now);
        }
    }
}

impl Stage {
    /// Until the next attempt, if somebody is at it.
    fn rest(&mut self, now: Instant) {
        if let Stage::Busy { attempts, .. } = *self {
            let attempts = attempts + 1;
            let pause = PAUSES.get(attempts).or(PAUSES.last()).copied().unwrap_or_default();
            *self = Stage::Resting { until: now + pause, attempts };
        }
    }
}

/// What cannot be checked of a state that is told, and what is only allowed by that.
#[derive(Default)]
pub struct KeptBack {
    events: Vec<Unchecked>,
    bytes: usize,
    /// The servers whose keys they wait for, by their ids.
    servers: HashMap<Arc<str>, String>,
    allowed_by: HashSet<Arc<str>>,
}

impl KeptBack {
    /// Adds events of a room of the version that lack keys.
    pub fn add(&mut self, version: &'static RoomVersion, keyless: Vec<Keyless>, is_state: bool) {
        for Keyless { pdu, server } in keyless {
            let Ok(event) = Pdu::parse_history(version, &pdu) else { continue };
            self.allowed_by.extend(event.auth_events);
            self.keep(event.event_id, (server, pdu), is_state);
        }
    }

    /// The events that allow them, as they say.
    pub fn allowed_by(&self) -> impl Iterator<Item = &Arc<str>> {
        self.allowed_by.iter()
    }

    /// Adds those of the events that wait for one that was added; each stands behind what allows it. Answers how many that are.
    pub fn add_waiting<'p>(
        &mut self,
        waiting: impl Iterator<Item = &'p Arc<CheckedPdu>>,
        is_state: impl Fn(&Arc<str>) -> bool,
    ) -> usize {
        let before = self.events.len();
        for pdu in waiting.map(|checked| checked.pdu()) {
            if let Some(server) = pdu.auth_events.iter().find_map(|event_id| self.servers.get(event_id)) {
                let (server, is_state) = (server.clone(), is_state(&pdu.event_id));
                self.keep(pdu.event_id.clone(), (server, pdu.json.clone()), is_state);
            }
        }
        self.events.len() - before
    }

    fn keep(&mut self, event_id: Arc<str>, (server, json): (String, Bytes), is_state: bool) {
        if self.events.len() >= UNCHECKED_EVENTS_MAX || self.bytes + json.len() > UNCHECKED_BYTES_MAX {
            return;
        }
        // It may be told as part of the state and of what allows that.
        if let Entry::Vacant(entry) = self.servers.entry(event_id.clone()) {
            entry.insert(server.clone());
            self.bytes += json.len();
            self.events.push(Unchecked { event_id, server, is_state, json });
        }
    }
}

/// Keeps what cannot be checked of the state before an event, by which the room is about to be entered, or was. It takes the place of
/// what was kept before: of the room, or where it was, of that state.
///
/// Errors: those of the store.
pub async fn keep(
    ctx: &Context,
    (room_id, version): (&str, &'static RoomVersion),
    (before, is_entered): (&Arc<str>, bool),
    kept_back: KeptBack,
) -> Result<(), ApiError> {
    let rooms = &ctx.federation.unchecked;
    if kept_back.events.is_empty() && !rooms.has(room_id) {
        return Ok(());
    }
    let mut rest = kept_back.events.as_slice();
    let mut is_anew = true;
    while is_anew || !rest.is_empty() {
        let (events, behind) = rest.split_at(rest.len().min(BATCH));
        let (room_id, events) = (room_id.to_owned(), events.to_vec());
        let before = before.clone();
        ctx.engine.write(KeepUnchecked { room_id, version, before, events, is_entered, is_anew }).await?;
        (rest, is_anew) = (behind, false);
    }
    if !kept_back.events.is_empty() {
        let count = kept_back.events.len();
        tracing::info!(
            room_id,
            count,
            "events of a room's state wait for the keys of servers that cannot be had"
        );
    }
    rooms.add(room_id, kept_back.servers.values().map(String::as_str), Instant::now());
    Ok(())
}

/// Goes on with what waits for the keys of a server that are here now.
pub fn keys_came(ctx: &Arc<Context>, server: &str) {
    let rooms = ctx.federation.unchecked.take_of(server).into_iter();
    let turns: Vec<Turn> = rooms.map(|room_id| Turn::new(ctx, server.to_owned(), room_id)).collect();
    if turns.is_empty() {
        return;
    }
    worker::run(ctx, "taking in what waited for keys", async move {
        for turn in turns {
            turn.run().await;
        }
    });
}

/// Asks again for keys, after a start and whenever a pause is over.
pub fn take_up(ctx: &Arc<Context>) {
    if let Err(error) = read_all(ctx) {
        return tracing::warn!(%error, "it cannot be told which keys are waited for");
    }
    let rooms = &ctx.federation.unchecked;
    while let Ok(place) = rooms.places.clone().try_acquire_owned()
        && let Some((server, room_id)) = rooms.take_due(Instant::now())
    {
        let turn = Turn::new(ctx, server, room_id);
        worker::run(ctx, "taking in what waited for keys", async move {
            turn.run().await;
            drop(place);
        });
    }
}

/// Reads what waits in the store, once.
fn read_all(ctx: &Context) -> Result<(), warren_engine::Error> {
    let mut waiting = ctx.federation.unchecked.waiting.lock();
    if waiting.is_none() {
        let mut read: HashMap<String, HashMap<String, Stage>> = HashMap::new();
        let due = Stage::Resting { until: Instant::now(), attempts: 0 };
        for (server, room_id) in tokio::task::block_in_place(|| ctx.engine.read(&AwaitedKeys))? {
            read.entry(server).or_default().insert(room_id, due);
        }
        *waiting = Some(read);
    }
    Ok(())
}

/// A task's turn with what waits for a server in a room. Whatever becomes of the task, the rest is left to the next attempt.
struct Turn {
    ctx: Arc<Context>,
    server: String,
    room_id: String,
    /// Whether the place is somebody else's by now.
    has_ended: bool,
}

impl Turn {
    fn new(ctx: &Arc<Context>, server: String, room_id: String) -> Turn {
        Turn { ctx: ctx.clone(), server, room_id, has_ended: false }
    }

    /// Tries until nothing new comes of it.
    async fn run(mut self) {
        self.attempt().await;
        self.has_ended = true;
    }

    async fn attempt(&self) {
        let (server, room_id) = (self.server.as_str(), self.room_id.as_str());
        loop {
            let is_done = take_in_all(&self.ctx, server, room_id).await.unwrap_or_else(|error| {
                tracing::warn!(server, room_id, error = %error.error, "what waited for keys cannot be taken in");
                false
            });
            if !self.ctx.federation.unchecked.end((server, room_id), is_done, Instant::now()) {
                return;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.has_ended {
            self.ctx.federation.unchecked.leave((&self.server, &self.room_id), Instant::now());
        }
    }
}

/// Takes in what waits for the keys of a server in a room. Answers whether nothing of it is left. What one pass takes in may be what
/// allows others.
async fn take_in_all(ctx: &Arc<Context>, server: &str, room_id: &str) -> Result<bool, ApiError> {
    while take_in(ctx, server, room_id).await? {}
    let left = ctx.engine.read(&UncheckedEvents { room_id, server, after: "", limit: 1 })?;
    Ok(left.events.is_empty())
}

/// One pass over all that waits. Answers whether any of it was taken in.
async fn take_in(ctx: &Arc<Context>, server: &str, room_id: &str) -> Result<bool, ApiError> {
    let (mut after, mut count) = (String::new(), 0);
    loop {
        let limit = TAKEN_BATCH;
        let waiting = ctx.engine.read(&UncheckedEvents { room_id, server, after: &after, limit })?;
        let Some((last, _)) = waiting.events.last() else { break };
        after = last.to_string();
        match take_batch(ctx, (server, room_id), waiting).await? {
            Some(adopted) => count += adopted,
            None => break,
        }
    }
    if count > 0 {
        tracing::info!(room_id, server, count, "what waited for a server's keys is taken in");
        guests::begin_to_remove(ctx, room_id);
        // What waited for whom it came from.
        follow_up(ctx, room_id);
    }
    Ok(count > 0)
}

/// Takes in some of what waits. Answers how many wait no more; nothing if they all go on waiting, for the room is not to be changed yet.
async fn take_batch(
    ctx: &Arc<Context>,
    (server, room_id): (&str, &str),
    WaitingForKeys { version, events }: WaitingForKeys,
) -> Result<Option<usize>, ApiError> {
    let mut take = TakeUnchecked {
        room_id: room_id.to_owned(),
        server: server.to_owned(),
        pdus: Vec::new(),
        refused: Vec::new(),
        elsewhere: Vec::new(),
    };
    if let Some(version) = version {
        let cause = Cause::Kept(ctx.config.server_name.to_string());
        let pdus = events.iter().map(|(_, json)| json.clone()).collect();
        let checked = check_each(ctx, &cause, version, pdus).await?;
        let mut left: HashSet<Arc<str>> = events.into_iter().map(|(event_id, _)| event_id).collect();
        for pdu in &checked.ready {
            left.remove(&pdu.pdu().event_id);
        }
        for Keyless { pdu, server: other } in checked.keyless {
            let Ok(event) = Pdu::parse_history(version, &pdu) else { continue };
            left.remove(&event.event_id);
            if other != server {
                take.elsewhere.push((event.event_id, other));
            }
        }
        take.pdus = checked.ready;
        take.refused = left.into_iter().collect();
        if take.pdus.is_empty() && take.refused.is_empty() && take.elsewhere.is_empty() {
            return Ok(Some(0));
        }
    }
    let others: Vec<String> = take.elsewhere.iter().map(|(_, other)| other.clone()).collect();
    let taken = take_checked(ctx, take).await?;
    ctx.federation.unchecked.add(room_id, others.iter().map(String::as_str), Instant::now());
    Ok(taken)
}

/// The same with what is checked, in as many commands as it takes for the states that it is part of.
async fn take_checked(ctx: &Context, mut take: TakeUnchecked) -> Result<Option<usize>, ApiError> {
    let mut sum = 0;
    loop {
        let taken = tokio::task::block_in_place(|| ctx.engine.write(take.clone())).await?;
        let TakenUnchecked::Settled { count, adopted, further } = taken else {
            return Ok((sum > 0).then_some(sum));
        };
        let (room_id, server, changes) = (&take.room_id, &take.server, adopted.changed);
        tracing::debug!(room_id, server, count, changes, "the state of a room is told further");
        sum += count;
        if further.is_empty() {
            return Ok(Some(sum));
        }
        let further: HashSet<Arc<str>> = further.into_iter().collect();
        take.pdus.retain(|checked| further.contains(&checked.pdu().event_id));
        take.refused.retain(|event_id| further.contains(event_id));
        take.elsewhere.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "!a:here.test";

    fn rooms(servers: &[&str], now: Instant) -> UncheckedRooms {
        let rooms = UncheckedRooms::default();
        *rooms.waiting.lock() = Some(HashMap::new());
        rooms.add(ROOM, servers.iter().copied(), now);
        rooms
    }

    #[test]
    fn what_is_in_vain_is_tried_less_and_less_often_and_what_is_new_soon() {
        let mut now = Instant::now();
        let rooms = rooms(&["a.test"], now);
        for pause in PAUSES.iter().chain([&PAUSES[PAUSES.len() - 1]]) {
            assert_eq!(rooms.take_due(now + *pause - Duration::from_secs(1)), None);
            now += *pause;
            assert_eq!(rooms.take_due(now), Some(("a.test".to_owned(), ROOM.to_owned())));
            assert_eq!(rooms.take_due(now), None, "somebody is at it");
            assert!(!rooms.end(("a.test", ROOM), false, now));
        }
        // More is told of the room that waits for it.
        rooms.add(ROOM, ["a.test"], now);
        now += PAUSES[0];
        assert!(rooms.take_due(now).is_some());
        // And while somebody is at it, that is looked at at once, though all else is done.
        rooms.add(ROOM, ["a.test"], now);
        assert!(rooms.end(("a.test", ROOM), true, now) && rooms.has(ROOM));
        assert!(!rooms.end(("a.test", ROOM), true, now));
        assert!(!rooms.has(ROOM));
    }

    #[test]
    fn who_has_waited_for_longest_is_next_and_keys_wait_for_no_pause() {
        let now = Instant::now();
        let rooms = rooms(&["first.test"], now);
        rooms.add(ROOM, ["second.test"], now + Duration::from_secs(1));
        let due = now + PAUSES[0] + Duration::from_secs(1);
        assert_eq!(rooms.take_due(due).map(|(server, _)| server).as_deref(), Some("first.test"));
        assert_eq!(rooms.take_of("second.test"), [ROOM]);
        assert_eq!(rooms.take_due(due), None);
        // A task that falls leaves it to the next attempt.
        rooms.leave(("second.test", ROOM), due);
        assert!(rooms.take_due(due + PAUSES[1]).is_some());
    }

    #[test]
    fn what_was_looked_at_before_the_members_of_its_room_came_waits_for_no_pause() {
        const OTHER: &str = "!other:here.test";
        let now = Instant::now();
        let rooms = rooms(&["a.test", "b.test", "busy.test"], now);
        rooms.add(OTHER, ["a.test"], now);
        // Nothing can be taken in yet.
        assert_eq!((rooms.take_of("a.test").len(), rooms.take_of("b.test").len()), (2, 1));
        for place in [("a.test", ROOM), ("a.test", OTHER), ("b.test", ROOM)] {
            assert!(!rooms.end(place, false, now));
        }
        assert_eq!(rooms.take_of("busy.test"), [ROOM]);
        rooms.add(ROOM, ["new.test"], now);
        assert_eq!(rooms.take_due(now), None);
        rooms.wake(ROOM, now);
        let due = |at: Instant| {
            let mut found: Vec<(String, String)> = std::iter::from_fn(|| rooms.take_due(at)).collect();
            found.sort();
            found
        };
        let of_room = |server: &str| (server.to_owned(), ROOM.to_owned());
        assert_eq!(due(now), [of_room("a.test"), of_room("b.test")]);
        // Who was at it may have been told so before.
        assert!(rooms.end(("busy.test", ROOM), false, now));
        assert!(!rooms.end(("busy.test", ROOM), false, now));
        assert_eq!(due(now + PAUSES[0]), [of_room("new.test")]);
    }
}
