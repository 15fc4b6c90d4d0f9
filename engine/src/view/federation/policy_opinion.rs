//! What this server says of events as the policy server of their rooms.
//!
//! Specification: server-server API, `POST /_matrix/policy/v1/sign`.

use serde_json::Value;

use crate::{
    core::{
        event::{EVENT_TEXT_BYTES_MAX, EventError, JsonObject, Pdu, redact_content, verify_content_hash},
        json::{Limits, Strictness, parse_object},
        version::RoomVersion,
    },
    error::{Error, Invalid, Result, What},
    room::{
        RoomCtx, policy,
        policy_lists::{self, PolicyRefusal},
        servers::server_allowed,
    },
    store::Reader,
    view::View,
};

/// The room of an event that another server has this one sign as a policy server.
pub struct ProtectedRoom<'a> {
    /// The event as JSON, of which nothing is known.
    pub event: &'a [u8],
    /// Who asks.
    pub server: &'a str,
}

impl View for ProtectedRoom<'_> {
    /// The room's version, by which the event is to be checked.
    ///
    /// Errors: [`Invalid::Event`] if it names no room; [`What::Room`] not found, if this server is not the policy server of the room;
    /// [`crate::Denied::ServerAcl`].
    type Output = &'static RoomVersion;

    fn read(&self, reader: &Reader) -> Result<&'static RoomVersion> {
        let room = room_of(reader, self.event)?;
        if !policy::is_own(reader, &room)? {
            return Err(Error::NotFound(What::Room));
        }
        server_allowed(reader, &room, self.server)?;
        Ok(room.version)
    }
}

/// An event that this server is to sign as the policy server of its room, which it is known to be. Whether those have signed it who
/// have to is not looked at: without their signatures this server's is worth nothing.
pub struct PolicyOpinion<'a> {
    /// The event as JSON.
    pub event: &'a [u8],
}

/// What comes of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It is recommended: this server's signature, as it is answered.
    Recommended(JsonObject),
    /// It is not.
    Refused(PolicyRefusal),
}

impl View for PolicyOpinion<'_> {
    /// Errors: [`Invalid::Event`] if it is malformed, or its content is not that which was hashed; [`What::Room`] not found, also if this
    /// server is no policy server.
    type Output = Opinion;

    fn read(&self, reader: &Reader) -> Result<Opinion> {
        let Some(key) = &reader.shared.policy_key else { return Err(Error::NotFound(What::Room)) };
        let room = room_of(reader, self.event)?;
        // It may be of a time when more events could be named than today. Who has to keep to that looks at it.
        let pdu = Pdu::parse_history(room.version, self.event).map_err(Invalid::Event)?;
        // The signature is over what redaction keeps, and holds for whatever content has that hash. A redacted event may be told without any.
        if !verify_content_hash(&pdu).map_err(|error| Invalid::Event(error.into()))?
            && redact_content(room.version, &pdu.kind, &pdu.content) != pdu.content
        {
            return Err(Invalid::Event(EventError::Invalid("content hash")).into());
        }
        if policy::is_exempt(&pdu) {
            return Ok(Opinion::Refused(PolicyRefusal::NamesPolicyServer));
        }
        if let Some(refusal) = policy_lists::refusal(reader, &pdu)? {
            return Ok(Opinion::Refused(refusal));
        }
        let signed = pdu.signed_bytes(room.version).map_err(|error| Invalid::Event(error.into()))?;
        let signature = Value::String(key.sign(&signed));
        let keys = JsonObject::from_iter([(key.key_id().to_owned(), signature)]);
        let server = reader.shared.server_name.to_string();
        Ok(Opinion::Recommended(JsonObject::from_iter([(server, Value::Object(keys))])))
    }
}

/// The room that an event is of, by which it is to be read.
fn room_of(reader: &Reader, event: &[u8]) -> Result<RoomCtx> {
    let limits = Limits { bytes_max: EVENT_TEXT_BYTES_MAX, strictness: Strictness::Lenient };
    let object = parse_object(event, limits).map_err(|error| Invalid::Event(error.into()))?;
    if let Some(room_id) = object.get("room_id").and_then(Value::as_str) {
        return RoomCtx::load(reader, room_id);
    }
    // Since version 12 a room is called after the event that creates it, which names none.
    let version = object.get("content").and_then(|content| content.get("room_version"));
    let version = version.and_then(Value::as_str).and_then(RoomVersion::get);
    let version = version.filter(|version| version.room_id_is_create_hash);
    let version = version.ok_or(Invalid::Event(EventError::Missing("room_id")))?;
    RoomCtx::load(reader, &Pdu::parse_history(version, event).map_err(Invalid::Event)?.room_id)
}
