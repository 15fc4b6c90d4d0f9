//! What a server publishes of its keys: read and verified (`definitions/keys.yaml`).

use bytes::Bytes;
use serde_json::Value;
use warren_engine::core::event::{JsonObject, decode_base64, verify_json};
use warren_engine::core::json::{Limits, Strictness, parse_object};
use warren_engine::remote::ServerKey;

use super::limits::{KEYS_BYTES_MAX, KEYS_MAX, KEYS_TRUSTED_AHEAD};

/// The algorithm that all keys are of.
const ALGORITHM: &str = "ed25519:";
/// Bytes of a public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// What a server published, with a signature of its own that holds.
#[derive(Debug, Clone)]
pub struct Published {
    pub server_name: String,
    pub valid_until_ts: u64,
    /// As it came.
    pub json: Bytes,
    pub object: JsonObject,
    verify_keys: Vec<(String, Vec<u8>)>,
    /// With the time when each went out of use.
    old_verify_keys: Vec<(String, Vec<u8>, u64)>,
}

/// Why what a server published is not taken.
#[derive(Debug)]
pub struct BadKeys {
    /// As it is counted.
    pub reason: &'static str,
    /// A sentence.
    pub cause: String,
}

impl Published {
    /// Errors: for what is malformed, of another server, or not signed by a key in it.
    pub fn read(json: &[u8], server_name: &str) -> Result<Published, BadKeys> {
        let limits = Limits { bytes_max: KEYS_BYTES_MAX, strictness: Strictness::Strict };
        let bad = |reason, cause: &str| BadKeys { reason, cause: cause.to_owned() };
        let object = parse_object(json, limits).map_err(|error| bad("malformed", &error.to_string()))?;
        if object.get("server_name").and_then(Value::as_str) != Some(server_name) {
            return Err(bad("other_server", "the keys are of another server"));
        }
        let valid_until_ts = object.get("valid_until_ts").and_then(Value::as_u64);
        let valid_until_ts = valid_until_ts.ok_or_else(|| bad("malformed", "valid_until_ts is missing"))?;
        let members = |name: &str| object.get(name).and_then(Value::as_object).into_iter().flatten();
        let verify_keys: Vec<_> =
            members("verify_keys").filter_map(|(key_id, key)| read_key(key_id, key)).collect();
        let old_key = |(key_id, key): (&String, &Value)| {
            let (key_id, public_key) = read_key(key_id, key)?;
            Some((key_id, public_key, key.get("expired_ts")?.as_u64()?))
        };
        let old_verify_keys: Vec<_> = members("old_verify_keys").filter_map(old_key).collect();
        if verify_keys.len() + old_verify_keys.len() > KEYS_MAX {
            return Err(bad("too_many", "there are too many keys"));
        }
        let holds = |(key_id, public_key): &(String, Vec<u8>)| {
            verify_json(&object, server_name, key_id, public_key).is_ok()
        };
        if !verify_keys.iter().any(holds) {
            return Err(bad("unsigned", "the keys are not signed by one of them"));
        }
        let (server_name, json) = (server_name.to_owned(), Bytes::copy_from_slice(json));
        Ok(Published { server_name, valid_until_ts, json, object, verify_keys, old_verify_keys })
    }

    /// The keys, trusted no further ahead than the specification has it.
    pub fn keys(&self, now_ms: u64) -> Vec<ServerKey> {
        let ahead = now_ms.saturating_add(KEYS_TRUSTED_AHEAD.as_millis() as u64);
        let in_use = self.verify_keys.iter().map(|(key_id, public_key)| ServerKey {
            key_id: key_id.clone(),
            public_key: public_key.clone(),
            valid_until_ts: self.valid_until_ts.min(ahead),
            is_old: false,
        });
        // A key that is listed as in use and as old is in use.
        let is_in_use = |key_id: &str| self.verify_keys.iter().any(|(known, _)| known == key_id);
        let old = self.old_verify_keys.iter().filter(|(key_id, ..)| !is_in_use(key_id));
        let old = old.map(|(key_id, public_key, expired_ts)| ServerKey {
            key_id: key_id.clone(),
            public_key: public_key.clone(),
            valid_until_ts: *expired_ts,
            is_old: true,
        });
        in_use.chain(old).collect()
    }

    /// The ids of the keys that are in use.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.verify_keys.iter().map(|(key_id, _)| key_id.as_str())
    }

    /// Whether there is a key of that id, in use or old.
    pub fn has(&self, key_id: &str) -> bool {
        self.key_ids().any(|known| known == key_id)
            || self.old_verify_keys.iter().any(|(known, ..)| known == key_id)
    }
}

/// `None` for a key of an algorithm that nobody has defined yet, or that is none.
fn read_key(key_id: &str, key: &Value) -> Option<(String, Vec<u8>)> {
    let public_key = decode_base64(key.get("key")?.as_str()?)?;
    is_key(key_id, &public_key).then(|| (key_id.to_owned(), public_key))
}

/// Whether there may be such a key with such an id.
pub fn is_key(key_id: &str, public_key: &[u8]) -> bool {
    let is_version = |version: &str| {
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    key_id.strip_prefix(ALGORITHM).is_some_and(is_version) && public_key.len() == PUBLIC_KEY_BYTES
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use warren_engine::core::event::{KeyPair, encode_base64, sign_json};

    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn key(version: &str, seed: u8) -> KeyPair {
        KeyPair::from_seed(version, &[seed; 32]).expect("a key")
    }

    fn published(change: impl FnOnce(&mut JsonObject)) -> Result<Published, String> {
        let (now, old) = (key("now", 1), key("old", 2));
        let object = json!({
            "server_name": "a.example",
            "valid_until_ts": 30 * DAY_MS,
            "verify_keys": {
                now.key_id(): { "key": encode_base64(now.public_key()) },
                "curve:1": { "key": "AAAA" },
            },
            "old_verify_keys": { old.key_id(): { "key": encode_base64(old.public_key()), "expired_ts": 5 } },
        });
        let Value::Object(mut object) = object else { panic!("an object") };
        sign_json(&mut object, "a.example", &now);
        change(&mut object);
        let json = Value::Object(object).to_string();
        Published::read(json.as_bytes(), "a.example").map_err(|error| error.cause)
    }

    #[test]
    fn keys_count_no_longer_than_a_week_ahead() {
        let keys = published(|_| {}).expect("rightly signed").keys(DAY_MS);
        let [now, old] = keys.as_slice() else { panic!("two keys: {keys:?}") };
        assert_eq!((now.key_id.as_str(), now.valid_until_ts, now.is_old), ("ed25519:now", 8 * DAY_MS, false));
        assert_eq!((old.key_id.as_str(), old.valid_until_ts, old.is_old), ("ed25519:old", 5, true));
        let later = published(|_| {}).expect("rightly signed").keys(29 * DAY_MS);
        assert_eq!(later.first().map(|key| key.valid_until_ts), Some(30 * DAY_MS));
    }

    #[test]
    fn what_is_not_signed_by_a_key_in_it_is_nothing() {
        let without = |name: &'static str| move |object: &mut JsonObject| drop(object.remove(name));
        for name in ["server_name", "valid_until_ts", "verify_keys", "signatures"] {
            assert!(published(without(name)).is_err(), "{name}");
        }
        let other = |object: &mut JsonObject| drop(object.insert("valid_until_ts".into(), 5.into()));
        assert!(published(other).expect_err("changed").contains("not signed"));
        let by_old = |object: &mut JsonObject| {
            object.remove("signatures");
            sign_json(object, "a.example", &key("old", 2));
        };
        assert!(published(by_old).expect_err("an old key").contains("not signed"));
    }
}
