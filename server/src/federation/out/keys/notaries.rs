//! The keys of servers as notaries tell them that the operator trusts.
//!
//! Invariant: what is told counts if it is signed by a key in it and by the notary, with a key that it has told itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use ruma_common::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::debug;
use warren_engine::core::event::{JsonObject, verify_json};
use warren_engine::core::json::canonical;
use warren_engine::remote::{KeyStanding, ServerKey};
use warren_engine::view::{PublishedKeys, StandingOfKey};

use super::{Keep, bad_keys, failed, fetch_from_server, has_come, published, read_keys, store, write_keys};
use crate::context::Context;
use crate::federation::limits::{KEYS_MAX, KEYS_TIME_MAX, NOTARY_BYTES_MAX, NOTARY_PROMPT_TIME};
use crate::federation::out::key_pauses::Outcome;
use crate::federation::out::{RemoteError, Request};
use crate::federation::published::Published;
use crate::worker::ended;

/// What notaries are asked for.
#[derive(Clone)]
struct Question {
    server_name: OwnedServerName,
    /// The ids of keys.
    wanted: Vec<String>,
}

/// From the notaries, side by side: as soon as one has told what is wanted, the others are not waited for; nor are those at all that
/// were silent lately. A key that has lapsed since counts as had when it comes: it is good for events from before.
pub(super) async fn fetch_elsewhere(
    ctx: &Arc<Context>,
    server_name: &ServerName,
    wanted: &[String],
    keep: Keep,
) -> Outcome {
    let question = Question { server_name: server_name.to_owned(), wanted: wanted.to_vec() };
    let mut asking = JoinSet::new();
    for notary in &ctx.config.trusted_key_servers {
        if **notary != *server_name && !ctx.federation.keys.silent_notaries.is_silent(notary) {
            asking.spawn(ctx.under_way.counted(ask(ctx.clone(), notary.clone(), question.clone())));
        }
    }
    let is_own = *server_name == *ctx.config.server_name;
    let (mut is_had, mut of_all) = (false, Vec::new());
    while let Some(told) = asking.join_next().await {
        let told = ended("asking of a notary", told).unwrap_or_default();
        // Of this server's own keys of before, the notary that asked for them last knows best until when they counted.
        if is_own {
            of_all.extend(told);
            continue;
        }
        match keep_told(ctx, server_name, &told, keep).await {
            Ok(is_news) => is_had |= is_news,
            Err(error) => debug!(%server_name, %error, "what a notary tells cannot be kept"),
        }
        if !told.is_empty() && has_come(ctx, server_name, wanted, keep) {
            is_had = true;
            break;
        }
    }
    if is_own {
        match keep_own(ctx, &of_all).await {
            Ok(is_news) => is_had = is_news,
            Err(error) => debug!(%error, "what notaries tell of this server's own keys cannot be kept"),
        }
    }
    let why = "no notary tells the keys that are wanted";
    let error = (!is_had).then(|| RemoteError::BadAnswer(why.to_owned()));
    Outcome { error, is_there: false, retry_after: None }
}

/// Answers whether there were any news that are stored.
async fn keep_told(
    ctx: &Arc<Context>,
    server_name: &ServerName,
    told: &[Published],
    keep: Keep,
) -> Result<bool, RemoteError> {
    let mut is_news = false;
    for document in told {
        let kept = published(ctx, server_name).map_err(failed)?;
        is_news |= store(ctx, server_name, document, kept, keep).await?;
    }
    Ok(is_news)
}

/// This server's own keys of before, as it published them: of several documents the newest says until when each counts.
async fn keep_own(ctx: &Arc<Context>, told: &[Published]) -> Result<bool, RemoteError> {
    let mut documents: Vec<&Published> = told.iter().collect();
    documents.sort_by_key(|document| std::cmp::Reverse(document.valid_until_ts));
    let Some(newest) = documents.first() else { return Ok(false) };
    let fetched_ts = ctx.engine.now_ms();
    let (json, mut keys) = (newest.json.clone(), BTreeMap::new());
    for key in documents.iter().flat_map(|document| document.keys(fetched_ts)) {
        keys.entry(key.key_id.clone()).or_insert(key);
    }
    let keys = keys.into_values().collect();
    write_keys(ctx, ctx.engine.server_name(), keys, PublishedKeys { json, fetched_ts }).await
}

/// What one notary tells of a server. Nothing where it tells nothing that counts; and it is left alone for a while if it kept this server
/// waiting for that.
async fn ask(ctx: Arc<Context>, notary: OwnedServerName, question: Question) -> Vec<Published> {
    let begun = Instant::now();
    let told = documents(&ctx, &notary, &question).await;
    // One that refuses connections at once holds up nobody.
    let is_silent = matches!(told, Err(RemoteError::Unreachable(_) | RemoteError::Timeout))
        && begun.elapsed() >= NOTARY_PROMPT_TIME;
    ctx.federation.keys.silent_notaries.note(&notary, is_silent);
    told.unwrap_or_else(|error| {
        debug!(server_name = %question.server_name, %notary, %error, "a notary does not tell the keys of a server");
        Vec::new()
    })
}

#[derive(Deserialize)]
struct NotaryAnswer {
    server_keys: Vec<JsonObject>,
}

/// What counts of that which a notary tells, which may be several documents: one that does not count takes no other with it.
///
/// Errors: the first reason, if nothing counts.
async fn documents(
    ctx: &Arc<Context>,
    notary: &ServerName,
    question: &Question,
) -> Result<Vec<Published>, RemoteError> {
    let Question { server_name, wanted } = question;
    let now_ms = ctx.engine.now_ms();
    let criteria = |key_id: &String| (key_id.clone(), json!({ "minimum_valid_until_ts": now_ms }));
    // More than a server has are not named, which stands for all that there are.
    let named: &[String] = if wanted.len() > KEYS_MAX { &[] } else { wanted };
    let criteria: JsonObject = named.iter().map(criteria).collect();
    let content = json!({ "server_keys": { server_name.as_str(): criteria } });
    let request = Request::new(Method::POST, "/_matrix/key/v2/query").with_content(&content)?;
    let request = request.repeatable().with_time(KEYS_TIME_MAX).with_bytes_max(NOTARY_BYTES_MAX);
    let answer: NotaryAnswer = request.send(ctx, notary).await?;
    let is_of_server =
        |object: &JsonObject| object.get("server_name").and_then(Value::as_str) == Some(server_name.as_str());
    let objects: Vec<JsonObject> = answer.server_keys.into_iter().filter(is_of_server).collect();
    let is_known =
        |object: &JsonObject| signers(object, notary).any(|key_id| good_key(ctx, notary, key_id).is_some());
    // Once for all that it tells, however many keys it names as its own.
    let mut failure = match objects.iter().all(is_known) {
        true => None,
        false => fetch_from_server(ctx, notary, Keep::Stored).await.err(),
    };
    let mut documents = Vec::new();
    for object in objects {
        match read(ctx, notary, server_name, object) {
            Ok(document) => documents.push(document),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(failure) if documents.is_empty() => Err(failure),
        _ => Ok(documents),
    }
}

/// The ids of the keys with which a notary has signed, as it says.
fn signers<'o>(object: &'o JsonObject, notary: &ServerName) -> impl Iterator<Item = &'o String> {
    let signatures = object.get("signatures").and_then(|signatures| signatures.get(notary.as_str()));
    signatures.and_then(Value::as_object).into_iter().flat_map(|keys| keys.keys())
}

/// Errors: the document is not signed by the notary, or is none.
fn read(
    ctx: &Context,
    notary: &ServerName,
    server_name: &ServerName,
    object: JsonObject,
) -> Result<Published, RemoteError> {
    let holds = |key_id: &String| {
        good_key(ctx, notary, key_id)
            .is_some_and(|key| verify_json(&object, notary.as_str(), key_id, &key.public_key).is_ok())
    };
    if !signers(&object, notary).any(holds) {
        return Err(bad_keys("not_by_notary", "it is not signed by the notary"));
    }
    read_keys(&canonical(&Value::Object(object)), server_name)
}

fn good_key(ctx: &Context, server_name: &ServerName, key_id: &str) -> Option<ServerKey> {
    let standing = ctx.engine.read(&StandingOfKey { server_name: server_name.as_str(), key_id });
    match standing {
        Ok(KeyStanding::Known(key)) => key.is_good_for_requests(ctx.engine.now_ms()).then_some(key),
        _ => None,
    }
}
