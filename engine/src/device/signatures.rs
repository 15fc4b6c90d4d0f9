//! Signatures on device keys and cross-signing keys, each a row of its own, so that those uploaded with a key and those
//! that came later are one thing.
//!
//! Invariant: who asks sees the signatures of a key's owner and their own, never those of a third user: who verified
//! whom is nobody else's business. Specification: "Key and signature security".

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::{KEY_NAME_BYTES_MAX, parameter};
use crate::{
    core::{
        event::JsonObject,
        json::{self, splice},
        num::{TextNum, UserNum},
    },
    error::{Invalid, Result},
    store::{Direction, Reader, Tx, schema},
};

/// The most signatures of one user on one key: one by each of their devices, for users with very many devices.
pub const SIGNATURES_MAX: usize = 1000;

/// The longest signature in bytes. Ed25519 signatures have 86; others, of future algorithms, are larger.
pub const SIGNATURE_BYTES_MAX: usize = 8192;

/// The most bytes of one user's signatures on a cross-signing key, ids included: twelve of the largest signatures, or as many of
/// today's as there may be.
pub const ON_KEY_BYTES_MAX: usize = 112 * 1024;

/// The most bytes of its user's signatures on a device, ids included: its own, that of the self-signing key and one to spare, each as
/// large as any may be, or some 180 of today's. They are not verified, and whoever asks for the keys, or follows the user, is told them
/// all: with the largest keys the hundred devices of a transaction make six MiB, which leaves room for fifty events.
pub const ON_DEVICE_BYTES_MAX: usize = 3 * (SIGNATURE_BYTES_MAX + KEY_NAME_BYTES_MAX);

/// The signatures of `signer` in a signed object: the ids of the signing keys, and the signatures.
///
/// Errors: `signatures` is not a map of users to maps of key ids to texts, or something in it is too long.
pub fn by<'a>(object: &'a JsonObject, signer: &str) -> Result<Vec<(&'a str, &'a str)>> {
    const WHAT: &str = "signatures";
    let Some(all) = object.get(WHAT) else { return Ok(Vec::new()) };
    let all = all.as_object().ok_or_else(|| parameter(WHAT, "must be an object"))?;
    let mut found = Vec::new();
    for (user_id, keys) in all {
        let keys = keys.as_object().ok_or_else(|| parameter(WHAT, "must hold an object for each user"))?;
        if keys.len() > SIGNATURES_MAX {
            return Err(Invalid::TooLarge { what: "signatures of a user", max: SIGNATURES_MAX }.into());
        }
        for (key_id, signature) in keys {
            let signature = signature.as_str().ok_or_else(|| parameter(WHAT, "must be texts"))?;
            if key_id.len() > KEY_NAME_BYTES_MAX || signature.len() > SIGNATURE_BYTES_MAX {
                return Err(parameter(WHAT, "a key id or signature is too long"));
            }
            if user_id == signer {
                found.push((key_id.as_str(), signature));
            }
        }
    }
    Ok(found)
}

/// Looks whether one user may have these signatures on one key, which may have `bytes_max`.
///
/// Errors: they are too many, or too large together.
pub fn check_limits<'a>(
    signatures: impl IntoIterator<Item = (&'a str, &'a str)>,
    bytes_max: usize,
) -> Result<()> {
    let (mut count, mut bytes) = (0, 0);
    for (key_id, signature) in signatures {
        count += 1;
        bytes += key_id.len() + signature.len();
    }
    let too_large = |what, max| Err(Invalid::TooLarge { what, max }.into());
    if count > SIGNATURES_MAX {
        return too_large("signatures of a user on a key", SIGNATURES_MAX);
    }
    if bytes > bytes_max {
        return too_large("bytes of a user's signatures on a key", bytes_max);
    }
    Ok(())
}

/// Stores signatures of `signer` on the key `key` of `owner`, which may have `bytes_max`. Answers whether any of them is new.
///
/// Errors: with those that are known they would be more than one user may have on a key; nothing is stored then.
pub fn put(
    tx: &mut Tx,
    owner: UserNum,
    signer: UserNum,
    key: TextNum,
    signatures: &[(&str, &str)],
    bytes_max: usize,
) -> Result<bool> {
    let known = of(tx, owner, signer, key)?;
    let mut all: HashMap<&str, &str> =
        known.iter().map(|(key_id, signature)| (key_id.as_str(), signature.as_str())).collect();
    let mut new = Vec::new();
    for &(key_id, signature) in signatures {
        if all.insert(key_id, signature) != Some(signature) {
            new.push((key_id, signature));
        }
    }
    if new.is_empty() {
        return Ok(false);
    }
    check_limits(all, bytes_max)?;
    for (key_id, signature) in new {
        tx.put(&schema::KEY_SIGNATURES, &(owner, signer, key, key_id.to_owned()), &signature.to_owned());
    }
    Ok(true)
}

/// The signatures of `signer` on the key `key` of `owner`: ids of the signing keys, and signatures. O(result).
pub fn of(reader: &Reader, owner: UserNum, signer: UserNum, key: TextNum) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    reader.scan(
        &schema::KEY_SIGNATURES,
        &(owner, signer, key),
        Direction::Forward,
        |(_, _, _, key_id), signature| {
            found.push((key_id, signature));
            true
        },
    )?;
    Ok(found)
}

/// Removes all signatures on the key `key` of `owner`. O(signatures on the owner's keys).
pub fn forget(tx: &mut Tx, owner: UserNum, key: TextNum) -> Result<()> {
    forget_all(tx, owner, &BTreeSet::from([key]))
}

/// The same of several keys at once, which costs no more.
pub fn forget_all(tx: &mut Tx, owner: UserNum, keys: &BTreeSet<TextNum>) -> Result<()> {
    let mut rows = Vec::new();
    if keys.is_empty() {
        return Ok(());
    }
    tx.scan(&schema::KEY_SIGNATURES, &owner, Direction::Forward, |row, _| {
        if keys.contains(&row.2) {
            rows.push(row);
        }
        true
    })?;
    for row in rows {
        tx.delete(&schema::KEY_SIGNATURES, &row);
    }
    Ok(())
}

/// The signatures on one key: signer, id of the signing key, signature; those of one signer together.
pub type OnKey = Vec<(UserNum, String, String)>;

/// All signatures on the keys of `owner` that `asker` may see, by key. O(result).
pub fn visible(reader: &Reader, owner: UserNum, asker: Option<UserNum>) -> Result<HashMap<TextNum, OnKey>> {
    let mut found: HashMap<TextNum, OnKey> = HashMap::new();
    let other = asker.filter(|asker| *asker != owner);
    for signer in [Some(owner), other].into_iter().flatten() {
        let prefix = (owner, signer);
        reader.scan(
            &schema::KEY_SIGNATURES,
            &prefix,
            Direction::Forward,
            |(_, _, key, key_id), signature| {
                found.entry(key).or_default().push((signer, key_id, signature));
                true
            },
        )?;
    }
    Ok(found)
}

/// Appends a stored key with its signatures (no `signatures` at all where `None` is given) and `unsigned` if given, as one
/// JSON object.
pub fn write_signed(
    reader: &Reader,
    out: &mut Vec<u8>,
    key: &[u8],
    signatures: Option<&OnKey>,
    unsigned: Option<&Value>,
) -> Result<()> {
    // What is stored is an object of ours without white space; it is left open for what is added.
    out.extend_from_slice(key.strip_suffix(b"}").unwrap_or(key));
    if let Some(signatures) = signatures {
        splice::member(out, "signatures");
        out.push(b'{');
        let mut last = None;
        for (signer, key_id, signature) in signatures {
            if last != Some(*signer) {
                if last.is_some() {
                    out.push(b'}');
                }
                splice::member(out, &reader.user_id(*signer)?);
                out.push(b'{');
                last = Some(*signer);
            }
            splice::string_member(out, key_id, signature);
        }
        out.extend_from_slice(if last.is_some() { b"}}" } else { b"}" });
    }
    if let Some(unsigned) = unsigned {
        splice::member(out, "unsigned");
        json::write_canonical(out, unsigned);
    }
    out.push(b'}');
    Ok(())
}
