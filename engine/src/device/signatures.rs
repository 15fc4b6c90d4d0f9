//! Signatures on device keys and cross-signing keys, each a row of its own, so that those uploaded with a key and those
//! that came later are one thing.
//!
//! Invariant: who asks sees the signatures of a key's owner and their own, never those of a third user: who verified
//! whom is nobody else's business. Specification: "Key and signature security".

use std::collections::HashMap;

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

/// Stores a signature on the key `key` of `owner`. Answers whether it is new.
pub fn put(
    tx: &mut Tx,
    owner: UserNum,
    signer: UserNum,
    key: TextNum,
    signature: (&str, &str),
) -> Result<bool> {
    let row = (owner, signer, key, signature.0.to_owned());
    if tx.get(&schema::KEY_SIGNATURES, &row)?.is_some_and(|known| known == signature.1) {
        return Ok(false);
    }
    tx.put(&schema::KEY_SIGNATURES, &row, &signature.1.to_owned());
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
    let mut rows = Vec::new();
    tx.scan(&schema::KEY_SIGNATURES, &owner, Direction::Forward, |row, _| {
        if row.2 == key {
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
