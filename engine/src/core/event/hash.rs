//! Content hash, reference hash and event id.
//!
//! Specification: server-server API, "Calculating the content hash for an event" and "Calculating the reference hash
//! for an event"; "Event IDs" of room versions 1, 3 and 4.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::digest::{Context, SHA256, digest};

use super::{EventError, JsonObject, Pdu, redact};
use crate::core::json::{SpanError, members, string_value, write_members_without, write_object};
use crate::core::version::{EventIdFormat, RoomVersion};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The members that the content hash does not cover.
const NOT_IN_CONTENT_HASH: [&str; 3] = ["unsigned", "signatures", "hashes"];

/// What others send is decoded with or without padding and with stray bits in the last character, as the
/// specification's own signing key needs.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Unpadded standard Base64.
pub fn encode_base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// Decodes standard Base64, padded or not. `None` if it is not Base64.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    FORGIVING.decode(text).ok()
}

/// The content hash of an event: of all but `unsigned`, `signatures` and `hashes`.
pub fn content_hash(event: &JsonObject) -> Hash {
    let mut bytes = Vec::with_capacity(1024);
    write_members_without(&mut bytes, event, &NOT_IN_CONTENT_HASH);
    sha256(&[&bytes])
}

/// Whether the `hashes.sha256` of an event is its content hash. If not, the event is to be used redacted.
///
/// # Errors
/// The event's stored bytes are corrupt.
pub fn verify_content_hash(pdu: &Pdu) -> Result<bool, SpanError> {
    verify_content_hash_of_json(&pdu.json)
}

/// The same of the event in `json` (canonical bytes).
///
/// # Errors
/// The bytes are not a canonical object.
pub fn verify_content_hash_of_json(json: &[u8]) -> Result<bool, SpanError> {
    let mut context = Context::new(&SHA256);
    let mut claimed = None;
    let mut first = true;
    context.update(b"{");
    for member in members(json) {
        let member = member?;
        if member.key == b"hashes" {
            for hash in members(member.value) {
                let hash = hash?;
                if hash.key == b"sha256" {
                    claimed = string_value(hash.value).and_then(|text| decode_base64(&text));
                }
            }
        }
        if NOT_IN_CONTENT_HASH.iter().any(|name| name.as_bytes() == member.key) {
            continue;
        }
        context.update(if first { b"\"" } else { b",\"" });
        first = false;
        context.update(member.key);
        context.update(b"\":");
        context.update(member.value);
    }
    context.update(b"}");
    Ok(claimed.as_deref() == Some(context.finish().as_ref()))
}

/// The reference hash of an event: of its redacted form without `signatures`.
///
/// # Errors
/// `Stored` cannot happen for an object; it is returned rather than hidden.
pub fn reference_hash(version: &RoomVersion, event: &JsonObject) -> Result<Hash, EventError> {
    let mut bytes = Vec::with_capacity(1024);
    write_object(&mut bytes, event);
    Ok(reference_hash_of_json(version, &bytes)?)
}

/// The reference hash of the event in `json` (canonical bytes).
///
/// # Errors
/// The bytes are not a canonical object.
pub fn reference_hash_of_json(version: &RoomVersion, json: &[u8]) -> Result<Hash, SpanError> {
    let mut redacted = Vec::with_capacity(json.len());
    redact::write_redacted(version, json, &mut redacted)?;
    Ok(sha256(&[&redacted]))
}

/// The event id that a reference hash gives; `None` in room versions 1 and 2, where the event carries its own.
pub fn event_id(version: &RoomVersion, reference_hash: &Hash) -> Option<String> {
    let engine = match version.event_ids {
        EventIdFormat::Own => return None,
        EventIdFormat::HashStandard => &STANDARD_NO_PAD,
        EventIdFormat::HashUrlSafe => &URL_SAFE_NO_PAD,
    };
    // The sigil and 43 characters for 32 bytes.
    let mut id = String::with_capacity(44);
    id.push('$');
    engine.encode_string(reference_hash, &mut id);
    Some(id)
}

/// The SHA-256 hash of the parts, one behind the other.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let hash = match parts {
        [only] => digest(&SHA256, only),
        _ => {
            let mut context = Context::new(&SHA256);
            parts.iter().for_each(|part| context.update(part));
            context.finish()
        }
    };
    let mut out = Hash::default();
    out.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    out
}
