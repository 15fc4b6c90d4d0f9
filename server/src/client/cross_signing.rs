//! `cross_signing.yaml`: the keys that stand for a user, and what they sign.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use warren_engine::command::{CrossSigningUpload, SignedKey, UploadCrossSigningKeys, UploadSignatures};

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
    let mut signed = Vec::new();
    for (user_id, keys) in body {
        for (key_id, object) in keys {
            signed.push(SignedKey { user_id: user_id.clone(), key_id, object });
        }
    }
    let command = UploadSignatures { user_id: call.user()?.to_string(), signed };
    let mut answer = Signed::default();
    for failure in call.ctx.engine.write(command).await? {
        let error = ApiError::from(failure.error);
        let failures = answer.failures.entry(failure.user_id).or_default();
        let failure_of_key = Failure { errcode: error.errcode, error: error.error.into_owned() };
        failures.insert(failure.key_id, failure_of_key);
    }
    Answer::json(&answer)
}
