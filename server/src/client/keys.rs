//! `keys.yaml`: devices' identity keys, one-time keys, and whose of them changed.
//!
//! Users of other servers are unknown here: they are missing from the answers, as the specification has it for users
//! that are not known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use warren_engine::command::{ClaimKeys, UploadKeys, WantedKey};
use warren_engine::view::{KeyChanges, QueryKeys, StreamToken};

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

#[derive(Deserialize)]
struct Query {
    device_keys: BTreeMap<String, Vec<String>>,
}

async fn post_query(call: Call) -> Outcome {
    let query: Query = call.json()?;
    let view = QueryKeys { asker: call.user()?.to_string(), users: query.device_keys.into_iter().collect() };
    Ok(Answer::json_bytes(call.ctx.engine.read(&view)?))
}

#[derive(Deserialize)]
struct Claim {
    one_time_keys: BTreeMap<String, BTreeMap<String, String>>,
}

/// Users, their devices, and the keys of those by name.
type Keys = BTreeMap<String, BTreeMap<String, BTreeMap<String, Box<RawValue>>>>;

#[derive(Serialize, Default)]
struct Claimed {
    failures: BTreeMap<String, Value>,
    one_time_keys: Keys,
}

async fn post_claim(call: Call) -> Outcome {
    let claim: Claim = call.json()?;
    let mut wanted = Vec::new();
    for (user_id, devices) in claim.one_time_keys {
        for (device_id, algorithm) in devices {
            wanted.push(WantedKey { user_id: user_id.clone(), device_id, algorithm });
        }
    }
    let mut claimed = Claimed::default();
    for key in call.ctx.engine.write(ClaimKeys { wanted }).await? {
        let json = serde_json::from_slice(&key.key).map_err(ApiError::internal)?;
        let devices = claimed.one_time_keys.entry(key.user_id).or_default();
        devices.entry(key.device_id).or_default().insert(key.name, json);
    }
    Answer::json(&claimed)
}

async fn get_changes(call: Call) -> Outcome {
    let from = StreamToken::decode(&call.query_required("from")?)?.0;
    let to = StreamToken::decode(&call.query_required("to")?)?.0;
    let view = KeyChanges { user_id: call.user()?.to_string(), from, to };
    Answer::json(&call.ctx.engine.read(&view)?)
}
