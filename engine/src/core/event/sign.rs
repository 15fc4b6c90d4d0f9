//! Ed25519 signatures of JSON objects, events and federation requests.
//!
//! Invariant: an event's signatures are over its redacted form, so they hold for the redacted event too.
//! Specification: appendices, "Signing JSON"; server-server API, "Signing Events" and "Request Authentication".
//! Not here: which keys belong to a server and until when they are valid (`remote`).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Map, Value};

use super::format::{EVENT_BYTES_MAX, check_size, strictness};
use super::hash::{content_hash, decode_base64, encode_base64};
use super::{EventError, JsonObject, Pdu, redact};
use crate::core::identifiers;
use crate::core::json::{
    Limits, SpanError, members, parse_object, string_value, write_members_without, write_object, write_string,
};
use crate::core::version::{EventIdFormat, RoomVersion};

/// The algorithm part of every key id.
const ALGORITHM: &str = "ed25519:";

/// The members of an object that its signature does not cover.
const NOT_SIGNED: [&str; 2] = ["signatures", "unsigned"];

/// A server's signing key.
pub struct KeyPair {
    key_id: Arc<str>,
    pair: Ed25519KeyPair,
}

/// A key could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum KeyError {
    /// A seed has 32 bytes.
    #[error("a signing key's seed must be 32 bytes")]
    Seed,
    /// A key's version is one or more of `a-z A-Z 0-9 _`.
    #[error("a signing key's version must be letters, digits and underscores")]
    Version,
}

/// Why a signature does not hold. The signing server can act on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum SignatureError {
    /// There is no signature of this server with this key.
    #[error("the signature is missing")]
    Missing,
    /// The signature is not Base64, or not one of this key over this object.
    #[error("the signature is wrong")]
    Wrong,
    /// The event's stored bytes are corrupt.
    #[error(transparent)]
    Stored(#[from] SpanError),
}

impl KeyPair {
    /// The key of a seed of 32 secret (random) bytes; its id is `ed25519:` and `key_version`.
    ///
    /// # Errors
    /// The seed has another length, or the version another character than the specification allows.
    pub fn from_seed(key_version: &str, seed: &[u8]) -> Result<KeyPair, KeyError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if key_version.is_empty() || !key_version.bytes().all(allowed) {
            return Err(KeyError::Version);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Seed)?;
        Ok(KeyPair { key_id: format!("{ALGORITHM}{key_version}").into(), pair })
    }

    /// The key's id, `ed25519:version`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key's 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Signs `message`; the signature in unpadded Base64.
    pub fn sign(&self, message: &[u8]) -> String {
        encode_base64(self.pair.sign(message).as_ref())
    }
}

impl fmt::Debug for KeyPair {
    /// Without the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyPair").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Verifies a signature in Base64 over `message`.
///
/// # Errors
/// `Wrong`.
pub fn verify(public_key: &[u8], message: &[u8], signature: &str) -> Result<(), SignatureError> {
    let signature = decode_base64(signature).ok_or(SignatureError::Wrong)?;
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(message, &signature)
        .map_err(|_| SignatureError::Wrong)
}

/// Signs an object as `server`: adds the signature to its `signatures`, where others stay.
pub fn sign_json(object: &mut JsonObject, server: &str, key: &KeyPair) {
    let signature = key.sign(&signed_bytes(object));
    insert_signature(object, server, key.key_id(), signature);
}

/// Verifies the signature of `server` with the key `key_id` on an object.
///
/// # Errors
/// `Missing` or `Wrong`.
pub fn verify_json(
    object: &JsonObject,
    server: &str,
    key_id: &str,
    public_key: &[u8],
) -> Result<(), SignatureError> {
    let signatures = object.get("signatures").and_then(|signatures| signatures.get(server));
    let signature = signatures.and_then(|keys| keys.get(key_id)).and_then(Value::as_str);
    verify(public_key, &signed_bytes(object), signature.ok_or(SignatureError::Missing)?)
}

/// Adds the content hash to an event and signs it as `server`.
pub fn hash_and_sign_event(version: &RoomVersion, event: &mut JsonObject, server: &str, key: &KeyPair) {
    let hash = Value::String(encode_base64(&content_hash(event)));
    event.insert("hashes".to_owned(), Value::Object(Map::from_iter([("sha256".to_owned(), hash)])));
    let redacted = redact::redact(version, event);
    insert_signature(event, server, key.key_id(), key.sign(&signed_bytes(&redacted)));
}

/// One signature on an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSignature {
    /// The server that made it.
    pub server: String,
    /// The key that it was made with.
    pub key_id: String,
    /// The signature in Base64.
    pub signature: String,
}

impl Pdu {
    /// All signatures on the event.
    ///
    /// # Errors
    /// The event's stored bytes are corrupt.
    pub fn signatures(&self) -> Result<Vec<EventSignature>, SpanError> {
        let mut signatures = Vec::new();
        let corrupt = || SpanError { at: 0 };
        for member in members(&self.json) {
            let member = member?;
            if member.key != b"signatures" {
                continue;
            }
            for server in members(member.value) {
                let server = server?;
                for key in members(server.value) {
                    let key = key?;
                    signatures.push(EventSignature {
                        server: unescape(server.key).ok_or_else(corrupt)?,
                        key_id: unescape(key.key).ok_or_else(corrupt)?,
                        signature: string_value(key.value).ok_or_else(corrupt)?.into_owned(),
                    });
                }
            }
        }
        Ok(signatures)
    }

    /// The bytes that signatures on this event are over.
    ///
    /// # Errors
    /// The event's stored bytes are corrupt.
    pub fn signed_bytes(&self, version: &RoomVersion) -> Result<Vec<u8>, SpanError> {
        let mut bytes = Vec::with_capacity(self.json.len());
        redact::write_redacted(version, &self.json, &mut bytes)?;
        Ok(bytes)
    }

    /// Verifies the signature of `server` with the key `key_id` on this event.
    ///
    /// # Errors
    /// `Missing` or `Wrong`; `Stored` if the bytes are corrupt.
    pub fn verify_signature(
        &self,
        version: &RoomVersion,
        server: &str,
        key_id: &str,
        public_key: &[u8],
    ) -> Result<(), SignatureError> {
        let signatures = self.signatures()?;
        let of_key = |signature: &&EventSignature| signature.server == server && signature.key_id == key_id;
        let found = signatures.iter().find(of_key).ok_or(SignatureError::Missing)?;
        verify(public_key, &self.signed_bytes(version)?, &found.signature)
    }

    /// This event with a signature of `server` added, as for an invite or a restricted join. Its id stays.
    ///
    /// # Errors
    /// The event grows beyond its size limit, or its stored bytes are corrupt.
    pub fn with_signature(
        self,
        version: &RoomVersion,
        server: &str,
        key: &KeyPair,
    ) -> Result<Pdu, EventError> {
        let signature = key.sign(&self.signed_bytes(version)?);
        self.with_given_signature(version, server, key.key_id(), signature)
    }

    /// This event with a signature added that `server` has made, whether it holds or not. Its id stays.
    ///
    /// # Errors
    /// The event grows beyond its size limit, or its stored bytes are corrupt.
    pub fn with_given_signature(
        mut self,
        version: &RoomVersion,
        server: &str,
        key_id: &str,
        signature: String,
    ) -> Result<Pdu, EventError> {
        let limits = Limits { bytes_max: EVENT_BYTES_MAX, strictness: strictness(version) };
        let mut object = parse_object(&self.json, limits)?;
        insert_signature(&mut object, server, key_id, signature);
        let mut json = Vec::with_capacity(self.json.len() + 256);
        write_object(&mut json, &object);
        check_size("JSON", json.len(), EVENT_BYTES_MAX)?;
        self.json = Bytes::from(json);
        Ok(self)
    }

    /// This copy of an event with the signatures of another one in place of its own: both are over what redaction keeps.
    ///
    /// # Errors
    /// The event grows beyond its size limit, or stored bytes are corrupt.
    pub fn with_signatures_of(&self, other: &Pdu) -> Result<Pdu, EventError> {
        let mut signatures: &[u8] = b"{}";
        for member in members(&other.json) {
            let member = member?;
            if member.key == b"signatures" {
                signatures = member.value;
            }
        }
        let mut json = Vec::with_capacity(self.json.len().saturating_add(signatures.len()));
        json.push(b'{');
        for member in members(&self.json) {
            let member = member?;
            json.extend_from_slice(if json.len() > 1 { b",\"" } else { b"\"" });
            json.extend_from_slice(member.key);
            json.extend_from_slice(b"\":");
            json.extend_from_slice(if member.key == b"signatures" { signatures } else { member.value });
        }
        json.push(b'}');
        check_size("JSON", json.len(), EVENT_BYTES_MAX)?;
        Ok(Pdu { json: Bytes::from(json), ..self.clone() })
    }
}

/// The servers whose signatures an event needs, each once: the sender's, unless it is an invite by a third party
/// invite; in room versions 1 and 2 the one in the event id; and in rooms with restricted joins the one that let the
/// user in. Specification: "Validating hashes and signatures on received events" and rule 4.2/5.2 of authorisation.
pub fn required_signatures<'a>(version: &RoomVersion, pdu: &'a Pdu) -> Vec<&'a str> {
    let is_member = &*pdu.kind == "m.room.member";
    let by_third_party =
        is_member && pdu.membership() == Some("invite") && pdu.content.contains_key("third_party_invite");
    let sender = (!by_third_party).then_some(&*pdu.sender);
    let event_id = (version.event_ids == EventIdFormat::Own).then_some(&*pdu.event_id);
    let authorising_user = (version.restricted && is_member && pdu.membership() == Some("join"))
        .then(|| pdu.content.get("join_authorised_via_users_server").and_then(Value::as_str))
        .flatten();
    let mut servers = Vec::new();
    for server in
        [sender, event_id, authorising_user].into_iter().flatten().filter_map(identifiers::server_name)
    {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// A federation request, as it is signed.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The HTTP method in upper case.
    pub method: &'a str,
    /// Path and query, as sent.
    pub uri: &'a str,
    /// The server that asks.
    pub origin: &'a str,
    /// The server that is asked.
    pub destination: &'a str,
    /// The JSON body in its canonical encoding, if there is one.
    pub content: Option<&'a [u8]>,
}

impl SignedRequest<'_> {
    /// The canonical JSON that is signed.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.content.map_or(0, <[u8]>::len));
        out.push(b'{');
        if let Some(content) = self.content {
            out.extend_from_slice(b"\"content\":");
            out.extend_from_slice(content);
            out.push(b',');
        }
        out.extend_from_slice(b"\"destination\":");
        write_string(&mut out, self.destination);
        out.extend_from_slice(b",\"method\":");
        write_string(&mut out, self.method);
        out.extend_from_slice(b",\"origin\":");
        write_string(&mut out, self.origin);
        out.extend_from_slice(b",\"uri\":");
        write_string(&mut out, self.uri);
        out.push(b'}');
        out
    }

    /// The value of the `Authorization` header that `origin` sends.
    pub fn authorization(&self, key: &KeyPair) -> String {
        let signature = key.sign(&self.signed_bytes());
        let (origin, destination, key_id) = (self.origin, self.destination, key.key_id());
        format!(
            "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{key_id}\",sig=\"{signature}\""
        )
    }

    /// Verifies the signature from such a header.
    ///
    /// # Errors
    /// `Wrong`.
    pub fn verify(&self, public_key: &[u8], signature: &str) -> Result<(), SignatureError> {
        verify(public_key, &self.signed_bytes(), signature)
    }
}

fn signed_bytes(object: &JsonObject) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    write_members_without(&mut bytes, object, &NOT_SIGNED);
    bytes
}

/// Puts a signature in its place; whatever stands in the way that is not an object is replaced.
fn insert_signature(object: &mut JsonObject, server: &str, key_id: &str, signature: String) {
    let mut signatures = take_object(object, "signatures");
    let mut of_server = take_object(&mut signatures, server);
    of_server.insert(key_id.to_owned(), Value::String(signature));
    signatures.insert(server.to_owned(), Value::Object(of_server));
    object.insert("signatures".to_owned(), Value::Object(signatures));
}

fn take_object(object: &mut JsonObject, name: &str) -> JsonObject {
    match object.remove(name) {
        Some(Value::Object(inner)) => inner,
        _ => JsonObject::new(),
    }
}

/// A key of a stored object with its escapes undone.
fn unescape(key: &[u8]) -> Option<String> {
    let quoted = [b"\"", key, b"\""].concat();
    string_value(&quoted).map(|text| text.into_owned())
}
