//! What local users ask of other servers: rooms by their aliases, profiles, directories, keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use warren_engine::RoomSummary;
use warren_engine::account::profile::{AVATAR_URL, DISPLAY_NAME};
use warren_engine::command::SendEvent;
use warren_engine::core::identifiers;
use warren_engine::core::json::{AtMost, INTEGER_MAX};
use warren_engine::view::federation::IsBackingOff;
use warren_engine::view::{AliasesElsewhere, RoomAlias};

use super::ask::{Ask, escaped, path, read_answer};
use super::keys_of_users;
use super::{Asker, RemoteError};
use crate::client::directory::servers_of;
use crate::client::list_public_rooms::Page;
use crate::context::Context;
use crate::federation::limits::{KEYS_OF_QUERY_BYTES_MAX, KEYS_OF_USER_BYTES_MAX, LIST_BYTES_MAX};
use crate::federation::refusals;
use crate::http::{ApiError, is_readable};
use crate::worker;

/// Names of servers that are kept of an answer, and entries of it that are looked at for them, of which some may be none.
const SERVERS_MAX: usize = 50;
const SERVERS_READ_MAX: usize = 1_000;

/// Rooms of one page of a directory: more than an answer of that size has, whose rooms have some hundred bytes at least.
const PAGE_ROOMS_MAX: usize = 10_000;

/// How long a client waits for the keys of users of other servers, unless it is to be shorter. Clients ask again for what
/// failed.
pub const KEYS_TIME_MAX: Duration = Duration::from_secs(10);

/// How long for those of a server that could not be reached the last time. It may be back, and then answers in time: also where
/// nobody answers for the services under its name, which are waited for three seconds once.
const KEYS_TIME_MAX_IN_PAUSE: Duration = Duration::from_secs(4);

/// A claim may wait for its turn for one in so many parts of its time. What is sent later is not waited for any more when it is answered,
/// and the keys that it claims are lost.
const CLAIM_WAIT_PART: u32 = 2;

/// Servers that are asked for keys at once: more than have users in most encrypted rooms. Clients ask again for what failed.
const KEYS_SERVERS_MAX: usize = 300;

/// Aliases that are looked up for one event: a room has a handful. More are refused.
const ALIASES_MAX: usize = 20;

/// How long a client that names a room waits for the server of an alias.
const ALIAS_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Alias<'a> {
    room_id: String,
    #[serde(borrow)]
    servers: Option<AtMost<&'a RawValue, SERVERS_READ_MAX>>,
}

/// The room that an alias stands for, here or elsewhere, and the servers that are in it.
///
/// Errors: 400 for what is no alias, before anybody is asked; 404 if it stands for nothing.
pub async fn room_of_alias(
    ctx: &Arc<Context>,
    asker: &Asker,
    alias: &str,
) -> Result<(String, Vec<String>), ApiError> {
    let server = identifiers::server_name(alias).filter(|server| *server != ctx.engine.server_name());
    let Some(server) = server.filter(|_| identifiers::is_room_alias(alias)) else {
        let room_id = ctx.engine.read(&RoomAlias { alias: alias.to_owned() })?;
        let servers = servers_of(ctx, &room_id)?;
        return Ok((room_id, servers));
    };
    let target = format!("{}?room_alias={}", path("v1/query/directory", &[]), escaped(alias));
    let answer = Ask::get(server, target).asked_by(asker).for_list().bytes(ctx).await;
    let answer = answer.map_err(|error| or_not_found(error, "Its server knows no such alias"))?;
    let found: Alias = read_answer(&answer)?;
    if !found.room_id.starts_with('!') {
        return Err(RemoteError::bad_answer("unfit", "a room id begins with an exclamation mark").into());
    }
    let names = found.servers.into_iter().flat_map(|servers| servers.0);
    let names = names.filter_map(|name| serde_json::from_str::<String>(name.get()).ok());
    let mut servers: Vec<String> =
        names.filter(|name| identifiers::is_server_name(name)).take(SERVERS_MAX).collect();
    if !servers.iter().any(|known| known == server) {
        servers.push(server.to_owned());
    }
    Ok((found.room_id, servers))
}

/// Of the aliases of other servers that an `m.room.canonical_alias` names anew, those that point to its room, as these say.
///
/// Errors: what keeps it from being told; not that a server knows no such alias.
pub async fn confirmed_aliases(ctx: &Arc<Context>, event: &SendEvent) -> Result<Vec<String>, ApiError> {
    let (user_id, state_key) = (&event.sender, event.state_key.as_deref().unwrap_or_default());
    let (room_id, content) = (&event.room_id, &event.content);
    let named = ctx.engine.read(&AliasesElsewhere { room_id, user_id, state_key, content })?;
    let asker = Asker::User(event.sender.clone());
    let asks = named.into_iter().take(ALIASES_MAX).map(|alias| {
        let (ctx, asker) = (ctx.clone(), asker.clone());
        async move {
            let found = timeout(ALIAS_TIME_MAX, room_of_alias(&ctx, &asker, &alias)).await;
            (found.unwrap_or_else(|_| Err(RemoteError::Timeout.into())), alias)
        }
    });
    let mut confirmed = Vec::new();
    for (found, alias) in worker::side_by_side(ctx, asks.collect::<Vec<_>>()).await {
        match found {
            Ok((found, _)) if found == *room_id => confirmed.push(alias),
            Ok(_) => {}
            Err(error) if error.status == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    Ok(confirmed)
}

/// What a server answers of something that is not there: some say so in no words, or in those of a proxy.
fn or_not_found(error: RemoteError, sentence: &'static str) -> ApiError {
    match error {
        RemoteError::Refused { status: StatusCode::NOT_FOUND, error, .. } => match error.is_empty() {
            true => ApiError::not_found(sentence),
            false => ApiError::not_found(error),
        },
        error => error.into(),
    }
}

/// The profile of a user of another server, or one field of it. What is no name or picture is left out.
///
/// `user_id` is a user id. Errors: 404 if the user's server knows no such user.
pub async fn profile(
    ctx: &Context,
    asker: &Asker,
    user_id: &str,
    field: Option<&str>,
) -> Result<Vec<(String, Bytes)>, ApiError> {
    let server = identifiers::server_name(user_id).unwrap_or_default();
    let mut target = format!("{}?user_id={}", path("v1/query/profile", &[]), escaped(user_id));
    if let Some(field) = field {
        target.push_str(&format!("&field={}", escaped(field)));
    }
    let answer = Ask::get(server, target).asked_by(asker).for_event().bytes(ctx).await;
    let answer = answer.map_err(|error| or_not_found(error, "Their server knows no such user"))?;
    Ok(read_profile(&answer, field)?)
}

/// The fields that are wanted of a profile, with their values as JSON. Specification: a server may give `null` to a field that the user has
/// not set, so that one that is set to it cannot be told from that.
fn read_profile(answer: &[u8], field: Option<&str>) -> Result<Vec<(String, Bytes)>, RemoteError> {
    let fields: BTreeMap<String, Option<&RawValue>> = read_answer(answer)?;
    let wanted = fields.into_iter().filter(|(name, _)| field.is_none_or(|field| field == name));
    let shown = wanted.filter_map(|(name, value)| Some((name, value?.get())));
    let shown = shown.filter(|(name, value)| is_field(name, value));
    Ok(shown.map(|(name, value)| (name, Bytes::copy_from_slice(value.as_bytes()))).collect())
}

/// The field with a user's time zone.
const TIME_ZONE: &str = "m.tz";

/// Whether `value` is JSON of the kind that the field has, where that is known: a text, or an address of media. Else what a
/// client can read.
fn is_field(name: &str, value: &str) -> bool {
    let text = || serde_json::from_str::<String>(value).ok();
    match name {
        DISPLAY_NAME | TIME_ZONE => text().is_some(),
        AVATAR_URL => text().is_some_and(|url| url.starts_with("mxc://")),
        _ => is_readable(value),
    }
}

/// A page of a directory as another server tells it. A member of a wrong kind counts as none.
#[derive(Deserialize)]
struct ToldPage<'a> {
    #[serde(borrow)]
    chunk: AtMost<&'a RawValue, PAGE_ROOMS_MAX>,
    next_batch: Option<&'a RawValue>,
    prev_batch: Option<&'a RawValue>,
    total_room_count_estimate: Option<&'a RawValue>,
}

/// A page of another server's directory, as the client asked for it. Rooms that are none are left out, and counted.
pub async fn public_rooms(
    ctx: &Context,
    asker: &Asker,
    server: &str,
    query: &Value,
) -> Result<Page, ApiError> {
    let asked = Ask::post(server, path("v1/publicRooms", &[]), query).repeatable().for_list();
    Ok(read_page(&asked.asked_by(asker).bytes(ctx).await?)?)
}

fn read_page(answer: &[u8]) -> Result<Page, RemoteError> {
    let told: ToldPage = serde_json::from_slice(answer)
        .map_err(|_| RemoteError::bad_answer("unreadable", "it is no page of a directory"))?;
    let token = |told: Option<&RawValue>| {
        let token: Option<String> = serde_json::from_str(told?.get()).ok();
        token.filter(|token| !token.is_empty())
    };
    let count =
        told.total_room_count_estimate.and_then(|count| serde_json::from_str::<u64>(count.get()).ok());
    let rows = told.chunk.0.len();
    let chunk: Vec<RoomSummary> = told.chunk.0.into_iter().filter_map(RoomSummary::read).collect();
    refusals::entries((rows - chunk.len()) as u64);
    Ok(Page {
        chunk,
        next_batch: token(told.next_batch),
        prev_batch: token(told.prev_batch),
        total_room_count_estimate: count.filter(|count| *count <= INTEGER_MAX as u64),
    })
}

/// What is said of users, as it was said.
pub type OfUsers = BTreeMap<String, Box<RawValue>>;

/// What servers say of the keys of their users, by the name of the answer's part; and which could not be reached.
#[derive(Default)]
pub struct Keys {
    pub parts: BTreeMap<String, OfUsers>,
    pub failures: Map<String, Value>,
}

/// A question about the keys of users.
#[derive(Clone, Copy)]
struct Question {
    endpoint: &'static str,
    /// What is asked of each user, in its body.
    name: &'static str,
    /// What is wanted of its answer.
    parts: &'static [&'static str],
    /// Whether what is answered is there still when nobody has taken it: a key is given out once.
    is_repeatable: bool,
}

/// Asks servers for `parts` of what they say of the devices and keys of their users: for the devices that are named, or all if
/// none are.
pub async fn user_keys(
    ctx: &Arc<Context>,
    asker: &Asker,
    parts: &'static [&'static str],
    users: Map<String, Value>,
    time_max: Duration,
) -> Keys {
    let (endpoint, name) = ("v1/user/keys/query", "device_keys");
    keys(ctx, asker, Question { endpoint, name, parts, is_repeatable: true }, users, time_max).await
}

/// The part of an answer that has keys which were claimed.
pub const CLAIMED: &str = "one_time_keys";

/// Claims keys of devices of users of other servers.
pub async fn claim_keys(
    ctx: &Arc<Context>,
    asker: &Asker,
    users: Map<String, Value>,
    time_max: Duration,
) -> Keys {
    let (endpoint, name) = ("v1/user/keys/claim", "one_time_keys");
    let question = Question { endpoint, name, parts: &[CLAIMED], is_repeatable: false };
    keys(ctx, asker, question, users, time_max).await
}

/// Asks each server for the keys of its users, as many at once as the asker may, for `time_max` at most: last those that could not be
/// reached the last time, so that they hold up nobody.
async fn keys(
    ctx: &Arc<Context>,
    asker: &Asker,
    question: Question,
    users: Map<String, Value>,
    time_max: Duration,
) -> Keys {
    let mut by_server: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (user_id, wanted) in users {
        let server = identifiers::server_name(&user_id).filter(|name| identifiers::is_server_name(name));
        if let Some(server) = server.map(str::to_owned) {
            by_server.entry(server).or_default().insert(user_id, wanted);
        }
    }
    let mut keys = Keys::default();
    let too_many = by_server.keys().skip(KEYS_SERVERS_MAX).cloned();
    let failure = json!({ "status": 503, "message": "too many servers are asked at once" });
    keys.failures.extend(too_many.map(|server| (server, failure.clone())));
    let bytes_left = Arc::new(AtomicUsize::new(KEYS_OF_QUERY_BYTES_MAX));
    let is_left_alone = |server: &str| ctx.engine.read(&IsBackingOff(server)).unwrap_or_default();
    let asked = by_server.into_iter().take(KEYS_SERVERS_MAX);
    let (last, first): (Vec<_>, Vec<_>) =
        asked.map(|(server, users)| (is_left_alone(&server), server, users)).partition(|(last, ..)| *last);
    let asks = first.into_iter().chain(last).map(|(is_left_alone, server, users)| {
        let (ctx, asker, bytes_left) = (ctx.clone(), asker.clone(), bytes_left.clone());
        async move {
            let body = json!({ question.name: &users });
            let bytes_max = users.len().saturating_mul(KEYS_OF_USER_BYTES_MAX);
            let bytes_max = bytes_max.saturating_add(LIST_BYTES_MAX).min(KEYS_OF_QUERY_BYTES_MAX);
            let asked = Ask::post(&server, path(question.endpoint, &[]), &body).asked_by(&asker);
            let asked = asked.with_bytes_max(bytes_max);
            let asked = match (is_left_alone, question.is_repeatable) {
                (false, true) => asked.repeatable(),
                // Whatever its turn took.
                (true, true) => asked.repeatable().with_time(time_max.min(KEYS_TIME_MAX_IN_PAUSE)),
                (false, false) => asked.with_wait(time_max / CLAIM_WAIT_PART),
                // What the server has begun to answer would be lost.
                (true, false) => {
                    asked.with_wait(time_max / CLAIM_WAIT_PART).with_connect_time(KEYS_TIME_MAX_IN_PAUSE)
                }
            };
            let asked = async {
                let answer = read_within(&ctx, asked, &bytes_left).await?;
                // A large one takes its time.
                tokio::task::block_in_place(|| keys_of_users::read(&answer, question.parts, &users))
            };
            let answer = timeout(time_max, asked).await;
            (answer.unwrap_or_else(|_| Err(RemoteError::Unreachable("it took too long".to_owned()))), server)
        }
    });
    for (answer, server) in worker::side_by_side(ctx, asks.collect::<Vec<_>>()).await {
        match answer {
            Ok(answer) => {
                for (part, users) in answer {
                    keys.parts.entry(part.to_owned()).or_default().extend(users);
                }
            }
            Err(failure) => {
                let status = if matches!(failure, RemoteError::NotAdmitted(_)) { 403 } else { 503 };
                keys.failures.insert(server, json!({ "status": status, "message": failure.to_string() }));
            }
        }
    }
    keys
}

/// An answer that takes of what is left for all.
///
/// Errors: `NoMemory` when nothing is left.
async fn read_within(ctx: &Context, asked: Ask<'_>, bytes_left: &AtomicUsize) -> Result<Bytes, RemoteError> {
    let mut answer = asked.open(ctx).await?;
    let mut body = BytesMut::new();
    while let Some(piece) = answer.next().await? {
        let less = |left: usize| left.checked_sub(piece.len());
        let taken = bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.map_err(|_| RemoteError::no_memory())?;
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_found_in_whatever_words() {
        let refused = |status, body: &str| {
            let error = RemoteError::of_answer(status, &http::HeaderMap::new(), body.as_bytes());
            let error = or_not_found(error, "It is not there");
            (error.status.as_u16(), error.errcode, error.error.into_owned())
        };
        let not_found = |sentence: &str| (404, "M_NOT_FOUND", sentence.to_owned());
        for body in ["", "<html>", "[]", r#"{"errcode":"M_UNRECOGNIZED"}"#] {
            assert_eq!(refused(StatusCode::NOT_FOUND, body), not_found("It is not there"), "{body}");
        }
        let said = r#"{"errcode":"M_UNKNOWN","error":"Gone"}"#;
        assert_eq!(refused(StatusCode::NOT_FOUND, said), not_found("Gone"));
        assert_eq!(refused(StatusCode::FORBIDDEN, said), (403, "M_UNKNOWN", "Gone".to_owned()));
        assert_eq!(refused(StatusCode::INTERNAL_SERVER_ERROR, "").0, 502);
    }

    #[test]
    fn a_name_and_a_picture_are_texts() {
        let read = |answer: &Value, field| {
            let fields = read_profile(answer.to_string().as_bytes(), field).unwrap();
            let value = |value: Bytes| serde_json::from_slice::<Value>(&value).unwrap();
            Value::Object(fields.into_iter().map(|(name, json)| (name, value(json))).collect())
        };
        let whole =
            json!({"displayname": "Bob", "avatar_url": "mxc://b/a", "m.tz": "Europe/Berlin", "x.y": [5]});
        assert_eq!(read(&whole, None), whole);
        assert_eq!(read(&whole, Some("x.y")), json!({"x.y": [5]}));
        assert_eq!(read(&json!({"x.y": null}), Some("x.y")), json!({}), "it is not set");
        for odd in [json!(5), json!(null), json!({}), json!(["Bob"])] {
            let answer = json!({"displayname": odd, "avatar_url": odd, "x.y": true});
            assert_eq!(read(&answer, None), json!({"x.y": true}));
            assert_eq!(read(&answer, Some("displayname")), json!({}));
        }
        for odd in ["", "https://b/a", "garbage"] {
            assert_eq!(read(&json!({"avatar_url": odd}), None), json!({}), "{odd}");
        }
        let unreadable = format!(r#"{{"a.b":1e400,"c.d":{}{},"x.y":1.5}}"#, "[".repeat(200), "]".repeat(200));
        let shown = read_profile(unreadable.as_bytes(), None).expect("an object");
        assert_eq!(shown, [("x.y".to_owned(), Bytes::from_static(b"1.5"))]);
        for bad in ["", "[]", "5", r#"{"displayname":}"#] {
            assert!(read_profile(bad.as_bytes(), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_of_a_directory_has_rooms() {
        let read = |page: &Value| read_page(page.to_string().as_bytes()).map(|page| json!(page));
        let room = json!({"room_id": "!a:b", "num_joined_members": 1, "world_readable": false, "guest_can_join": true});
        let whole =
            json!({"chunk": [room], "next_batch": "n", "prev_batch": "p", "total_room_count_estimate": 5});
        assert_eq!(read(&whole).unwrap(), whole);
        let rows = json!([5, null, [], {}, {"room_id": "garbage"}, room, {"room_id": 5}]);
        for odd in [json!(null), json!({}), json!([]), json!(-5), json!("")] {
            let page = json!({"chunk": rows, "next_batch": odd, "prev_batch": odd, "total_room_count_estimate": odd});
            assert_eq!(read(&page).unwrap(), json!({"chunk": [room]}), "{odd}");
        }
        for bad in [json!(null), json!([]), json!({}), json!({"chunk": null}), json!({"chunk": {}})] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
