//! Cross-signing keys, and signatures that one key makes on another.
//!
//! Invariant: a self-signing or user-signing key that is stored is signed by the master key that is stored; a new master
//! key without them takes them away. A signature that was uploaded by itself has been verified.
//! Specification: "Cross-signing"; `POST /keys/device_signing/upload` and `/keys/signatures/upload`.

use bytes::Bytes;

use super::{
    canonical_without, device_keys, parameter,
    signatures::{self, ON_DEVICE_BYTES_MAX, ON_KEY_BYTES_MAX},
};
use crate::{
    core::{
        event::{JsonObject, decode_base64, verify_json},
        num::UserNum,
    },
    error::{Denied, Error, Invalid, Result, What},
    store::{Reader, StorageError, Tx, schema},
};

/// The most bytes of a cross-signing key; some 200 are used.
pub const KEY_BYTES_MAX: usize = 16 * 1024;

/// What is named in errors about signatures that are uploaded by themselves.
const SIGNED_KEY: &str = "signed key";

/// What a cross-signing key is for; its number is part of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CrossSigningUsage {
    /// Signs the user's other two keys.
    Master = 1,
    /// Signs the user's devices.
    SelfSigning = 2,
    /// Signs other users' master keys.
    UserSigning = 3,
}

impl CrossSigningUsage {
    /// All of them, in the order in which they are checked and stored: who signs comes first.
    pub const ALL: [Self; 3] = [Self::Master, Self::SelfSigning, Self::UserSigning];

    /// Its name in `usage`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }

    fn parameter(self) -> &'static str {
        match self {
            Self::Master => "master_key",
            Self::SelfSigning => "self_signing_key",
            Self::UserSigning => "user_signing_key",
        }
    }
}

/// An object that was stored as canonical JSON.
pub(super) fn read_stored(bytes: &[u8]) -> Result<JsonObject, StorageError> {
    serde_json::from_slice(bytes).map_err(|error| StorageError::Corrupt(format!("a stored key: {error}")))
}

/// The public key of a cross-signing key in unpadded Base64, which is its id behind `ed25519:` too.
///
/// Errors: `keys` is not one entry of that form.
fn public_key(what: &'static str, key: &JsonObject) -> Result<String> {
    let keys = key.get("keys").and_then(|keys| keys.as_object());
    let only = keys.filter(|keys| keys.len() == 1).and_then(|keys| keys.iter().next());
    let found = only.and_then(|(name, value)| Some((name.strip_prefix("ed25519:")?, value.as_str()?)));
    match found {
        Some((name, public))
            if name == public && decode_base64(public).is_some_and(|key| key.len() == 32) =>
        {
            Ok(public.to_owned())
        }
        _ => Err(parameter(what, "keys must be exactly one Ed25519 key under its own name")),
    }
}

/// The stored cross-signing key of a user.
pub fn stored(
    reader: &Reader,
    user: UserNum,
    usage: CrossSigningUsage,
) -> Result<Option<Bytes>, StorageError> {
    reader.get(&schema::CROSS_SIGNING_KEYS, &(user, usage as u8))
}

/// The public key, in unpadded Base64, of a user's cross-signing key.
pub fn stored_public_key(reader: &Reader, user: UserNum, usage: CrossSigningUsage) -> Result<Option<String>> {
    let Some(stored) = stored(reader, user, usage)? else { return Ok(None) };
    public_key(usage.parameter(), &read_stored(&stored)?).map(Some)
}

/// Whether one of the user's cross-signing keys is `public`.
pub fn has_public_key(reader: &Reader, user: UserNum, public: &str) -> Result<bool> {
    for usage in CrossSigningUsage::ALL {
        if stored_public_key(reader, user, usage)?.as_deref() == Some(public) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What key an object is, whatever signatures are on it, in the form in which keys are stored.
///
/// Errors: what canonical JSON cannot express.
fn bare(object: &JsonObject) -> Result<Vec<u8>> {
    canonical_without(SIGNED_KEY, object, &["signatures", "unsigned"], usize::MAX)
}

/// Whether two objects are one key, whatever signatures are on them.
pub fn is_same_key(one: &JsonObject, other: &JsonObject) -> bool {
    matches!((bare(one), bare(other)), (Ok(one), Ok(other)) if one == other)
}

/// Whether an object is the master key that is stored of the user, whatever signatures are on it.
pub fn is_stored_master(reader: &Reader, user: UserNum, object: &JsonObject) -> Result<bool, StorageError> {
    let Some(known) = stored(reader, user, CrossSigningUsage::Master)? else { return Ok(false) };
    Ok(bare(object).is_ok_and(|given| known == given))
}

/// Verifies the signature of the key `public` of `user_id` on `object`.
fn verify(what: &'static str, object: &JsonObject, user_id: &str, key_id: &str, public: &str) -> Result<()> {
    let why = |why: &str| Error::from(Invalid::Signature { what, why: why.to_owned() });
    let public = decode_base64(public).ok_or_else(|| why("the signing key is not Base64"))?;
    verify_json(object, user_id, key_id, &public).map_err(|error| why(&error.to_string()))
}

/// A cross-signing key that is to be stored, checked by itself.
pub struct NewKey<'a> {
    usage: CrossSigningUsage,
    object: &'a JsonObject,
    public: String,
    stored: Vec<u8>,
    /// The id of the master key, whose signature on this key has been verified; `None` for the master key.
    signed_by: Option<String>,
    /// Whether another key, or none, is stored.
    pub is_new: bool,
}

/// Checks the keys of a request: their form, who signed them, and that no id is used twice.
///
/// Errors: malformed keys, missing or wrong signatures, no master key, ids in use.
pub fn check<'a>(
    reader: &Reader,
    user: UserNum,
    user_id: &str,
    keys: &[(CrossSigningUsage, &'a JsonObject)],
) -> Result<Vec<NewKey<'a>>> {
    let mut checked: Vec<NewKey<'a>> = Vec::new();
    let mut master = stored_public_key(reader, user, CrossSigningUsage::Master)?;
    for usage in CrossSigningUsage::ALL {
        let Some((_, object)) = keys.iter().find(|(given, _)| *given == usage) else { continue };
        let public = check_shape(usage, user_id, object)?;
        let mut signed_by = None;
        if usage == CrossSigningUsage::Master {
            master = Some(public.clone());
        } else {
            let master = master.as_deref().ok_or(Invalid::NoMasterKey)?;
            let key_id = format!("ed25519:{master}");
            verify(usage.parameter(), object, user_id, &key_id, master)?;
            signed_by = Some(key_id);
        }
        let in_use = checked.iter().any(|other| other.public == public)
            || is_used_otherwise(reader, user, usage, &public, keys)?;
        if in_use {
            return Err(Denied::KeyIdInUse.into());
        }
        let bytes = canonical_without(usage.parameter(), object, &["signatures", "unsigned"], KEY_BYTES_MAX)?;
        let is_new = stored(reader, user, usage)?.is_none_or(|known| known != bytes);
        checked.push(NewKey { usage, object, public, stored: bytes, signed_by, is_new });
    }
    if master.is_none() {
        return Err(Invalid::NoMasterKey.into());
    }
    Ok(checked)
}

/// Whether the key id stands for a device, or for another key that stays.
fn is_used_otherwise(
    reader: &Reader,
    user: UserNum,
    usage: CrossSigningUsage,
    public: &str,
    keys: &[(CrossSigningUsage, &JsonObject)],
) -> Result<bool> {
    if reader.has(&schema::DEVICES, &(user, public.to_owned()))? {
        return Ok(true);
    }
    for other in CrossSigningUsage::ALL {
        let replaced = keys.iter().any(|(given, _)| *given == other);
        if other != usage && !replaced && stored_public_key(reader, user, other)?.as_deref() == Some(public) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_shape(usage: CrossSigningUsage, user_id: &str, object: &JsonObject) -> Result<String> {
    let what = usage.parameter();
    if object.get("user_id").and_then(|value| value.as_str()) != Some(user_id) {
        return Err(parameter(what, "user_id must be the user who uploads"));
    }
    let usages = object.get("usage").and_then(|value| value.as_array());
    if !usages.is_some_and(|usages| usages.iter().any(|named| named.as_str() == Some(usage.name()))) {
        return Err(parameter(what, format!("usage must be {}", usage.name())));
    }
    signatures::by(object, user_id)?;
    public_key(what, object)
}

/// The signatures of its owner on a key that is passed on and not stored.
///
/// Errors: a malformed or too large one.
pub(super) fn checked<'a>(
    usage: CrossSigningUsage,
    user_id: &str,
    object: &'a JsonObject,
) -> Result<device_keys::Signatures<'a>> {
    check_shape(usage, user_id, object)?;
    canonical_without(usage.parameter(), object, &["signatures", "unsigned"], KEY_BYTES_MAX)?;
    signatures::by(object, user_id)
}

/// Stores checked keys. Answers whether anything is new.
pub fn store(tx: &mut Tx, user: UserNum, user_id: &str, keys: &[NewKey<'_>]) -> Result<bool> {
    let mut news = false;
    if keys.iter().any(|key| key.usage == CrossSigningUsage::Master && key.is_new) {
        // What the old master key signed counts no longer.
        for usage in CrossSigningUsage::ALL {
            news |= remove(tx, user, usage)?;
        }
    }
    for key in keys {
        let text = tx.intern_text(&key.public)?;
        if key.is_new {
            remove(tx, user, key.usage)?;
        }
        tx.put(&schema::CROSS_SIGNING_KEYS, &(user, key.usage as u8), &Bytes::from(key.stored.clone()));
        news |= key.is_new;
        let mut all_good = Vec::new();
        for signature in signatures::by(key.object, user_id)? {
            let is_good = match &key.signed_by {
                Some(key_id) => key_id == signature.0,
                None => is_by_device(tx, user, user_id, key.object, signature.0)?,
            };
            if is_good {
                all_good.push(signature);
            }
        }
        match signatures::put(tx, user, user, text, &all_good, ON_KEY_BYTES_MAX) {
            Ok(is_new) => news |= is_new,
            // As those that are not good; the key is as good without them.
            Err(Error::Invalid(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(news)
}

fn remove(tx: &mut Tx, user: UserNum, usage: CrossSigningUsage) -> Result<bool> {
    let Some(public) = stored_public_key(tx, user, usage)? else { return Ok(false) };
    if let Some(text) = tx.text_num(&public)? {
        signatures::forget(tx, user, text)?;
    }
    tx.delete(&schema::CROSS_SIGNING_KEYS, &(user, usage as u8));
    Ok(true)
}

/// Whether the signature `key_id` on a master key is a good one by a device of the user.
fn is_by_device(
    reader: &Reader,
    user: UserNum,
    user_id: &str,
    object: &JsonObject,
    key_id: &str,
) -> Result<bool> {
    let Some(device_id) = key_id.strip_prefix("ed25519:") else { return Ok(false) };
    let Some(public) = device_keys::ed25519(reader, user, device_id)? else { return Ok(false) };
    Ok(verify("master_key", object, user_id, key_id, &public).is_ok())
}

/// Adds the signatures of `signer` in `object` to the key `key_id` of `owner`. Answers whether anything is new.
///
/// A device of one's own is signed by the self-signing key, one's own master key by devices, another user's master key
/// by the user-signing key. Signatures that are there already may be repeated.
///
/// Errors: [`What::Key`] if there is no such key; the object is not that key; a signature is missing or wrong; there
/// are too many.
pub fn add_signatures(
    tx: &mut Tx,
    signer: (UserNum, &str),
    owner: UserNum,
    key_id: &str,
    object: &JsonObject,
) -> Result<bool> {
    let missing = Error::NotFound(What::Key);
    let Some(text) = tx.text_num(key_id)? else { return Err(missing) };
    let device = tx.get(&schema::DEVICE_KEYS, &(owner, text))?.filter(|_| owner == signer.0);
    let is_device = device.is_some();
    let known = match device {
        Some(device) => device,
        None => stored(tx, owner, CrossSigningUsage::Master)?
            .filter(|_| {
                stored_public_key(tx, owner, CrossSigningUsage::Master)
                    .is_ok_and(|public| public.as_deref() == Some(key_id))
            })
            .ok_or(missing)?,
    };
    if known != bare(object)? {
        return Err(parameter(SIGNED_KEY, "is not the key that is stored"));
    }
    let mut good = Vec::new();
    for signature in signatures::by(object, signer.1)? {
        let Some(public) = signing_key(tx, signer.0, owner, is_device, signature.0)? else { continue };
        verify(SIGNED_KEY, object, signer.1, signature.0, &public)?;
        good.push(signature);
    }
    if good.is_empty() {
        let why = "it is signed by no key that may sign it".to_owned();
        return Err(Invalid::Signature { what: SIGNED_KEY, why }.into());
    }
    let bytes_max = if is_device { ON_DEVICE_BYTES_MAX } else { ON_KEY_BYTES_MAX };
    signatures::put(tx, owner, signer.0, text, &good, bytes_max)
}

/// Whether the user-signing key of `signer` has signed `object`, as another user's master key is to be.
pub fn is_user_signed(reader: &Reader, signer: (UserNum, &str), object: &JsonObject) -> Result<bool> {
    let public = stored_public_key(reader, signer.0, CrossSigningUsage::UserSigning)?;
    let is_good =
        |public: String| verify(SIGNED_KEY, object, signer.1, &format!("ed25519:{public}"), &public).is_ok();
    Ok(public.is_some_and(is_good))
}

/// The public key behind `key_id` if it is one of `signer` that may sign such a key of `owner`.
fn signing_key(
    reader: &Reader,
    signer: UserNum,
    owner: UserNum,
    is_device: bool,
    key_id: &str,
) -> Result<Option<String>> {
    let Some(name) = key_id.strip_prefix("ed25519:") else { return Ok(None) };
    let usage = match (signer == owner, is_device) {
        (true, true) => CrossSigningUsage::SelfSigning,
        (true, false) => return device_keys::ed25519(reader, signer, name),
        (false, _) => CrossSigningUsage::UserSigning,
    };
    Ok(stored_public_key(reader, signer, usage)?.filter(|public| public == name))
}
