//! `keys.yaml`: devices' identity keys, one-time keys, and whose of them changed.
//!
//! Of users of other servers, their servers are asked, unless their devices are followed here.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use warren_engine::command::{ClaimKeys, FollowDevices, UploadKeys, WantedKey};
use warren_engine::view::federation::AreDevicesFollowed;
use warren_engine::view::{HaveDevices, KeyChanges, QueryKeys, StreamToken, WithOwnSignatures};

use super::membership::is_local;
use crate::context::Context;
use crate::federation::out::queries::{self, KEYS_TIME_MAX, OfUsers};
use crate::http::limits::CLAIMED_DEVICES_MAX;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/keys/upload"  ["r0", "unstable"] Guest    Write Bulk    post_upload;
    POST "/_matrix/client/v3/keys/query"   ["r0", "unstable"] Guest    Read  Bulk    post_query;
    POST "/_matrix/client/v3/keys/claim"   ["r0", "unstable"] Guest    Write Bulk    post_claim;
    GET  "/_matrix/client/v3/keys/changes" ["r0", "unstable"] Required Read  Nothing get_changes;
}

#[derive(Deserialize)]
struct Upload {
    device_keys: Option<Map<String, Value>>,
    one_time_keys: Option<Map<String, Value>>,
    fallback_keys: Option<Map<String, Value>>,
}

#[derive(Serialize)]
struct Uploaded {
    one_time_key_counts: BTreeMap<String, u64>,
}

async fn post_upload(call: Call) -> Outcome {
    let upload: Upload = call.json_or_empty()?;
    let command = UploadKeys {
        user_id: call.user()?.to_string(),
        device_id: call.device()?.to_string(),
        device_keys: upload.device_keys,
        one_time_keys: upload.one_time_keys.into_iter().flatten().collect(),
        fallback_keys: upload.fallback_keys.into_iter().flatten().collect(),
    };
    let one_time_key_counts = call.ctx.engine.write(command).await?;
    Answer::json(&Uploaded { one_time_key_counts })
}

/// What is told of the keys of other servers' users. Whom they have verified they tell nobody.
const KEY_PARTS: &[&str] = &["device_keys", "master_keys", "self_signing_keys"];

/// How long a client waits for other servers that says so in milliseconds.
///
/// Errors: 400 for a negative time.
fn time_max(timeout: Option<f64>) -> Result<Duration, ApiError> {
    match timeout {
        Some(ms) if ms < 0.0 => Err(ApiError::bad_json("timeout must not be negative")),
        Some(ms) => Ok(Duration::from_millis(ms as u64).min(KEYS_TIME_MAX)),
        None => Ok(KEYS_TIME_MAX),
    }
}

#[derive(Deserialize)]
struct Query {
    device_keys: BTreeMap<String, Vec<String>>,
    /// In milliseconds. Clients that reckon in fractions say so.
    timeout: Option<f64>,
}

async fn post_query(call: Call) -> Outcome {
    let query: Query = call.json()?;
    let time_max = time_max(query.timeout)?;
    let asker = call.user()?.to_string();
    let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) =
        query.device_keys.into_iter().partition(|(user_id, _)| is_known_here(&call.ctx, user_id));
    let query = QueryKeys { asker: asker.clone(), users: here.into_iter().collect() };
    let answer = call.ctx.engine.read(&query)?;
    if there.is_empty() {
        return Ok(Answer::json_bytes(answer));
    }
    // Those who share a room with this server are answered for from here from then on. Where that cannot be written, their
    // servers are asked the next time, too.
    for follow in FollowDevices::in_batches(&who_have_devices(&call.ctx, there.keys())?) {
        let Ok(followed) = call.ctx.engine.write(follow).await else { break };
        call.ctx.federation.missing_lists.tell(followed);
    }
    let users = there.into_iter().map(|(user_id, devices)| (user_id, json!(devices))).collect();
    let mut found = queries::user_keys(&call.ctx, &call.asker(), KEY_PARTS, users, time_max).await;
    if let Some(master_keys) = found.parts.get_mut("master_keys") {
        // Of a large answer it takes its time.
        tokio::task::block_in_place(|| add_own_signatures(&call.ctx, &asker, master_keys))?;
    }
    let mut answer: BTreeMap<String, OfUsers> =
        serde_json::from_slice(&answer).map_err(ApiError::internal)?;
    for (part, users) in found.parts {
        answer.entry(part).or_default().extend(users);
    }
    let failures = answer.entry("failures".to_owned()).or_default();
    for (server, failure) in found.failures {
        failures.insert(server, to_raw_value(&failure).map_err(ApiError::internal)?);
    }
    Answer::json(&answer)
}

/// What the asker has signed of the master keys is known here alone; without it, whom they have verified would not be so.
fn add_own_signatures(ctx: &Context, asker: &str, master_keys: &mut OfUsers) -> Result<(), ApiError> {
    for (user_id, key) in master_keys {
        let Ok(object) = serde_json::from_str::<Map<String, Value>>(key.get()) else { continue };
        let signed = WithOwnSignatures { asker, user_id, key: &object };
        if let Some(with_own) = ctx.engine.read(&signed)? {
            *key = to_raw_value(&with_own).map_err(ApiError::internal)?;
        }
    }
    Ok(())
}

/// Those of the users who can have devices that are known here. Users are easily made up, and no write is to wait for those.
fn who_have_devices<'a>(
    ctx: &Context,
    user_ids: impl Iterator<Item = &'a String> + Clone,
) -> Result<Vec<String>, ApiError> {
    let have = ctx.engine.read(&HaveDevices(user_ids.clone().map(String::as_str).collect()))?;
    Ok(user_ids.zip(have).filter(|(_, has)| *has).map(|(user_id, _)| user_id.clone()).collect())
}

/// Whether the user's devices and keys are known here. Where the store cannot tell, their server is asked.
fn is_known_here(ctx: &Context, user_id: &str) -> bool {
    is_local(ctx, user_id) || ctx.engine.read(&AreDevicesFollowed(user_id)).unwrap_or_default()
}

/// Users, their devices, and of which algorithm a key of each is wanted.
pub type WantedKeys = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Deserialize)]
struct Claim {
    one_time_keys: WantedKeys,
    /// In milliseconds. Clients that reckon in fractions say so.
    timeout: Option<f64>,
}

/// Users, their devices, and the keys of those by name.
pub type Keys = BTreeMap<String, BTreeMap<String, BTreeMap<String, Box<RawValue>>>>;

#[derive(Serialize)]
struct Claimed {
    failures: Map<String, Value>,
    one_time_keys: Keys,
}

async fn post_claim(call: Call) -> Outcome {
    let claim: Claim = call.json()?;
    let time_max = time_max(claim.timeout)?;
    let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) =
        claim.one_time_keys.into_iter().partition(|(user_id, _)| is_local(&call.ctx, user_id));
    let mut one_time_keys = claim_here(&call.ctx, here).await?;
    let users = there.into_iter().map(|(user_id, devices)| (user_id, json!(devices))).collect();
    let mut found = queries::claim_keys(&call.ctx, &call.asker(), users, time_max).await;
    for (user_id, devices) in found.parts.remove(queries::CLAIMED).unwrap_or_default() {
        match serde_json::from_str(devices.get()) {
            Ok(devices) => drop(one_time_keys.insert(user_id, devices)),
            Err(error) => tracing::debug!(user_id, %error, "a server gives keys that are none"),
        }
    }
    Answer::json(&Claimed { failures: found.failures, one_time_keys })
}

/// Takes keys of users of this server.
///
/// Errors: 413 for more than [`CLAIMED_DEVICES_MAX`] devices, of which no key is taken then.
pub async fn claim_here(ctx: &Context, mut devices_of_users: WantedKeys) -> Result<Keys, ApiError> {
    // A user without a device is looked up, too.
    let count: usize = devices_of_users.values().map(|devices| devices.len().max(1)).sum();
    if count > CLAIMED_DEVICES_MAX {
        let sentence = format!("Keys of no more than {CLAIMED_DEVICES_MAX} devices are given out at once");
        return Err(ApiError::too_large(sentence));
    }
    let mut wanted = Vec::new();
    for user_id in who_have_devices(ctx, devices_of_users.keys())? {
        for (device_id, algorithm) in devices_of_users.remove(&user_id).unwrap_or_default() {
            wanted.push(WantedKey { user_id: user_id.clone(), device_id, algorithm });
        }
    }
    let mut claimed = Keys::new();
    for claim in ClaimKeys::in_batches(&wanted) {
        let keys = match ctx.engine.write(claim).await {
            Ok(keys) => keys,
            // Those of before are given to nobody else.
            Err(_) if !claimed.is_empty() => break,
            Err(error) => return Err(error.into()),
        };
        for key in keys {
            let json = serde_json::from_slice(&key.key).map_err(ApiError::internal)?;
            let devices = claimed.entry(key.user_id).or_default();
            devices.entry(key.device_id).or_default().insert(key.name, json);
        }
    }
    Ok(claimed)
}

async fn get_changes(call: Call) -> Outcome {
    let from = StreamToken::decode(&call.query_required("from")?)?.0;
    let to = StreamToken::decode(&call.query_required("to")?)?.0;
    let view = KeyChanges { user_id: call.user()?.to_string(), from, to };
    Answer::json(&call.ctx.engine.read(&view)?)
}
