//! Devices as others see them: identity keys, one-time keys, cross-signing, lists, messages to devices; and key backup.
//!
//! Invariant: everything keyed by a device goes with it (`forget`); every change of keys that others may see is in the
//! news of all who follow the user, and other servers are told of every device, be it without keys (`lists`). Who logs in
//! on which device is `account`'s.
//! Specification: client-server API, "End-to-End Encryption" and "Send-to-Device messaging".

pub mod cross_signing;
pub mod device_keys;
pub mod elsewhere;
pub mod key_backup;
pub mod lists;
pub mod one_time_keys;
pub mod signatures;
pub(crate) mod strangers;
pub mod to_device;
pub mod told;
pub mod updates;

use lists::ListChange;

use crate::{
    core::{
        event::JsonObject,
        json::{self, Strictness},
        num::{TextNum, UserNum},
    },
    error::{Error, Invalid, Result},
    outbox::shares,
    store::{Reader, StorageError, Tx, schema},
};

/// The longest name of an algorithm, id of a key or id of a session, in bytes: as long as any other identifier.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// Tells other servers that the user has a new device, which has no keys yet. To be called with the user's lane held.
pub fn added(tx: &mut Tx, user: UserNum, device_id: &str) -> Result<()> {
    let device = tx.intern_text(device_id)?;
    lists::changed_without_keys(tx, user, device)
}

/// Whether there are keys of a device of the user.
pub fn has_keys(reader: &Reader, user: UserNum, device_id: &str) -> Result<bool, StorageError> {
    let Some(device) = reader.text_num(device_id)? else { return Ok(false) };
    let place = (user, device);
    Ok(reader.has(&schema::DEVICE_KEYS, &place)? || reader.has(&schema::KEY_STOCKS, &place)?)
}

/// Removes all that belongs to a device of the user: its keys, and what waits for it. Users are told if they could have
/// known its keys, other servers in any case. To be called with the user's lane held, when a device logs out or is deleted.
pub fn forget(tx: &mut Tx, user: UserNum, device_id: &str) -> Result<()> {
    let Some(device) = tx.text_num(device_id)? else { return Ok(()) };
    let had_keys = tx.has(&schema::DEVICE_KEYS, &(user, device))?;
    if had_keys {
        tx.delete(&schema::DEVICE_KEYS, &(user, device));
        signatures::forget(tx, user, device)?;
    }
    if tx.has(&schema::KEY_STOCKS, &(user, device))? {
        tx.delete(&schema::KEY_STOCKS, &(user, device));
        one_time_keys::stock_changed(tx, user);
        tx.delete_prefix(&schema::ONE_TIME_KEYS, &(user, device));
        tx.delete_prefix(&schema::FALLBACK_KEYS, &(user, device));
    }
    if tx.has(&schema::TO_DEVICE_COUNTS, &(user, device))? {
        tx.delete(&schema::TO_DEVICE_COUNTS, &(user, device));
        tx.delete_prefix(&schema::TO_DEVICE, &(user, device));
        shares::forget(tx, (user, device))?;
        strangers::forget(tx, (user, device));
    }
    tell(tx, user, device, had_keys)
}

/// Tells those who may see a device of the user that it has another name. To be called with the user's lane held.
pub fn renamed(tx: &mut Tx, user: UserNum, device_id: &str) -> Result<()> {
    let Some(device) = tx.text_num(device_id)? else { return Ok(()) };
    let has_keys = tx.has(&schema::DEVICE_KEYS, &(user, device))?;
    tell(tx, user, device, has_keys)
}

/// Tells of a change of a device. Without keys it is of no use to other users, but their servers keep the list.
fn tell(tx: &mut Tx, user: UserNum, device: TextNum, has_keys: bool) -> Result<()> {
    match has_keys {
        true => lists::changed(tx, user, [ListChange::Device(device)]),
        false => lists::changed_without_keys(tx, user, device),
    }
}

/// An error about a parameter of the request.
fn parameter(what: &'static str, why: impl Into<String>) -> Error {
    Invalid::Parameter { what, why: why.into() }.into()
}

/// Canonical JSON of `object` without the members in `without`.
///
/// Errors: what canonical JSON cannot express, and more than `bytes_max`.
fn canonical_without(
    what: &'static str,
    object: &JsonObject,
    without: &[&str],
    bytes_max: usize,
) -> Result<Vec<u8>> {
    let members = object.iter().filter(|(name, _)| !without.contains(&name.as_str()));
    for (_, value) in members {
        json::check(value, Strictness::Strict, 1).map_err(|error| parameter(what, error.to_string()))?;
    }
    let mut bytes = Vec::with_capacity(512);
    json::write_members_without(&mut bytes, object, without);
    if bytes.len() > bytes_max { Err(Invalid::TooLarge { what, max: bytes_max }.into()) } else { Ok(bytes) }
}

#[cfg(test)]
pub(crate) mod tests;
