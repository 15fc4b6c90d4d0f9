//! What local users ask of other servers: rooms by their aliases, profiles, directories, keys.

use std::borrow::Cow;
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
use warren_engine::command::SendEvent;
use warren_engine::core::identifiers;
use warren_engine::core::json::{members, string_value};
use warren_engine::view::{AliasesElsewhere, RoomAlias};

use super::RemoteError;
use super::ask::{Ask, canonical_answer, escaped, path};
use crate::client::directory::servers_of;
use crate::context::Context;
use crate::federation::limits::{KEYS_OF_QUERY_BYTES_MAX, KEYS_OF_USER_BYTES_MAX, LIST_BYTES_MAX};
use crate::http::ApiError;
use crate::worker;

/// Names of servers that are kept of an answer.
const SERVERS_MAX: usize = 50;

/// How long a client waits for the keys of users of other servers. Clients ask again for what failed.
const KEYS_TIME_MAX: Duration = Duration::from_secs(10);

/// Servers that are asked for keys at once: more than have users in most encrypted rooms. Clients ask again for what failed.
const KEYS_SERVERS_MAX: usize = 300;

/// Aliases that are looked up for one event: a room has a handful. More are refused.
const ALIASES_MAX: usize = 20;

/// How long a client that names a room waits for the server of an alias.
const ALIAS_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Alias {
    room_id: String,
    #[serde(default)]
    servers: Vec<String>,
}

/// The room that an alias stands for, here or elsewhere, and the servers that are in it.
pub async fn room_of_alias(ctx: &Arc<Context>, alias: &str) -> Result<(String, Vec<String>), ApiError> {
    let server = identifiers::server_name(alias).filter(|server| *server != ctx.engine.server_name());
    let Some(server) = server.filter(|server| identifiers::is_server_name(server)) else {
        let room_id = ctx.engine.read(&RoomAlias { alias: alias.to_owned() })?;
        let servers = servers_of(ctx, &room_id)?;
        return Ok((room_id, servers));
    };
    let target = format!("{}?room_alias={}", path("v1/query/directory", &[]), escaped(alias));
    let found: Alias = Ask::get(server, target).for_list().read(ctx).await?;
    if !found.room_id.starts_with('!') {
        return Err(RemoteError::bad_answer("unfit", "a room id begins with an exclamation mark").into());
    }
    let mut servers: Vec<String> = found
        .servers
        .into_iter()
        .filter(|name| identifiers::is_server_name(name))
        .take(SERVERS_MAX)
        .collect();
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
    let asks = named.into_iter().take(ALIASES_MAX).map(|alias| {
        let ctx = ctx.clone();
        async move {
            let found = timeout(ALIAS_TIME_MAX, room_of_alias(&ctx, &alias)).await;
            (found.unwrap_or_else(|_| Err(RemoteError::Timeout.into())), alias)
        }
    });
    let mut confirmed = Vec::new();
    for (found, alias) in worker::side_by_side(asks.collect::<Vec<_>>()).await {
        match found {
            Ok((found, _)) if found == *room_id => confirmed.push(alias),
            Ok(_) => {}
            Err(error) if error.status == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    Ok(confirmed)
}

/// The profile of a user of another server, or one field of it.
pub async fn profile(
    ctx: &Context,
    user_id: &str,
    field: Option<&str>,
) -> Result<Vec<(String, Bytes)>, ApiError> {
    let server = identifiers::server_name(user_id).unwrap_or_default();
    let mut target = format!("{}?user_id={}", path("v1/query/profile", &[]), escaped(user_id));
    if let Some(field) = field {
        target.push_str(&format!("&field={}", escaped(field)));
    }
    let asked = Ask::get(server, target).for_event();
    let fields: BTreeMap<String, Option<Box<RawValue>>> = asked.read(ctx).await?;
    let wanted = fields.into_iter().filter(|(name, _)| field.is_none_or(|field| field == name));
    Ok(wanted
        .filter_map(|(name, value)| Some((name, Bytes::copy_from_slice(value?.get().as_bytes()))))
        .collect())
}

/// A page of another server's directory, as the client asked for it.
pub async fn public_rooms(ctx: &Context, server: &str, query: &Value) -> Result<Bytes, ApiError> {
    let asked = Ask::post(server, path("v1/publicRooms", &[]), query).for_list();
    let page = canonical_answer(&asked.bytes(ctx).await?)?;
    let mut chunk = members(&page).flatten().filter(|member| member.key == b"chunk");
    match chunk.any(|member| member.value.starts_with(b"[")) {
        true => Ok(page),
        false => Err(RemoteError::bad_answer("unreadable", "it is no page of a directory").into()),
    }
}

/// What is said of users, as it was said.
pub type OfUsers = BTreeMap<String, Box<RawValue>>;

/// What servers say of the keys of their users, by the name of the answer's part; and which could not be reached.
#[derive(Default)]
pub struct Keys {
    pub parts: BTreeMap<String, OfUsers>,
    pub failures: Map<String, Value>,
}

/// Asks servers for `parts` of what they say of the devices and keys of their users: for the devices that are named, or all if
/// none are.
pub async fn user_keys(
    ctx: &Arc<Context>,
    parts: &'static [&'static str],
    users: Map<String, Value>,
) -> Keys {
    keys(ctx, "v1/user/keys/query", "device_keys", parts, users).await
}

/// Asks each server for the keys of its users, all at once. `body` is made of what is asked of one server.
pub async fn keys(
    ctx: &Arc<Context>,
    endpoint: &'static str,
    name: &'static str,
    parts: &'static [&'static str],
    users: Map<String, Value>,
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
    let asks = by_server.into_iter().take(KEYS_SERVERS_MAX).map(|(server, users)| {
        let (ctx, bytes_left) = (ctx.clone(), bytes_left.clone());
        async move {
            let body = json!({ name: &users });
            let bytes_max = users.len().saturating_mul(KEYS_OF_USER_BYTES_MAX);
            let bytes_max = bytes_max.saturating_add(LIST_BYTES_MAX).min(KEYS_OF_QUERY_BYTES_MAX);
            let asked = Ask::post(&server, path(endpoint, &[]), &body).with_bytes_max(bytes_max);
            let asked = async { of_users(&read_within(&ctx, asked, &bytes_left).await?, parts, &users) };
            let answer = timeout(KEYS_TIME_MAX, asked).await;
            (answer.unwrap_or_else(|_| Err(RemoteError::Unreachable("it took too long".to_owned()))), server)
        }
    });
    for (answer, server) in worker::side_by_side(asks.collect::<Vec<_>>()).await {
        match answer {
            Ok(answer) => {
                for (part, users) in answer {
                    keys.parts.entry(part.to_owned()).or_default().extend(users);
                }
            }
            Err(failure) => {
                keys.failures.insert(server, json!({ "status": 503, "message": failure.to_string() }));
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

/// What an answer says of the users who were asked for, and of nobody else.
fn of_users(
    answer: &[u8],
    parts: &'static [&'static str],
    users: &Map<String, Value>,
) -> Result<Vec<(&'static str, OfUsers)>, RemoteError> {
    let unusable = |error: &dyn std::fmt::Display| RemoteError::bad_answer("unreadable", error.to_string());
    let answer = canonical_answer(answer)?;
    let mut found = Vec::new();
    for member in members(&answer) {
        let member = member.map_err(|error| unusable(&error))?;
        let Some(part) = parts.iter().find(|part| part.as_bytes() == member.key) else { continue };
        let mut said = OfUsers::new();
        for user in members(member.value).flatten() {
            let user_id = string_value(&[b"\"", user.key, b"\""].concat()).map(Cow::into_owned);
            let Some(user_id) = user_id.filter(|user_id| users.contains_key(user_id)) else { continue };
            said.insert(user_id, serde_json::from_slice(user.value).map_err(|error| unusable(&error))?);
        }
        found.push((*part, said));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_those_who_were_asked_for() {
        let users = json!({"@a:b": [], "@\"c\":b": []});
        let users = users.as_object().unwrap();
        let answer = json!({
            "device_keys": {"@a:b": {"A": {"n": 1}}, "@\"c\":b": {}, "@d:b": {"D": {}}},
            "master_keys": [], "other": {"@a:b": {}},
        });
        let found = of_users(answer.to_string().as_bytes(), &["device_keys", "master_keys"], users).unwrap();
        let said: Vec<(&str, Value)> =
            found.iter().map(|(part, users)| (*part, serde_json::to_value(users).unwrap())).collect();
        let expected = json!({"@a:b": {"A": {"n": 1}}, "@\"c\":b": {}});
        assert_eq!(said, [("device_keys", expected), ("master_keys", json!({}))]);
        for body in ["", "[]", "{", r#"{"device_keys":{"@a:b":[}}"#] {
            assert!(of_users(body.as_bytes(), &["device_keys"], users).is_err(), "{body}");
        }
    }
}
