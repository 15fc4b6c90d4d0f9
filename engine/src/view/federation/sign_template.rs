//! The joining side of a handshake: another server's template becomes an event of our user, and its signature is taken.
//!
//! Specification: server-server API, "Joining Rooms".

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    core::{
        event::{JsonObject, Pdu},
        version::RoomVersion,
    },
    error::{Invalid, Result},
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
    /// Errors: [`Invalid::Template`] when the template is for anything else than what was asked; [`Invalid::RoomVersion`];
    /// [`Invalid::Event`] when it breaks a limit; [`crate::Denied::OtherServer`] for a user who is not ours.
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

impl View for TakeSignature<'_> {
    /// Our event with that server's signatures, and nothing else of the answer. Whether they are good is told when the event
    /// is checked as any other.
    ///
    /// Errors: [`Invalid::Template`] when there are none; [`Invalid::Event`] when they are more than fits.
    type Output = Bytes;

    fn read(&self, _: &Reader) -> Result<Bytes> {
        let event_id = &self.event.event_id;
        let corrupt = |_| StorageError::Corrupt(format!("event {event_id} is not JSON"));
        let mut object: JsonObject = serde_json::from_slice(&self.event.json).map_err(corrupt)?;
        let theirs = self.answer.get("signatures").and_then(|signatures| signatures.get(self.server));
        let theirs = theirs.filter(|keys| keys.is_object()).ok_or(Invalid::Template("signatures"))?;
        if let Some(Value::Object(signatures)) = object.get_mut("signatures") {
            signatures.entry(self.server).or_insert_with(|| theirs.clone());
        }
        Ok(Pdu::from_object(self.event.version, object).map_err(Invalid::Event)?.json)
    }
}
