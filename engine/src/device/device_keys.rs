//! The identity keys of devices.
//!
//! Invariant: what is stored names the user and device that uploaded it. Signatures on keys that have been replaced are
//! gone with them. Whether the device's own signature holds is for those who use the key to check, who trust no server.
//! Specification: `POST /keys/upload`, "Device keys".

use super::{KEY_NAME_BYTES_MAX, canonical_without, cross_signing, lists, parameter, signatures};
use crate::{
    core::{
        event::JsonObject,
        num::{TextNum, UserNum},
    },
    error::{Denied, Result},
    store::{Direction, Reader, StorageError, Tx, schema},
};

/// The most bytes of a device's identity keys: some 400 are used today, post-quantum keys have some thousands.
pub const DEVICE_KEYS_BYTES_MAX: usize = 32 * 1024;

const WHAT: &str = "device_keys";

/// Stores the identity keys of the user's device, and tells those who follow the user if anything is new.
pub fn upload(tx: &mut Tx, user: UserNum, user_id: &str, device_id: &str, keys: &JsonObject) -> Result<()> {
    let (stored, signatures) = checked(user_id, device_id, keys)?;
    let device = tx.intern_text(device_id)?;
    if cross_signing::has_public_key(tx, user, device_id)? {
        return Err(Denied::KeyIdInUse.into());
    }
    let mut news = false;
    if tx.get(&schema::DEVICE_KEYS, &(user, device))?.is_none_or(|known| known != stored) {
        signatures::forget(tx, user, device)?;
        tx.put(&schema::DEVICE_KEYS, &(user, device), &stored.into());
        news = true;
    }
    news |= signatures::put(tx, user, user, device, &signatures, signatures::ON_DEVICE_BYTES_MAX)?;
    if news {
        lists::changed(tx, user, [lists::ListChange::Device(device)])?;
    }
    Ok(())
}

/// Ids of signing keys, and signatures.
pub type Signatures<'a> = Vec<(&'a str, &'a str)>;

/// The keys as they are stored, and the signatures of their owner.
///
/// Errors: malformed keys, or too many signatures.
pub fn checked<'a>(
    user_id: &str,
    device_id: &str,
    keys: &'a JsonObject,
) -> Result<(Vec<u8>, Signatures<'a>)> {
    check_shape(user_id, device_id, keys)?;
    let stored = canonical_without(WHAT, keys, &["signatures", "unsigned"], DEVICE_KEYS_BYTES_MAX)?;
    let own = signatures::by(keys, user_id)?;
    signatures::check_limits(own.iter().copied(), signatures::ON_DEVICE_BYTES_MAX)?;
    Ok((stored, own))
}

fn check_shape(user_id: &str, device_id: &str, keys: &JsonObject) -> Result<()> {
    let text = |name: &str| keys.get(name).and_then(|value| value.as_str());
    if text("user_id") != Some(user_id) {
        return Err(parameter(WHAT, "user_id must be the user who uploads"));
    }
    if text("device_id") != Some(device_id) {
        return Err(parameter(WHAT, "device_id must be the device that uploads"));
    }
    let algorithms = keys.get("algorithms").and_then(|value| value.as_array());
    if !algorithms.is_some_and(|algorithms| algorithms.iter().all(|algorithm| algorithm.is_string())) {
        return Err(parameter(WHAT, "algorithms must be a list of texts"));
    }
    let public = keys.get("keys").and_then(|value| value.as_object());
    if !public.is_some_and(|public| public.values().all(|key| key.is_string())) {
        return Err(parameter(WHAT, "keys must be an object of texts"));
    }
    if !keys.get("signatures").is_some_and(|signatures| signatures.is_object()) {
        return Err(parameter(WHAT, "signatures must be an object"));
    }
    if device_id.len() > KEY_NAME_BYTES_MAX {
        return Err(parameter(WHAT, "the device id is too long"));
    }
    Ok(())
}

/// The user's devices that have identity keys, with the stored keys. O(devices).
pub fn all(reader: &Reader, user: UserNum) -> Result<Vec<(TextNum, bytes::Bytes)>, StorageError> {
    let mut found = Vec::new();
    reader.scan(&schema::DEVICE_KEYS, &user, Direction::Forward, |(_, device), keys| {
        found.push((device, keys));
        true
    })?;
    Ok(found)
}

/// The Ed25519 key of a device in unpadded Base64, if it has uploaded one.
pub fn ed25519(reader: &Reader, user: UserNum, device_id: &str) -> Result<Option<String>> {
    let Some(device) = reader.text_num(device_id)? else { return Ok(None) };
    let Some(stored) = reader.get(&schema::DEVICE_KEYS, &(user, device))? else { return Ok(None) };
    let keys: JsonObject = cross_signing::read_stored(&stored)?;
    let public = keys.get("keys").and_then(|keys| keys.get(format!("ed25519:{device_id}")));
    Ok(public.and_then(|key| key.as_str()).map(str::to_owned))
}
