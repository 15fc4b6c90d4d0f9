//! Invites by third-party identifier: whether the signature that an invited user presents is of a key that the
//! room's `m.room.third_party_invite` names.
//!
//! Comments number the rules as room version 11 does (rule 4.4.1). Not here: asking `key_validity_url`, which the
//! rules leave out and which would need the network.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;

use super::AuthState;
use super::denied::Reason;
use super::rules::allow_if;
use crate::core::event::{JsonObject, Pdu};
use crate::core::json::write_members_without;

/// How many pairs of a signature and a key are tried. An identity server gives one signature and two keys; events
/// of 64 KiB each could hold about 600 of both, whose 360,000 pairs at 50 µs would take 18 s. This takes 13 ms.
const PAIRS_MAX: usize = 256;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Rules 4.4.1.2 to 4.4.1.8, for the `invite` in the content of `event` that invites `target`.
pub(super) fn check(event: &Pdu, target: &str, invite: &Value, state: &impl AuthState) -> Result<(), Reason> {
    // 4.4.1.2
    let signed = invite.get("signed").and_then(Value::as_object).ok_or(Reason::ThirdPartySigned)?;
    // 4.4.1.3
    let mxid = signed.get("mxid").and_then(Value::as_str).ok_or(Reason::ThirdPartyFormat)?;
    let token = signed.get("token").and_then(Value::as_str).ok_or(Reason::ThirdPartyFormat)?;
    // 4.4.1.4
    if mxid != target {
        return Err(Reason::ThirdPartyUser);
    }
    // 4.4.1.5
    let invitation = state.get("m.room.third_party_invite", token).ok_or(Reason::ThirdPartyToken)?;
    // 4.4.1.6
    if event.sender != invitation.sender {
        return Err(Reason::ThirdPartySender);
    }
    // 4.4.1.7 and 4.4.1.8
    allow_if(is_signed(signed, &invitation.content), Reason::ThirdPartySignature)
}

/// Whether any signature of `signed` is of any key of `invitation`.
fn is_signed(signed: &JsonObject, invitation: &JsonObject) -> bool {
    let message = message(signed);
    let keys: Vec<Vec<u8>> = public_keys(invitation).filter_map(decode).take(PAIRS_MAX).collect();
    signatures(signed)
        .filter_map(decode)
        .flat_map(|signature| keys.iter().map(move |key| (signature.clone(), key)))
        .take(PAIRS_MAX)
        .any(|(signature, key)| UnparsedPublicKey::new(&ED25519, key).verify(&message, &signature).is_ok())
}

/// What was signed: the object in canonical JSON without `signatures` and `unsigned`.
fn message(signed: &JsonObject) -> Vec<u8> {
    let mut message = Vec::new();
    write_members_without(&mut message, signed, &["signatures", "unsigned"]);
    message
}

/// The Ed25519 signatures of all entities.
fn signatures(signed: &JsonObject) -> impl Iterator<Item = &str> {
    let entities = signed.get("signatures").and_then(Value::as_object).into_iter().flatten();
    entities
        .filter_map(|(_, signatures)| signatures.as_object())
        .flatten()
        .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
        .filter_map(|(_, signature)| signature.as_str())
}

/// `public_key`, and `public_key` of each of `public_keys`.
fn public_keys(invitation: &JsonObject) -> impl Iterator<Item = &str> {
    let others = invitation.get("public_keys").and_then(Value::as_array).into_iter().flatten();
    let others = others.filter_map(|key| key.get("public_key"));
    invitation.get("public_key").into_iter().chain(others).filter_map(Value::as_str)
}

/// Base64 in either alphabet, padded or not.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}
