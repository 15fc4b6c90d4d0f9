//! What other servers tell of keys of users whose devices are not followed, judged as an upload is before it is passed on: many
//! clients take an answer as a whole or not at all, and must not lose by one entry what is said of everybody else.
//!
//! Invariant: what is passed on is in the form in which keys that are kept here are told: of its signatures those of its owner,
//! of what is not signed the device's name. Whether signatures hold is for those to check who use the keys: they trust no server.
//! Specification: client-server API, `POST /keys/query` and `POST /keys/claim`.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    cross_signing::{self, CrossSigningUsage},
    device_keys, one_time_keys, signatures,
};
use crate::core::{event::JsonObject, json};

/// The most bytes of one key with its signatures, of which a master key has one by each of its user's devices. What is longer
/// becomes no value, which may take a hundred times the memory of its text.
pub const TOLD_BYTES_MAX: usize = 64 * 1024;

/// The identity keys of a device, as canonical JSON; nothing if they are malformed, or those of another user or device.
pub fn device(user_id: &str, device_id: &str, told: &[u8]) -> Option<Bytes> {
    let mut keys: JsonObject = read(told).filter(|_| !device_id.is_empty())?;
    let (_, own) = device_keys::checked(user_id, device_id, &keys).ok()?;
    // A device's keys always have the member, be it empty.
    let signed = if own.is_empty() { json!({}) } else { by_owner(user_id, &own) };
    let unsigned = keys.get("unsigned").and_then(|unsigned| unsigned.get("device_display_name"));
    let name = unsigned.and_then(Value::as_str).map(str::to_owned);
    keep_of_owner(&mut keys, Some(signed));
    if let Some(name) = name {
        keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
    }
    Some(written(&keys))
}

/// A cross-signing key, as canonical JSON; nothing if it is malformed, that of another user, or for another use.
pub fn cross_signing_key(usage: CrossSigningUsage, user_id: &str, told: &[u8]) -> Option<Bytes> {
    let mut key: JsonObject = read(told)?;
    let own = cross_signing::checked(usage, user_id, &key).ok()?;
    key.get("usage").and_then(Value::as_array).filter(|usages| usages.iter().all(Value::is_string))?;
    let signed = (!own.is_empty()).then(|| by_owner(user_id, &own));
    keep_of_owner(&mut key, signed);
    Some(written(&key))
}

/// A one-time or fallback key, whose name is its algorithm, a colon and an id, as canonical JSON; nothing if it is malformed.
pub fn one_time_key(name: &str, told: &[u8]) -> Option<Bytes> {
    let key: Value = read(told)?;
    if let Value::Object(object) = &key {
        // Whoever has signed it: what is wrong with others' signatures is wrong with the key.
        signatures::by(object, "").ok()?;
    }
    let (_, _, key) = one_time_keys::checked("one_time_keys", name, &key).ok()?;
    Some(key)
}

fn read<T: DeserializeOwned>(told: &[u8]) -> Option<T> {
    let told = Some(told).filter(|told| told.len() <= TOLD_BYTES_MAX)?;
    serde_json::from_slice(told).ok()
}

/// `signatures` with those of one user.
fn by_owner(user_id: &str, own: &[(&str, &str)]) -> Value {
    let own: JsonObject =
        own.iter().map(|(key_id, signature)| ((*key_id).to_owned(), Value::from(*signature))).collect();
    json!({ user_id: own })
}

/// Leaves of what is not signed itself the signatures that are given.
fn keep_of_owner(key: &mut JsonObject, signed: Option<Value>) {
    key.remove("signatures");
    key.remove("unsigned");
    key.extend(signed.map(|signed| ("signatures".to_owned(), signed)));
}

fn written(object: &JsonObject) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    json::write_object(&mut out, object);
    out.into()
}
