//! `keys_query.yaml`: this server as a notary, which tells the keys of other servers under its own signature.
//!
//! Who asks makes this server ask others in turn. So a query makes it ask only few, each as seldom as anything else does,
//! and what is known already is told without asking.

use std::collections::BTreeMap;

use ruma_common::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use warren_engine::core::event::{JsonObject, sign_json};
use warren_engine::remote::KeyStanding;
use warren_engine::view::StandingOfKey;

use super::keys_server::own_keys;
use super::limits::{KEYS_TRUSTED_AHEAD, QUERIED_FETCHES_MAX, QUERIED_SERVERS_MAX, QUERIED_TIME_MAX};
use super::out::keys::{Cause, fetch, published};
use super::published::Published;
use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};
use crate::worker::ended;

endpoints! {
    POST "/_matrix/key/v2/query"                      [] None Keys Json    query_keys;
    GET  "/_matrix/key/v2/query/{serverName}"         [] None Keys Nothing query_keys_of_server;
    // The form of old, which servers still ask in.
    GET  "/_matrix/key/v2/query/{serverName}/{keyId}" [] None Keys Nothing query_key_of_server;
}

#[derive(Deserialize)]
struct Query {
    server_keys: BTreeMap<String, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize, Default)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

/// What is asked about one server.
struct Wanted {
    server_name: OwnedServerName,
    key_ids: Vec<String>,
    minimum_valid_until_ts: u64,
}

async fn query_keys(call: Call) -> Outcome {
    let query: Query = call.json()?;
    if query.server_keys.len() > QUERIED_SERVERS_MAX {
        return Err(ApiError::too_large(format!("At most {QUERIED_SERVERS_MAX} servers may be asked about")));
    }
    let now_ms = call.ctx.engine.now_ms();
    let mut wanted = Vec::new();
    for (server_name, keys) in query.server_keys {
        // A name that is none has no keys.
        let Ok(server_name) = ServerName::parse(&server_name) else { continue };
        let minimum = keys.values().filter_map(|criteria| criteria.minimum_valid_until_ts).max();
        let key_ids = keys.into_keys().collect();
        wanted.push(Wanted { server_name, key_ids, minimum_valid_until_ts: minimum.unwrap_or(now_ms) });
    }
    answer(&call, wanted).await
}

async fn query_keys_of_server(call: Call) -> Outcome {
    query_one(&call, Vec::new()).await
}

async fn query_key_of_server(call: Call) -> Outcome {
    query_one(&call, vec![call.path("keyId")?.into_owned()]).await
}

async fn query_one(call: &Call, key_ids: Vec<String>) -> Outcome {
    let server_name: OwnedServerName = call.path_as("serverName")?;
    let minimum = call.query_u64("minimum_valid_until_ts")?.unwrap_or_else(|| call.ctx.engine.now_ms());
    answer(call, vec![Wanted { server_name, key_ids, minimum_valid_until_ts: minimum }]).await
}

async fn answer(call: &Call, wanted: Vec<Wanted>) -> Outcome {
    let (ctx, cause) = (&call.ctx, Cause::Query(call.client));
    let mut fetches = JoinSet::new();
    for wanted in &wanted {
        if fetches.len() < QUERIED_FETCHES_MAX && is_worth_asking(ctx, wanted)? {
            let (work, cause) = (ctx.clone(), cause.clone());
            let (server_name, key_ids) = (wanted.server_name.clone(), wanted.key_ids.clone());
            let fetching = async move { fetch(&work, &cause, &server_name, &key_ids).await };
            fetches.spawn(ctx.under_way.counted(fetching));
        }
    }
    // What has not come by then is not waited for.
    let all = async {
        while let Some(fetched) = fetches.join_next().await {
            ended("fetching of keys", fetched);
        }
    };
    let _ = tokio::time::timeout(QUERIED_TIME_MAX, all).await;
    let mut server_keys = Vec::new();
    for wanted in &wanted {
        server_keys.extend(told(ctx, &wanted.server_name)?);
    }
    Answer::json(&json!({ "server_keys": server_keys }))
}

/// Whether what is known of a server does not do: it is half way to its end, will be before the time that is asked for,
/// or lacks a key.
fn is_worth_asking(ctx: &Context, wanted: &Wanted) -> Result<bool, ApiError> {
    let server_name = wanted.server_name.as_str();
    if server_name == ctx.engine.server_name() || !ctx.config.federation_access.admits(server_name) {
        return Ok(false);
    }
    let Some(kept) = published(ctx, &wanted.server_name)? else { return Ok(true) };
    let Ok(published) = Published::read(&kept.json, server_name) else { return Ok(true) };
    let end = published.valid_until_ts.min(kept.fetched_ts + KEYS_TRUSTED_AHEAD.as_millis() as u64);
    let half = kept.fetched_ts + end.saturating_sub(kept.fetched_ts) / 2;
    let lacks = wanted.key_ids.iter().any(|key_id| !published.has(key_id));
    Ok(half < ctx.engine.now_ms() || published.valid_until_ts < wanted.minimum_valid_until_ts || lacks)
}

/// What is told of a server: its own words under its and this server's signature.
fn told(ctx: &Context, server_name: &ServerName) -> Result<Option<JsonObject>, ApiError> {
    if server_name.as_str() == ctx.engine.server_name() {
        return Ok(Some(own_keys(ctx)?));
    }
    if !ctx.config.federation_access.admits(server_name.as_str()) {
        return Ok(None);
    }
    let Some(kept) = published(ctx, server_name)? else { return Ok(None) };
    let Ok(published) = Published::read(&kept.json, server_name.as_str()) else { return Ok(None) };
    for key_id in published.key_ids() {
        // This server does not vouch for a key that it does not trust itself.
        let view = StandingOfKey { server_name: server_name.as_str(), key_id };
        if ctx.engine.read(&view)? == KeyStanding::NeverTrusted {
            return Ok(None);
        }
    }
    let mut object = published.object;
    sign_json(&mut object, ctx.engine.server_name(), ctx.engine.key_pair());
    Ok(Some(object))
}
