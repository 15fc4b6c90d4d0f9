//! `cross_signing.yaml`: the keys that stand for a user, and what they sign.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use warren_engine::command::{
    CrossSigningUpload, SignedKey, ToldMasterKey, UploadCrossSigningKeys, UploadSignatures,
};
use warren_engine::view::UnknownMasterKeys;

use crate::context::Context;
use crate::federation::out::Asker;
use crate::federation::out::queries::{self, KEYS_TIME_MAX};
use crate::http::limits::SIGNED_KEYS_MAX;
use crate::http::uia::{self, Stage};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/keys/device_signing/upload" ["r0", "unstable"] Required Write Json post_keys;
    POST "/_matrix/client/v3/keys/signatures/upload"     ["r0", "unstable"] Required Write Bulk post_signatures;
}

#[derive(Deserialize)]
struct Keys {
    master_key: Option<Map<String, Value>>,
    self_signing_key: Option<Map<String, Value>>,
    user_signing_key: Option<Map<String, Value>>,
}

/// The engine decides whether the user has to prove themselves, in the same step in which it would store the keys: two
/// first uploads at the same time cannot both pass as the first.
async fn post_keys(call: Call) -> Outcome {
    let call = uia::fill_in(call)?;
    if call.ctx.engine.write(upload(&call, false)?).await? == CrossSigningUpload::Stored {
        return Ok(Answer::empty());
    }
    uia::perform(call, &[&[Stage::Password]], |call, _| replace_keys(call)).await
}

async fn replace_keys(call: Call) -> Outcome {
    call.ctx.engine.write(upload(&call, true)?).await?;
    Ok(Answer::empty())
}

fn upload(call: &Call, authenticated: bool) -> Result<UploadCrossSigningKeys, ApiError> {
    let Keys { master_key, self_signing_key, user_signing_key } = call.json()?;
    Ok(UploadCrossSigningKeys {
        user_id: call.user()?.to_string(),
        master: master_key,
        self_signing: self_signing_key,
        user_signing: user_signing_key,
        authenticated,
    })
}

/// Users, their keys by device id or public key, and why the signatures on each were refused.
#[derive(Serialize, Default)]
struct Signed {
    failures: BTreeMap<String, BTreeMap<String, Failure>>,
}

#[derive(Serialize)]
struct Failure {
    errcode: &'static str,
    error: String,
}

async fn post_signatures(call: Call) -> Outcome {
    let body: BTreeMap<String, BTreeMap<String, Map<String, Value>>> = call.json()?;
    if body.values().map(BTreeMap::len).sum::<usize>() > SIGNED_KEYS_MAX {
        return Err(ApiError::too_large(format!("No more than {SIGNED_KEYS_MAX} keys are signed at once")));
    }
    let mut signed = Vec::new();
    for (user_id, keys) in body {
        for (key_id, object) in keys {
            signed.push(SignedKey { user_id: user_id.clone(), key_id, object });
        }
    }
    let user_id = call.user()?.to_string();
    let told = ask_elsewhere(&call.ctx, &user_id, &signed).await?;
    let command = UploadSignatures { user_id, signed, told };
    let mut answer = Signed::default();
    for failure in call.ctx.engine.write(command).await? {
        let error = ApiError::from(failure.error);
        let failures = answer.failures.entry(failure.user_id).or_default();
        let failure_of_key = Failure { errcode: error.errcode, error: error.error.into_owned() };
        failures.insert(failure.key_id, failure_of_key);
    }
    Answer::json(&answer)
}

/// Master keys that are not known here, as their users' servers tell them: the client has seen them there, and will not sign
/// them again. What cannot be had is refused by the engine.
async fn ask_elsewhere(
    ctx: &Arc<Context>,
    signer: &str,
    signed: &[SignedKey],
) -> Result<Vec<ToldMasterKey>, ApiError> {
    let signed = signed.iter().map(|key| (key.user_id.as_str(), &key.object)).collect();
    let unknown = ctx.engine.read(&UnknownMasterKeys { signer, signed })?;
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let users = unknown.iter().map(|key| (key.user_id.clone(), json!([]))).collect();
    let asker = Asker::User(signer.to_owned());
    let mut found = queries::user_keys(ctx, &asker, &["master_keys"], users, KEYS_TIME_MAX).await;
    let mut keys = found.parts.remove("master_keys").unwrap_or_default();
    let told = unknown.into_iter().filter_map(|key| {
        let object = serde_json::from_str(keys.remove(&key.user_id)?.get()).ok()?;
        Some(key.told(object))
    });
    Ok(told.collect())
}
