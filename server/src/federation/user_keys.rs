//! `user_keys.yaml`: identity keys of this server's users, and one-time keys of their devices.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use warren_engine::view::QueryKeys;

use crate::client::keys::{WantedKeys, claim_here};
use crate::client::membership::is_local;
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/federation/v1/user/keys/claim" [] Server Federation Bulk claim_user_encryption_keys;
    POST "/_matrix/federation/v1/user/keys/query" [] Server Federation Bulk query_user_encryption_keys;
}

#[derive(Deserialize)]
struct Claim {
    one_time_keys: WantedKeys,
}

async fn claim_user_encryption_keys(call: Call) -> Outcome {
    let claim: Claim = call.json()?;
    let own = claim.one_time_keys.into_iter().filter(|(user_id, _)| is_local(&call.ctx, user_id));
    let keys = claim_here(&call.ctx, own.collect()).await?;
    Answer::json(&json!({ "one_time_keys": keys }))
}

#[derive(Deserialize)]
struct Query {
    device_keys: BTreeMap<String, Vec<String>>,
}

async fn query_user_encryption_keys(call: Call) -> Outcome {
    let query: Query = call.json()?;
    let own = query.device_keys.into_iter().filter(|(user_id, _)| is_local(&call.ctx, user_id));
    // No user asks, so that only what everybody may see is answered.
    let view = QueryKeys { asker: String::new(), users: own.collect() };
    Ok(Answer::json_bytes(call.ctx.engine.read(&view)?))
}
