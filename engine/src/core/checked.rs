//! What an event must pass before any room is looked at: format, size, content hash, signatures.
//!
//! Invariant: a [`CheckedPdu`] is one that passed. Where only the content hash is wrong it is the redacted event, whose id
//! and signatures still hold. Source: server-server API, "Checks performed on receipt of a PDU", steps 1 to 3.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    event::{
        EventError, EventSignature, JsonObject, Pdu, redact, required_signatures, verify, verify_content_hash,
    },
    json::write_object,
    version::RoomVersion,
};

/// An event that is well-formed and signed by those who have to.
#[derive(Debug)]
pub struct CheckedPdu {
    pub(crate) pdu: Arc<Pdu>,
}

impl CheckedPdu {
    /// The event.
    pub fn pdu(&self) -> &Arc<Pdu> {
        &self.pdu
    }
}

/// Why an event is not even looked at. What is one of the specification's checks on receipt says which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum Refused {
    /// It violates the format or a limit of the room version.
    #[error("{0} (check 1 on receipt)")]
    Format(String),
    /// A signature that it needs is missing.
    #[error("it is not signed by {0} (check 2 on receipt)")]
    Unsigned(String),
    /// A signature does not verify.
    #[error("the signature of {0} is wrong (check 2 on receipt)")]
    Signature(String),
    /// The key was not valid when the event says it was sent.
    #[error("the key of {0} was not valid when it was signed (check 2 on receipt)")]
    KeyExpired(String),
    /// The only key that it is signed with is one that is never trusted.
    #[error("the key of {0} is never trusted")]
    KeyNeverTrusted(String),
    /// It is of another room than it was sent for.
    #[error("it is of another room")]
    OtherRoom,
    /// It would create a room that was created by another event.
    #[error("the room was created by another event")]
    SecondCreate,
    /// It creates a room of another version than this one is said to be of.
    #[error("the room was created with another version")]
    OtherVersion,
    /// It and others refer to each other in a circle.
    #[error("it refers to itself by way of others")]
    Circular,
    /// It is of a server that has no user in the room, which has taken as many events of such servers that it denies as it may.
    #[error("of servers that have no user in the room too much was denied that is kept")]
    Outsider,
    /// It claims to be of this room's past, and nothing here leads to it.
    #[error("nothing here follows it")]
    Unrelated,
}

/// A signing key that it takes to check an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MissingKey {
    /// Whose.
    pub server_name: String,
    /// Which.
    pub key_id: String,
}

/// What checking an event came to.
#[derive(Clone, Debug)]
pub enum PduCheck {
    /// It passed.
    Ready(Arc<CheckedPdu>),
    /// It did not.
    Refused {
        /// Its id, where it can be told.
        event_id: Option<Arc<str>>,
        /// Why.
        error: Refused,
    },
    /// It cannot be told without these keys, of which any one of each server is enough.
    MissingKeys(Vec<MissingKey>),
}

/// A server's signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The Ed25519 public key.
    pub public_key: Vec<u8>,
    /// Until when it counts, in milliseconds since the epoch.
    pub valid_until_ts: u64,
    /// Whether it is used no more, so that its time cannot be extended.
    pub is_old: bool,
}

/// Where keys come from.
pub trait SigningKeys {
    /// Why they cannot be read.
    type Error;

    /// Whether anything that the key signed counts.
    fn is_trusted(&self, server_name: &str, key_id: &str) -> bool;

    /// The key, if it is known.
    fn key(&self, server_name: &str, key_id: &str) -> Result<Option<KnownKey>, Self::Error>;
}

/// Checks one event.
///
/// # Errors
/// Those of reading keys.
pub fn check<K: SigningKeys>(
    version: &'static RoomVersion,
    json: &Bytes,
    keys: &K,
) -> Result<PduCheck, K::Error> {
    check_parsed(version, parse(version, json), keys)
}

/// Checks one event of a room's past, of which the specification wants no limit to the number of events that it names.
///
/// # Errors
/// Those of reading keys.
pub fn check_history<K: SigningKeys>(
    version: &'static RoomVersion,
    json: &Bytes,
    keys: &K,
) -> Result<PduCheck, K::Error> {
    check_parsed(version, or_redacted(version, Pdu::parse_history(version, json)), keys)
}

fn check_parsed<K: SigningKeys>(
    version: &'static RoomVersion,
    parsed: Result<Pdu, EventError>,
    keys: &K,
) -> Result<PduCheck, K::Error> {
    let malformed = |event_id: Option<Arc<str>>, error: &dyn std::error::Error| {
        Ok(PduCheck::Refused { event_id, error: Refused::Format(error.to_string()) })
    };
    let pdu = match parsed {
        Ok(pdu) => pdu,
        Err(error) => return malformed(None, &error),
    };
    let (signatures, signed) = match (pdu.signatures(), pdu.signed_bytes(version)) {
        (Ok(signatures), Ok(signed)) => (signatures, signed),
        (Err(error), _) | (_, Err(error)) => return malformed(Some(pdu.event_id), &error),
    };
    let mut missing = Vec::new();
    for server in required_signatures(version, &pdu) {
        match check_signature(version, &pdu, server, &signatures, &signed, keys)? {
            Signature::Good => {}
            Signature::Missing(keys) => missing.extend(keys),
            Signature::Bad(error) => {
                return Ok(PduCheck::Refused { event_id: Some(pdu.event_id.clone()), error });
            }
        }
    }
    if !missing.is_empty() {
        return Ok(PduCheck::MissingKeys(missing));
    }
    Ok(PduCheck::Ready(Arc::new(CheckedPdu { pdu: Arc::new(pdu) })))
}

/// Reads an event; where its content hash is wrong, what redaction leaves of it. Signatures are not looked at.
///
/// # Errors
/// The event violates the format or a limit of the room version.
pub fn parse(version: &RoomVersion, json: &Bytes) -> Result<Pdu, EventError> {
    or_redacted(version, Pdu::parse(version, json))
}

fn or_redacted(version: &RoomVersion, parsed: Result<Pdu, EventError>) -> Result<Pdu, EventError> {
    let pdu = parsed?;
    if verify_content_hash(&pdu)? {
        return Ok(pdu);
    }
    let object: JsonObject = serde_json::from_slice(&pdu.json).map_err(|_| EventError::Invalid("event"))?;
    let mut json = Vec::with_capacity(pdu.json.len());
    write_object(&mut json, &redact(version, &object));
    Pdu::parse_history(version, &json)
}

/// The ids of the keys with which `server` has signed an event, as far as its signatures hold; and the keys that it takes to
/// tell of the others.
///
/// # Errors
/// Those of reading keys.
pub fn signed_with<K: SigningKeys>(
    version: &'static RoomVersion,
    pdu: &Pdu,
    server: &str,
    keys: &K,
) -> Result<(Vec<String>, Vec<MissingKey>), K::Error> {
    let (mut good, mut missing) = (Vec::new(), Vec::new());
    let (Ok(signatures), Ok(signed)) = (pdu.signatures(), pdu.signed_bytes(version)) else {
        return Ok((good, missing));
    };
    for signature in signatures.iter().filter(|signature| signature.server == server) {
        match judge(version, pdu, signature, &signed, keys)? {
            Judged::Good => good.push(signature.key_id.clone()),
            Judged::Missing(key, _) => missing.push(key),
            Judged::Bad(_) => {}
        }
    }
    Ok((good, missing))
}

enum Signature {
    Good,
    Missing(Vec<MissingKey>),
    Bad(Refused),
}

/// One good signature of the server is enough; what it signed with is looked for among all that it has.
fn check_signature<K: SigningKeys>(
    version: &RoomVersion,
    pdu: &Pdu,
    server: &str,
    signatures: &[EventSignature],
    signed: &[u8],
    keys: &K,
) -> Result<Signature, K::Error> {
    let mut missing = Vec::new();
    let mut refused = Refused::Unsigned(server.to_owned());
    for signature in signatures.iter().filter(|signature| signature.server == server) {
        match judge(version, pdu, signature, signed, keys)? {
            Judged::Good => return Ok(Signature::Good),
            Judged::Missing(key, why) => {
                missing.push(key);
                refused = why.unwrap_or(refused);
            }
            Judged::Bad(why) => refused = why,
        }
    }
    Ok(if missing.is_empty() { Signature::Bad(refused) } else { Signature::Missing(missing) })
}

/// What is to be said of one signature.
enum Judged {
    Good,
    /// It cannot be told without this key; or, as far as the key is known, it does not count.
    Missing(MissingKey, Option<Refused>),
    Bad(Refused),
}

fn judge<K: SigningKeys>(
    version: &RoomVersion,
    pdu: &Pdu,
    EventSignature { server, key_id, signature }: &EventSignature,
    signed: &[u8],
    keys: &K,
) -> Result<Judged, K::Error> {
    let wanted = || MissingKey { server_name: server.clone(), key_id: key_id.clone() };
    if !keys.is_trusted(server, key_id) {
        return Ok(Judged::Bad(Refused::KeyNeverTrusted(server.clone())));
    }
    let Some(key) = keys.key(server, key_id)? else { return Ok(Judged::Missing(wanted(), None)) };
    // Since version 5 a key counts only for what was sent while it was valid.
    if version.enforce_key_validity && pdu.origin_server_ts > key.valid_until_ts {
        let expired = Refused::KeyExpired(server.clone());
        return Ok(if key.is_old { Judged::Bad(expired) } else { Judged::Missing(wanted(), Some(expired)) });
    }
    Ok(match verify(&key.public_key, signed, signature) {
        Ok(()) => Judged::Good,
        Err(_) => Judged::Bad(Refused::Signature(server.clone())),
    })
}
