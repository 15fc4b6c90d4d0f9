//! `keys_server.yaml`: the keys that this server signs with.

use serde_json::{Map, Value, json};
use warren_engine::core::event::{JsonObject, encode_base64, sign_json};
use warren_engine::view::OwnOldKeys;

use super::limits::{OWN_KEYS_TIME, OWN_OLD_KEYS_MAX};
use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/key/v2/server"         [] None Read Nothing get_keys;
    // Servers of old ask for one key; they too are told of all.
    GET "/_matrix/key/v2/server/{keyId}" [] None Read Nothing get_keys;
}

async fn get_keys(call: Call) -> Outcome {
    Answer::json(&own_keys(&call.ctx)?)
}

/// What this server publishes of its keys, signed.
///
/// Errors: the store cannot be read.
pub fn own_keys(ctx: &Context) -> Result<JsonObject, ApiError> {
    let (server_name, key) = (ctx.engine.server_name(), ctx.engine.key_pair());
    let verify_keys =
        Map::from_iter([(key.key_id().to_owned(), json!({ "key": encode_base64(key.public_key()) }))]);
    let old = ctx.engine.read(&OwnOldKeys)?;
    let old_verify_keys = old.iter().take(OWN_OLD_KEYS_MAX).map(|key| {
        let value = json!({ "key": encode_base64(&key.public_key), "expired_ts": key.valid_until_ts });
        (key.key_id.clone(), value)
    });
    let mut object = Map::from_iter([
        ("server_name".to_owned(), Value::from(server_name)),
        ("verify_keys".to_owned(), verify_keys.into()),
        ("old_verify_keys".to_owned(), old_verify_keys.collect::<JsonObject>().into()),
        ("valid_until_ts".to_owned(), Value::from(ctx.engine.now_ms() + OWN_KEYS_TIME.as_millis() as u64)),
    ]);
    sign_json(&mut object, server_name, key);
    Ok(object)
}
