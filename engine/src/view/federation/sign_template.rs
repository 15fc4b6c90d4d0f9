//! The joining side of a handshake: another server's template becomes an event of our user, and its signature is taken.
//!
//! Specification: server-server API, "Joining Rooms".

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    core::{
        checked::{MissingKey, signed_with},
        event::{JsonObject, Pdu},
        version::RoomVersion,
    },
    error::{Invalid, Result},
    remote::ServerKeys,
    room::{
        handshake::{Asked, Handshake, sign_template},
        membership,
    },
    store::{Reader, StorageError},
    view::View,
};

/// A template that another server gave, to be made into our user's event.
pub struct SignTemplate<'a> {
    /// The room that was asked for.
    pub room_id: &'a str,
    /// Our user.
    pub user_id: &'a str,
    /// What was asked for.
    pub handshake: Handshake,
    /// The server that was asked.
    pub resident: &'a str,
    /// `room_version` of its answer.
    pub room_version: Option<&'a str>,
    /// `event` of its answer.
    pub template: &'a JsonObject,
    /// What the user gives as the reason.
    pub reason: Option<&'a str>,
}

/// An event that this server has made and not stored.
#[derive(Clone, Debug)]
pub struct SignedEvent {
    /// The room's version.
    pub version: &'static RoomVersion,
    /// The event's id.
    pub event_id: Arc<str>,
    /// The event, hashed and signed.
    pub json: Bytes,
}

impl View for SignTemplate<'_> {
    /// Errors: [`Invalid::Template`] when the template is for anything else than what was asked, or for a leave of another room
    /// version than the invite or knock that it ends; [`Invalid::RoomVersion`]; [`Invalid::Event`] when it breaks a limit;
    /// [`crate::Denied::OtherServer`] for a user who is not ours.
    type Output = SignedEvent;

    fn read(&self, reader: &Reader) -> Result<SignedEvent> {
        membership::check_user_id("user_id", self.user_id)?;
        membership::check_local(reader, self.user_id)?;
        let content = membership::content(reader, self.user_id, self.handshake.membership(), self.reason)?;
        let asked = Asked {
            room_id: self.room_id,
            user_id: self.user_id,
            handshake: self.handshake,
            resident: self.resident,
        };
        let (version, pdu) = sign_template(reader, &asked, self.room_version, self.template, content)?;
        Ok(SignedEvent { version, event_id: pdu.event_id, json: pdu.json })
    }
}

/// An event of ours that another server had to sign, too, and the event that it answered with.
pub struct TakeSignature<'a> {
    /// Our event.
    pub event: &'a SignedEvent,
    /// `event` of the answer.
    pub answer: &'a JsonObject,
    /// The server that signed.
    pub server: &'a str,
}

/// An event that another server had to sign, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenSignature {
    /// Our event with that server's signatures, and nothing else of its answer.
    Signed(Bytes),
    /// Whether it has signed cannot be told without one of these keys.
    MissingKeys(Vec<MissingKey>),
}

impl View for TakeSignature<'_> {
    /// What does not hold of the server's signatures is left out.
    ///
    /// Errors: [`Invalid::Template`] when none holds.
    type Output = TakenSignature;

    fn read(&self, reader: &Reader) -> Result<TakenSignature> {
        let SignedEvent { version, event_id, json } = self.event;
        let refused = || Invalid::Template("signatures");
        let theirs = self.answer.get("signatures").and_then(|signatures| signatures.get(self.server));
        let theirs = theirs.and_then(Value::as_object).ok_or_else(refused)?;
        let corrupt = |_| StorageError::Corrupt(format!("event {event_id} is not JSON"));
        let object: JsonObject = serde_json::from_slice(json).map_err(corrupt)?;
        // All are looked at together, so that an answer cannot have more of them than fit.
        let all = with_signatures(object.clone(), self.server, theirs.clone());
        let all = Pdu::from_object(version, all).map_err(|_| refused())?;
        let (good, missing) = signed_with(version, &all, self.server, &ServerKeys(reader))?;
        let good: JsonObject =
            theirs.clone().into_iter().filter(|(key_id, _)| good.contains(key_id)).collect();
        if good.is_empty() {
            return if missing.is_empty() {
                Err(refused().into())
            } else {
                Ok(TakenSignature::MissingKeys(missing))
            };
        }
        let signed = with_signatures(object, self.server, good);
        Ok(TakenSignature::Signed(Pdu::from_object(version, signed).map_err(Invalid::Event)?.json))
    }
}

/// The event with more signatures of a server. Those that it has stay: a policy server's are by another key.
fn with_signatures(mut event: JsonObject, server: &str, theirs: JsonObject) -> JsonObject {
    if let Some(Value::Object(signatures)) = event.get_mut("signatures")
        && let Value::Object(of_server) = signatures.entry(server).or_insert_with(|| JsonObject::new().into())
    {
        for (key_id, signature) in theirs {
            of_server.entry(key_id).or_insert(signature);
        }
    }
    event
}
