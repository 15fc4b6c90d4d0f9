//! A page of a walk through a space, for a local user: rooms that this server is not in are asked of others.
//!
//! Invariant: a server that does not answer fails no page, and stalls none for longer than the limits say. What servers tell
//! is remembered for a short while, apart for each of them, so that none speaks for another.
//! Specification: client-server API and server-server API, "Spaces".

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};
use tokio::time::{Instant, timeout};
use warren_engine::SpaceRoom;
use warren_engine::hierarchy::{Next, QUESTIONS_MAX, Question, ToldSpace, Walk};
use warren_engine::view::federation::IsBackingOff;

use super::RemoteError;
use super::ask::{Ask, path};
use super::flights::Flights;
use super::silences::Silences;
use crate::context::Context;
use crate::federation::limits::{
    HIERARCHY_ANSWER_BYTES_MAX, HIERARCHY_ANSWER_TIME_MAX, HIERARCHY_CACHE_BYTES_MAX,
    HIERARCHY_CACHE_ENTRY_BYTES, HIERARCHY_CACHE_TIME, HIERARCHY_HEARD_BYTES, HIERARCHY_PAGE_BYTES,
    HIERARCHY_PAGE_TIME, HIERARCHY_PAUSE, HIERARCHY_QUESTIONS_MAX, HIERARCHY_QUESTIONS_SHARES,
    HIERARCHY_REFUSAL_TIME, HIERARCHY_ROOM_TIME_MAX, HIERARCHY_SERVERS_MAX,
};
use crate::federation::places::Places;
use crate::federation::refusals;
use crate::http::ApiError;
use crate::worker;

/// What is shared by all who look at spaces.
pub struct Hierarchies {
    answers: Mutex<Answers>,
    /// Questions that are being asked: nobody asks the same a second time meanwhile.
    flights: Flights,
    silences: Silences,
    /// By the user who looks.
    places: Places<String>,
}

impl Hierarchies {
    /// With so many questions under way at once, and no more than [`HIERARCHY_QUESTIONS_MAX`].
    pub fn new(questions_max: usize) -> Hierarchies {
        let places_max = HIERARCHY_QUESTIONS_MAX.min(questions_max);
        // Where few files may be open, what a walk asks for at once is asked at once all the same, if that leaves half of all.
        let least = QUESTIONS_MAX.min(places_max / 2).max(1);
        let of_each = (places_max / HIERARCHY_QUESTIONS_SHARES).max(least);
        Hierarchies {
            answers: Mutex::default(),
            flights: Flights::default(),
            silences: Silences::new(HIERARCHY_PAUSE),
            places: Places::new(places_max, of_each),
        }
    }
}

/// Which server was asked for which room, and whether for what it suggests alone.
type Key = (OwnedServerName, Arc<str>, bool);

/// What a server told; nothing, if it told nothing that can be used.
type Told = Option<Arc<ToldSpace>>;

/// What servers told lately.
#[derive(Default)]
struct Answers {
    by_key: HashMap<Key, Told>,
    /// The same by when they are good no more, and within that in the order in which they were told.
    by_end: BTreeMap<(Instant, u64), Key>,
    /// How many have been told so far.
    count: u64,
    bytes: usize,
}

impl Answers {
    fn get(&mut self, key: &Key, now: Instant) -> Option<Told> {
        while self.by_end.first_key_value().is_some_and(|((until, _), _)| *until <= now) {
            self.forget_first();
        }
        self.by_key.get(key).cloned()
    }

    fn put(&mut self, key: Key, told: Told, now: Instant) {
        let bytes = size(&told);
        if self.by_key.contains_key(&key) {
            return;
        }
        while self.bytes + bytes > HIERARCHY_CACHE_BYTES_MAX && !self.by_end.is_empty() {
            self.forget_first();
        }
        let time = if told.is_some() { HIERARCHY_CACHE_TIME } else { HIERARCHY_REFUSAL_TIME };
        self.bytes += bytes;
        self.count += 1;
        self.by_end.insert((now + time, self.count), key.clone());
        self.by_key.insert(key, told);
    }

    /// Forgets the one that is good no more before the others.
    fn forget_first(&mut self) {
        if let Some((_, key)) = self.by_end.pop_first()
            && let Some(told) = self.by_key.remove(&key)
        {
            self.bytes -= size(&told);
        }
    }
}

fn size(told: &Told) -> usize {
    HIERARCHY_CACHE_ENTRY_BYTES + told.as_ref().map_or(0, |told| told.size)
}

/// The rooms of a page.
#[derive(Default)]
pub struct Page {
    pub rooms: Vec<Arc<SpaceRoom>>,
    /// Whether the walk is over; else it goes on behind them.
    pub is_last: bool,
}

/// Goes on with the walk of a user for a page of at most so many rooms. It has fewer if others take long to tell of theirs, or tell much.
pub async fn page(
    ctx: &Arc<Context>,
    user_id: &str,
    walk: &mut Walk,
    limit: usize,
) -> Result<Page, ApiError> {
    let end = Instant::now() + HIERARCHY_PAGE_TIME;
    let (mut page, mut bytes, mut heard, mut has_asked) = (Page::default(), 0, 0, false);
    loop {
        let is_late = has_asked && (Instant::now() >= end || heard >= HIERARCHY_HEARD_BYTES);
        let is_full = page.rooms.len() >= limit || bytes >= HIERARCHY_PAGE_BYTES;
        match tokio::task::block_in_place(|| walk.advance(&ctx.engine))? {
            Next::Over => {
                page.is_last = true;
                break;
            }
            Next::Room if is_full => break,
            Next::Room => {
                let Some(room) = walk.take() else { continue };
                bytes += room.size();
                page.rooms.push(room);
            }
            Next::Ask(_) if is_full || is_late => break,
            Next::Ask(questions) => {
                has_asked = true;
                for (question, told) in answers(ctx, user_id, questions).await {
                    heard += told.as_ref().map_or(0, |told| told.size);
                    walk.told(&question, told.as_ref());
                }
            }
        }
    }
    walk.end_page();
    Ok(page)
}

/// What comes of each question.
async fn answers(ctx: &Arc<Context>, user_id: &str, questions: Vec<Question>) -> Vec<(Question, Told)> {
    let asks = questions.clone().into_iter().map(|question| {
        let (ctx, user_id) = (ctx.clone(), user_id.to_owned());
        async move {
            let told = timeout(HIERARCHY_ROOM_TIME_MAX, answer(&ctx, &user_id, &question)).await;
            (question.room_id, told.unwrap_or_default())
        }
    });
    let mut told: HashMap<Arc<str>, Told> = worker::side_by_side(ctx, asks).await.into_iter().collect();
    // None is left open, or the walk would not get on.
    questions
        .into_iter()
        .map(|question| {
            let told = told.remove(&question.room_id).flatten();
            (question, told)
        })
        .collect()
}

/// Asks one server after the other until one tells of the room.
async fn answer(ctx: &Context, user_id: &str, question: &Question) -> Told {
    let servers = question.via.iter().filter_map(|name| ServerName::parse(name).ok());
    let others = servers.filter(|server| *server != ctx.config.server_name);
    let mut asked = Vec::new();
    for server in others {
        let silences = &ctx.federation.hierarchies.silences;
        let is_backing_off = || ctx.engine.read(&IsBackingOff(server.as_str())).unwrap_or_default();
        if asked.contains(&server) || silences.is_silent(&server) || is_backing_off() {
            continue;
        }
        if let Some(told) = answer_of(ctx, user_id, &server, question).await {
            return Some(told);
        }
        asked.push(server);
        if asked.len() == HIERARCHY_SERVERS_MAX {
            break;
        }
    }
    None
}

/// What one server tells, or told lately. Nothing if it turns out to be silent while others are waited for.
async fn answer_of(ctx: &Context, user_id: &str, server: &OwnedServerName, question: &Question) -> Told {
    let Hierarchies { answers, flights, silences, places } = &ctx.federation.hierarchies;
    let Question { room_id, suggested_only, .. } = question;
    let key: Key = (server.clone(), room_id.clone(), *suggested_only);
    let name = format!("{server} {room_id} {suggested_only}");
    let mut place = None;
    let (_turn, _place) = loop {
        let Some(turn) = flights.turn(&name, place.is_some()).await else {
            place = None;
            continue;
        };
        if let Some(told) = answers.lock().get(&key, Instant::now()) {
            return told;
        }
        // Who was asked meanwhile may have been silent.
        if silences.is_silent(server) {
            return None;
        }
        if let Some(place) = place.take().or_else(|| places.try_take(Some(user_id.to_owned()))) {
            break (turn, place);
        }
        drop(turn);
        place = Some(places.take(Some(user_id.to_owned())).await);
    };
    let asked = timeout(HIERARCHY_ANSWER_TIME_MAX, ask(ctx, server, question)).await;
    let asked = asked.unwrap_or(Err(RemoteError::Timeout));
    let is_silent = match &asked {
        Err(RemoteError::Unreachable(_) | RemoteError::Timeout) => true,
        // It has other troubles than this room.
        Err(RemoteError::Refused { status, .. }) => status.is_server_error() || status.as_u16() == 429,
        _ => false,
    };
    silences.note(server, is_silent);
    let told = match asked {
        Ok(body) => {
            let read = || ToldSpace::read(room_id, *suggested_only, &body);
            let told = tokio::task::block_in_place(read);
            if told.is_none() {
                refusals::answer("unreadable");
            }
            told.map(Arc::new)
        }
        Err(error) => {
            tracing::debug!(%server, %room_id, %error, "a server does not tell of a space");
            None
        }
    };
    if !is_silent {
        answers.lock().put(key, told.clone(), Instant::now());
    }
    told
}

async fn ask(ctx: &Context, server: &ServerName, question: &Question) -> Result<Bytes, RemoteError> {
    let get = |template: &str| {
        let target = path(template, &[&question.room_id]);
        let target = format!("{target}?suggested_only={}", question.suggested_only);
        Ask::get(server.as_str(), target).with_bytes_max(HIERARCHY_ANSWER_BYTES_MAX).bytes(ctx)
    };
    match get("v1/hierarchy/{roomId}").await {
        // Servers from before version 1.2 of the specification know it by the name of its proposal.
        Err(error) if error.is_unknown_endpoint() => {
            get("unstable/org.matrix.msc2946/hierarchy/{roomId}").await
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let server = ServerName::parse("there.example").expect("a name");
        (server, format!("!{number}:there.example").into(), false)
    }

    #[test]
    fn one_user_leaves_places_to_others() {
        for questions_max in [2, 7, 14, 24, HIERARCHY_QUESTIONS_MAX, usize::MAX] {
            let places = Hierarchies::new(questions_max).places;
            let take = |user: &str| places.try_take(Some(format!("@{user}:here.example")));
            let held: Vec<_> = std::iter::from_fn(|| take("mallory")).collect();
            assert!(!held.is_empty() && held.len() <= questions_max / 2, "{questions_max}");
            assert!(take("alice").is_some(), "{questions_max}");
            let is_all_at_once = held.len() >= QUESTIONS_MAX || held.len() == (questions_max / 2).max(1);
            assert!(is_all_at_once, "{questions_max}: {}", held.len());
        }
    }

    #[test]
    fn answers_are_remembered_for_a_while_and_not_without_end() {
        let (mut answers, begun) = (Answers::default(), Instant::now());
        let fit = HIERARCHY_CACHE_BYTES_MAX / HIERARCHY_CACHE_ENTRY_BYTES;
        for number in 0..fit + 10 {
            answers.put(key(number), None, begun);
            answers.put(key(number), None, begun);
        }
        assert_eq!((answers.by_key.len(), answers.by_end.len()), (fit, fit));
        assert!(answers.get(&key(9), begun).is_none() && answers.get(&key(10), begun).is_some());
        let other: Key = (key(10).0, key(10).1, true);
        assert!(answers.get(&other, begun).is_none());
        assert!(answers.get(&key(10), begun + HIERARCHY_REFUSAL_TIME).is_none());
        assert_eq!((answers.by_key.len(), answers.by_end.len(), answers.bytes), (0, 0, 0));
    }

    #[test]
    fn that_there_is_nothing_to_be_told_is_good_for_a_shorter_while() {
        let (mut answers, begun) = (Answers::default(), Instant::now());
        let (_, room_id, _) = key(1);
        let answer = format!(r#"{{"room":{{"room_id":"{room_id}","join_rule":"public"}},"children":[]}}"#);
        let told = ToldSpace::read(&room_id, false, answer.as_bytes()).map(Arc::new);
        assert!(told.is_some());
        answers.put(key(1), told, begun);
        answers.put(key(2), None, begun);
        let later = begun + HIERARCHY_REFUSAL_TIME;
        assert!(matches!(answers.get(&key(2), begun), Some(None)));
        assert!(answers.get(&key(2), later).is_none() && answers.get(&key(1), later).is_some());
        // It may be told by now.
        answers.put(key(2), None, later);
        assert!(answers.get(&key(1), begun + HIERARCHY_CACHE_TIME).is_none());
        assert_eq!((answers.by_key.len(), answers.by_end.len(), answers.bytes), (0, 0, 0));
    }
}
