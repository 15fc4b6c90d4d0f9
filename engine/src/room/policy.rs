//! Policy servers: which one a room uses, and whether it has signed an event.
//!
//! Invariant: a room that has named none pays for one look into a cache, by the root of its state. The engine never asks a policy
//! server: it returns what is to be signed ([`UnsignedEvent`], [`WantedSignature`]), and whoever drives it asks, also where it is
//! this server ([`crate::view::federation::PolicyOpinion`]).
//! Source: server-server API, "Policy Servers".

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use serde_json::Value;

use super::RoomCtx;
use crate::{
    core::{
        checked::CheckedPdu,
        event::{JsonObject, Pdu, SignatureError, decode_base64},
        version::RoomVersion,
    },
    error::{Error, Invalid, Result},
    store::{Reader, StorageError},
};

/// The type of the state event that names the policy server, and of the only events that are not asked about.
const KIND: &str = "m.room.policy";

/// The id of the key. Specification: it "is *always* `ed25519:policy_server`".
const KEY_ID: &str = "ed25519:policy_server";

/// What it weighs in the cache to know which event of a state names the policy server, if any does.
const WEIGHT: usize = 64;

/// The policy server that a room uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyServer {
    /// Its name.
    pub name: String,
    /// The public key that it signs events with. What the room says is none, no signature holds for.
    pub public_key: Vec<u8>,
}

/// An event of another server that a policy server has to sign.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedSignature {
    /// The event.
    pub event_id: Arc<str>,
    /// Who is to sign it.
    pub policy: PolicyServer,
}

/// An event that a room's policy server is asked to sign: one of this server before it is sent, or any by which it can be seen whether it
/// signs.
#[derive(Clone, Debug)]
pub struct UnsignedEvent {
    version: &'static RoomVersion,
    pdu: Arc<Pdu>,
    /// Who is to sign it.
    pub policy: PolicyServer,
}

/// What is known of the policy server's opinion of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recommendation {
    /// Its signature tells; the event waits for it.
    BySignature,
    /// It was asked, and has not signed.
    Missing,
    /// Another server has let the event into the room.
    NotNeeded,
}

impl PolicyServer {
    /// The one that the content of an `m.room.policy` names.
    fn named_by(content: &JsonObject) -> Option<Self> {
        let name = content.get("via")?.as_str()?.to_owned();
        let public_key = content.get("public_keys")?.get("ed25519")?.as_str()?;
        Some(Self { name, public_key: decode_base64(public_key).unwrap_or_default() })
    }

    /// Whether it has signed the event, by the key that the room says.
    fn has_signed(&self, version: &RoomVersion, pdu: &Pdu) -> Result<bool, StorageError> {
        match pdu.verify_signature(version, &self.name, KEY_ID, &self.public_key) {
            Ok(()) => Ok(true),
            Err(SignatureError::Missing | SignatureError::Wrong) => Ok(false),
            Err(SignatureError::Stored(_)) => {
                Err(StorageError::Corrupt(format!("event {} is not JSON", pdu.event_id)))
            }
        }
    }

    /// Whether it can be seen by the event whether it signs: it has signed it, and is asked about such.
    pub(crate) fn shows_by(&self, version: &RoomVersion, pdu: &Pdu) -> Result<bool, StorageError> {
        Ok(!is_exempt(pdu) && self.has_signed(version, pdu)?)
    }

    /// Whether it has to sign the event, and has not.
    fn lacks(&self, version: &RoomVersion, pdu: &Pdu) -> Result<bool, StorageError> {
        Ok(!is_exempt(pdu) && !self.has_signed(version, pdu)?)
    }

    /// The event with the signature in the policy server's answer.
    ///
    /// Errors: [`Invalid::Signature`] if it is not there or does not hold; [`Invalid::Event`] if it does not fit.
    fn signed(&self, version: &RoomVersion, pdu: &Pdu, answer: &JsonObject) -> Result<Pdu> {
        let unsigned = |why: &str| Invalid::Signature { what: "the policy server's answer", why: why.into() };
        let signature = answer.get(&self.name).and_then(|keys| keys.get(KEY_ID)).and_then(Value::as_str);
        let signature = signature.ok_or_else(|| unsigned("there is none by its policy key"))?;
        let pdu = pdu.clone().with_given_signature(version, &self.name, KEY_ID, signature.to_owned());
        let pdu = pdu.map_err(Invalid::Event)?;
        match self.has_signed(version, &pdu)? {
            true => Ok(pdu),
            false => Err(unsigned("it is not by the key that the room names").into()),
        }
    }

    /// An event of another server with the signature in the policy server's answer.
    ///
    /// Errors: [`Invalid::Signature`] if it is not there or does not hold; [`Invalid::Event`] if it does not fit.
    pub fn sign_checked(
        &self,
        version: &RoomVersion,
        event: &CheckedPdu,
        answer: &JsonObject,
    ) -> Result<Arc<CheckedPdu>> {
        let pdu = self.signed(version, event.pdu(), answer)?;
        Ok(Arc::new(CheckedPdu { pdu: Arc::new(pdu) }))
    }
}

impl UnsignedEvent {
    pub(crate) fn new(version: &'static RoomVersion, pdu: Arc<Pdu>, policy: PolicyServer) -> Self {
        Self { version, pdu, policy }
    }

    /// The event as it is to be signed.
    pub fn json(&self) -> &Bytes {
        &self.pdu.json
    }

    /// Who sends it.
    pub fn sender(&self) -> &str {
        &self.pdu.sender
    }

    /// The event with the signature in the policy server's answer.
    ///
    /// Errors: [`Invalid::Signature`] if it is not there or does not hold; [`Invalid::Event`] if it does not fit.
    pub fn signed(&self, answer: &JsonObject) -> Result<Arc<Pdu>> {
        Ok(Arc::new(self.policy.signed(self.version, &self.pdu, answer)?))
    }
}

/// What the room's policy server has to do with events that come together.
pub(crate) struct Recommendations<'a> {
    /// The one that the room uses, if it does.
    policy: Option<PolicyServer>,
    version: &'static RoomVersion,
    /// The events that it was asked to sign, and has not.
    refused: &'a BTreeSet<Arc<str>>,
}

impl<'a> Recommendations<'a> {
    /// Those by the room's current state: one look into a cache where it uses no policy server.
    pub fn of(
        reader: &Reader,
        room: &RoomCtx,
        refused: &'a BTreeSet<Arc<str>>,
    ) -> Result<Self, StorageError> {
        Ok(Self { policy: policy_server(reader, room)?, version: room.version, refused })
    }

    /// Whether the policy server has to sign the event, and has not.
    pub fn lacks(&self, pdu: &Pdu) -> Result<bool, StorageError> {
        self.policy.as_ref().map_or(Ok(false), |policy| policy.lacks(self.version, pdu))
    }

    /// Whether it was asked to, and has not.
    pub fn has_refused(&self, pdu: &Pdu) -> Result<bool, StorageError> {
        Ok(self.refused.contains(&pdu.event_id) && self.lacks(pdu)?)
    }

    /// What it is to be asked about the event, if it was not yet.
    pub fn wanted(&self, pdu: &Pdu) -> Result<Option<WantedSignature>, StorageError> {
        match &self.policy {
            Some(policy) if !self.refused.contains(&pdu.event_id) && policy.lacks(self.version, pdu)? => {
                Ok(Some(WantedSignature { event_id: pdu.event_id.clone(), policy: policy.clone() }))
            }
            _ => Ok(None),
        }
    }
}

/// The policy server that the room uses by its current state, if it does.
fn policy_server(reader: &Reader, room: &RoomCtx) -> Result<Option<PolicyServer>, StorageError> {
    let root = room.head.state;
    let found = match reader.shared.policy_events.get(&root) {
        Some(found) => *found,
        None => {
            let found = room.state(reader, KIND, "")?.map(|event| event.num);
            reader.shared.policy_events.insert(root, Arc::new(found), WEIGHT);
            found
        }
    };
    let Some(num) = found else { return Ok(None) };
    // What it says is not remembered: it may be redacted, or come whole after it was told pruned.
    let pdu = reader.event(num)?.pdu()?;
    let Some(policy) = PolicyServer::named_by(&pdu.content) else { return Ok(None) };
    // Specification: it "has at least one joined user in the room in *current state*".
    let mut is_there = reader.is_server_in_room(&policy.name, room.num)?;
    if !is_there
        && room.head.partial_state
        && let Some(server) = reader.text_num(&policy.name)?
    {
        is_there = reader.is_supposed(server, room.num)?;
    }
    Ok(is_there.then_some(policy))
}

/// Whether the room uses this server as its policy server, by the key that this server has.
pub(crate) fn is_own(reader: &Reader, room: &RoomCtx) -> Result<bool, StorageError> {
    let Some(key) = &reader.shared.policy_key else { return Ok(false) };
    let policy = policy_server(reader, room)?;
    Ok(policy.is_some_and(|policy| {
        policy.name == *reader.shared.server_name && policy.public_key == key.public_key()
    }))
}

/// Whether no policy server is asked about the event: it is how a room gets rid of one.
pub(crate) fn is_exempt(pdu: &Pdu) -> bool {
    pdu.is_state(KIND, "")
}

/// The policy server that has to sign the event and has not.
pub(crate) fn lacks_signature(
    reader: &Reader,
    room: &RoomCtx,
    pdu: &Pdu,
) -> Result<Option<PolicyServer>, StorageError> {
    let Some(policy) = policy_server(reader, room)? else { return Ok(None) };
    Ok(if policy.lacks(room.version, pdu)? { Some(policy) } else { None })
}

/// The event as one that has to be signed first, if it does.
pub(crate) fn unsigned(reader: &Reader, room: &RoomCtx, pdu: Arc<Pdu>) -> Result<Option<UnsignedEvent>> {
    let policy = lacks_signature(reader, room, &pdu)?;
    Ok(policy.map(|policy| UnsignedEvent::new(room.version, pdu, policy)))
}

/// Refuses an event of this server that the room's policy server has not signed.
///
/// Errors: [`Error::Unsigned`].
pub(crate) fn check_own(reader: &Reader, room: &RoomCtx, pdu: &Arc<Pdu>) -> Result<()> {
    match unsigned(reader, room, pdu.clone())? {
        Some(unsigned) => Err(Error::Unsigned(Box::new(unsigned))),
        None => Ok(()),
    }
}
