//! From bytes to a [`Pdu`]: the strict parse at the door, and the cheap one of what is already ours.
//!
//! Invariant: a `Pdu` from [`Pdu::parse`] has every required member with its right type, within every size limit.
//! Specification: client-server API, "Size limits"; "Event format" of each room version; appendices, identifiers.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::{JsonObject, Pdu, hash};
use crate::core::identifiers;
use crate::core::json::{
    INTEGER_MAX, JsonError, Limits, SpanError, Strictness, members, parse_object, string_value, write_object,
};
use crate::core::limits::LENIENT_DEPTH_MAX;
use crate::core::version::{EventIdFormat, RoomVersion};

pub use crate::core::limits::{
    AUTH_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_TEXT_BYTES_MAX, KEY_BYTES_MAX, PREV_EVENTS_MAX,
};

/// Why an event is not accepted. Except for `Stored`, its sender can act on each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum EventError {
    /// Not JSON, or not JSON that the room version allows.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A required member is missing.
    #[error("the event has no {0}")]
    Missing(&'static str),
    /// A member has the wrong type or an invalid value.
    #[error("the event's {0} is not valid")]
    Invalid(&'static str),
    /// A member that events of this room version do not have.
    #[error("an event of this kind and room version has no {0}")]
    Unexpected(&'static str),
    /// A member or the whole event is larger than allowed.
    #[error("the event's {what} has a size of {size}, more than the limit of {size_max}")]
    TooLarge {
        /// Which part of it.
        what: &'static str,
        /// Its size, in bytes or entries.
        size: usize,
        /// The limit.
        size_max: usize,
    },
    /// An event in our own store is corrupt: only the operator can act.
    #[error(transparent)]
    Stored(#[from] SpanError),
}

impl Pdu {
    /// Parses an event that comes from outside. Its id is computed where the room version says so; neither hash nor
    /// signatures are verified here.
    ///
    /// # Errors
    /// The event violates the format or a limit of the room version.
    pub fn parse(version: &RoomVersion, bytes: &[u8]) -> Result<Pdu, EventError> {
        Pdu::from_object(version, read_object(version, bytes)?)
    }

    /// As [`Pdu::parse`], of an event that may be from a time when as many events could be named as have room in one.
    /// Specification: server-server API, `GET /_matrix/federation/v1/backfill/{roomId}`.
    ///
    /// # Errors
    /// The event violates the format or another limit of the room version.
    pub fn parse_history(version: &RoomVersion, bytes: &[u8]) -> Result<Pdu, EventError> {
        read(version, read_object(version, bytes)?, References::Any)
    }

    /// As [`Pdu::parse`], of an object that was parsed with the limits of the room version.
    ///
    /// # Errors
    /// The event violates the format or a limit of the room version.
    pub fn from_object(version: &RoomVersion, object: JsonObject) -> Result<Pdu, EventError> {
        read(version, object, References::Limited)
    }

    /// Reads an event of our own store, where only events that passed [`Pdu::parse`] are. Nothing is hashed.
    ///
    /// # Errors
    /// The bytes are corrupt.
    pub fn from_stored(version: &RoomVersion, event_id: Arc<str>, json: Bytes) -> Result<Pdu, EventError> {
        let limits = Limits { bytes_max: EVENT_BYTES_MAX, strictness: Strictness::Lenient };
        let mut fields = JsonObject::new();
        for member in members(&json) {
            let member = member?;
            let name = match member.key {
                b"content" => "content",
                b"depth" => "depth",
                b"origin_server_ts" => "origin_server_ts",
                b"prev_events" => "prev_events",
                b"auth_events" => "auth_events",
                b"redacts" => "redacts",
                b"room_id" => "room_id",
                b"sender" => "sender",
                b"state_key" => "state_key",
                b"type" => "type",
                _ => continue,
            };
            let value = match string_value(member.value) {
                Some(text) => Value::String(text.into_owned()),
                None => crate::core::json::parse(member.value, limits)?,
            };
            fields.insert(name.to_owned(), value);
        }
        let content = match fields.remove("content") {
            Some(Value::Object(content)) => content,
            _ => return Err(EventError::Invalid("content")),
        };
        let kind = required_string(&fields, "type")?;
        let top_redacts = fields.get("redacts").and_then(Value::as_str);
        let redacts = redacts(version, kind, top_redacts, &content).map(Arc::from);
        Ok(Pdu {
            room_id: room_id(version, kind, &event_id, optional_string(&fields, "room_id")?)?,
            event_id,
            sender: required_string(&fields, "sender")?.into(),
            kind: kind.into(),
            state_key: optional_string(&fields, "state_key")?.map(Arc::from),
            prev_events: references(version, &fields, "prev_events", References::Any)?,
            auth_events: references(version, &fields, "auth_events", References::Any)?,
            depth: required_integer(&fields, "depth")?,
            origin_server_ts: required_integer(&fields, "origin_server_ts")?,
            redacts,
            content,
            json,
        })
    }
}

/// How many events an event may name.
#[derive(Clone, Copy)]
enum References {
    /// [`PREV_EVENTS_MAX`] and [`AUTH_EVENTS_MAX`].
    Limited,
    /// As many as have room in it.
    Any,
}

impl References {
    fn max(self, name: &str) -> usize {
        match (self, name) {
            (References::Any, _) => EVENT_BYTES_MAX,
            (References::Limited, "prev_events") => PREV_EVENTS_MAX,
            (References::Limited, _) => AUTH_EVENTS_MAX,
        }
    }
}

fn read_object(version: &RoomVersion, bytes: &[u8]) -> Result<JsonObject, EventError> {
    let limits = Limits { bytes_max: EVENT_TEXT_BYTES_MAX, strictness: strictness(version) };
    Ok(parse_object(bytes, limits)?)
}

fn read(version: &RoomVersion, mut object: JsonObject, limit: References) -> Result<Pdu, EventError> {
    object.remove("unsigned");
    let mut json = Vec::with_capacity(1024);
    write_object(&mut json, &object);
    check_size("JSON", json.len(), EVENT_BYTES_MAX)?;
    check_hashes_and_signatures(&object)?;

    let kind = required_string(&object, "type")?;
    let sender = required_string(&object, "sender")?;
    let state_key = optional_string(&object, "state_key")?;
    check_names(kind, sender, state_key)?;
    let event_id: Arc<str> = match version.event_ids {
        EventIdFormat::Own => {
            let event_id = required_string(&object, "event_id")?;
            check_event_id(version, event_id, "event_id")?;
            event_id.into()
        }
        _ if object.contains_key("event_id") => return Err(EventError::Unexpected("event_id")),
        _ => computed_id(version, &json)?,
    };
    let room_id = room_id(version, kind, &event_id, optional_string(&object, "room_id")?)?;
    let depth = required_integer(&object, "depth")?;
    if depth > depth_max(version) {
        return Err(EventError::Invalid("depth"));
    }
    let prev_events = references(version, &object, "prev_events", limit)?;
    let auth_events = references(version, &object, "auth_events", limit)?;
    let top_redacts = object.get("redacts").and_then(Value::as_str).map(Arc::<str>::from);
    let (kind, sender, state_key): (Arc<str>, Arc<str>, _) =
        (kind.into(), sender.into(), state_key.map(Arc::from));
    let origin_server_ts = required_integer(&object, "origin_server_ts")?;
    let content = match object.remove("content") {
        Some(Value::Object(content)) => content,
        Some(_) => return Err(EventError::Invalid("content")),
        None => return Err(EventError::Missing("content")),
    };
    let redacts = redacts(version, &kind, top_redacts.as_deref(), &content).map(Arc::from);
    Ok(Pdu {
        event_id,
        room_id,
        sender,
        kind,
        state_key,
        content,
        prev_events,
        auth_events,
        depth,
        origin_server_ts,
        redacts,
        json: Bytes::from(json),
    })
}

/// Which JSON the room version's events may be.
pub fn strictness(version: &RoomVersion) -> Strictness {
    if version.strict_canonical_json { Strictness::Strict } else { Strictness::Lenient }
}

/// The largest depth that an event of the room version may have; deeper events keep it.
pub fn depth_max(version: &RoomVersion) -> u64 {
    if version.strict_canonical_json { INTEGER_MAX.unsigned_abs() } else { LENIENT_DEPTH_MAX }
}

/// Checks `type`, `sender` and `state_key`: lengths and the sender's grammar.
pub(super) fn check_names(kind: &str, sender: &str, state_key: Option<&str>) -> Result<(), EventError> {
    check_size("type", kind.len(), KEY_BYTES_MAX)?;
    check_size("state_key", state_key.map_or(0, str::len), KEY_BYTES_MAX)?;
    check_size("sender", sender.len(), identifiers::IDENTIFIER_BYTES_MAX)?;
    if identifiers::is_user_id(sender) { Ok(()) } else { Err(EventError::Invalid("sender")) }
}

pub(super) fn check_size(what: &'static str, size: usize, size_max: usize) -> Result<(), EventError> {
    if size <= size_max { Ok(()) } else { Err(EventError::TooLarge { what, size, size_max }) }
}

/// Checks an event id for the format of the room version.
pub(super) fn check_event_id(version: &RoomVersion, id: &str, what: &'static str) -> Result<(), EventError> {
    check_size(what, id.len(), identifiers::IDENTIFIER_BYTES_MAX)?;
    let valid = match version.event_ids {
        EventIdFormat::Own => identifiers::is_event_id_with_server(id),
        EventIdFormat::HashStandard | EventIdFormat::HashUrlSafe => {
            identifiers::is_event_id_without_server(id)
        }
    };
    if valid { Ok(()) } else { Err(EventError::Invalid(what)) }
}

/// The room of an event: the one it names, or for the create event of room version 12 the one it makes.
pub(super) fn room_id(
    version: &RoomVersion,
    kind: &str,
    event_id: &str,
    named: Option<&str>,
) -> Result<Arc<str>, EventError> {
    if version.room_id_is_create_hash && kind == "m.room.create" {
        if named.is_some() {
            return Err(EventError::Unexpected("room_id"));
        }
        let opaque = event_id.strip_prefix('$').ok_or(EventError::Invalid("event_id"))?;
        return Ok(format!("!{opaque}").into());
    }
    let room_id = named.ok_or(EventError::Missing("room_id"))?;
    check_size("room_id", room_id.len(), identifiers::IDENTIFIER_BYTES_MAX)?;
    let valid = if version.room_id_is_create_hash {
        identifiers::is_room_id_without_server(room_id)
    } else {
        identifiers::is_room_id_with_server(room_id)
    };
    if valid { Ok(room_id.into()) } else { Err(EventError::Invalid("room_id")) }
}

fn computed_id(version: &RoomVersion, json: &[u8]) -> Result<Arc<str>, EventError> {
    let hash = hash::reference_hash_of_json(version, json)?;
    hash::event_id(version, &hash).map(Arc::from).ok_or(EventError::Missing("event_id"))
}

fn check_hashes_and_signatures(object: &JsonObject) -> Result<(), EventError> {
    let hashes = object.get("hashes").ok_or(EventError::Missing("hashes"))?;
    if !hashes.get("sha256").is_some_and(Value::is_string) {
        return Err(EventError::Invalid("hashes"));
    }
    let signatures = object.get("signatures").ok_or(EventError::Missing("signatures"))?;
    let of_server = |keys: &Value| keys.as_object().is_some_and(|keys| keys.values().all(Value::is_string));
    let valid = signatures.as_object().is_some_and(|servers| servers.values().all(of_server));
    if valid { Ok(()) } else { Err(EventError::Invalid("signatures")) }
}

/// What a redaction redacts: the event named at the `top` level, or from room version 11 on in the content. Of other
/// events the member means nothing.
pub(super) fn redacts<'a>(
    version: &RoomVersion,
    kind: &str,
    top: Option<&'a str>,
    content: &'a JsonObject,
) -> Option<&'a str> {
    match kind {
        "m.room.redaction" if version.redaction_v11 => content.get("redacts").and_then(Value::as_str),
        "m.room.redaction" => top,
        _ => None,
    }
}

fn required_string<'a>(object: &'a JsonObject, name: &'static str) -> Result<&'a str, EventError> {
    optional_string(object, name)?.ok_or(EventError::Missing(name))
}

fn optional_string<'a>(object: &'a JsonObject, name: &'static str) -> Result<Option<&'a str>, EventError> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(EventError::Invalid(name)),
    }
}

/// An integer that is not negative.
fn required_integer(object: &JsonObject, name: &'static str) -> Result<u64, EventError> {
    object.get(name).ok_or(EventError::Missing(name))?.as_u64().ok_or(EventError::Invalid(name))
}

/// The ids in `prev_events` or `auth_events`: a list of ids, or of `[id, hashes]` pairs in room versions 1 and 2.
fn references(
    version: &RoomVersion,
    object: &JsonObject,
    name: &'static str,
    limit: References,
) -> Result<Vec<Arc<str>>, EventError> {
    let list = object.get(name).ok_or(EventError::Missing(name))?;
    let list = list.as_array().ok_or(EventError::Invalid(name))?;
    check_size(name, list.len(), limit.max(name))?;
    list.iter()
        .map(|reference| {
            let id = match (version.event_ids, reference) {
                (EventIdFormat::Own, Value::Array(pair)) => match pair.as_slice() {
                    [Value::String(id), Value::Object(_)] => id,
                    _ => return Err(EventError::Invalid(name)),
                },
                (EventIdFormat::HashStandard | EventIdFormat::HashUrlSafe, Value::String(id)) => id,
                _ => return Err(EventError::Invalid(name)),
            };
            check_event_id(version, id, name)?;
            Ok(Arc::from(id.as_str()))
        })
        .collect()
}
