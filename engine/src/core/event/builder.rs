//! Local events: assembled, hashed and signed.
//!
//! This is the server's hot path. The canonical event is written once, in three parts around `hashes` and
//! `signatures`; the content hash runs over the parts, and the redacted form is written once for both the signature
//! and the reference hash. Nothing is parsed or cloned.
//!
//! Invariant: what is built passes `Pdu::parse` of the same room version.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::format::{
    AUTH_EVENTS_MAX, EVENT_BYTES_MAX, PREV_EVENTS_MAX, check_event_id, check_names, check_size, depth_max,
    redacts, room_id, strictness,
};
use super::hash::{self, Hash, encode_base64, sha256};
use super::sign::KeyPair;
use super::{EventError, JsonObject, Pdu, redact};
use crate::core::identifiers::{is_event_id, is_server_name};
use crate::core::json::{INTEGER_MAX, JsonError, check, write_object, write_string, write_unsigned};
use crate::core::version::{EventIdFormat, RoomVersion};

/// A reference to another event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventReference {
    /// The event's id.
    pub event_id: Arc<str>,
    /// Its reference hash, which references of room versions 1 and 2 carry, as far as it is known: Synapse leaves it out where
    /// it has made the other event a moment ago. Not used in later versions.
    pub reference_hash: Option<Hash>,
}

impl From<Arc<str>> for EventReference {
    fn from(event_id: Arc<str>) -> EventReference {
        EventReference { event_id, reference_hash: None }
    }
}

/// An event that is to be made here.
#[derive(Clone, Debug)]
pub struct EventBuilder {
    /// The room; `None` exactly for the create event of room version 12.
    pub room_id: Option<Arc<str>>,
    /// The user who sends it.
    pub sender: Arc<str>,
    /// The event's type.
    pub kind: Arc<str>,
    /// Present exactly for state events.
    pub state_key: Option<Arc<str>>,
    /// The content.
    pub content: JsonObject,
    /// For an `m.room.redaction`, the event to redact; it is put where the room version wants it.
    pub redacts: Option<Arc<str>>,
    /// The events it follows, at most `PREV_EVENTS_MAX`.
    pub prev_events: Vec<EventReference>,
    /// The events that allow it, at most `AUTH_EVENTS_MAX`.
    pub auth_events: Vec<EventReference>,
    /// One more than the greatest depth of `prev_events`; cut to the largest that is allowed.
    pub depth: u64,
    /// Milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// The opaque part of the event id, unique and random: needed in room versions 1 and 2, else not used.
    pub event_id_localpart: Option<String>,
}

impl EventBuilder {
    /// Makes the event: hashed, and signed by `server` with `key`.
    ///
    /// # Errors
    /// The event would violate the format or a limit of the room version.
    pub fn build(mut self, version: &RoomVersion, server: &str, key: &KeyPair) -> Result<Pdu, EventError> {
        if version.redaction_v11
            && let Some(redacts) = self.redacts.as_deref()
        {
            self.content.insert("redacts".to_owned(), Value::String(redacts.to_owned()));
        }
        self.check(version, server)?;
        self.depth = self.depth.min(depth_max(version));
        let own_id = self.own_id(version, server)?;
        if let Some(own_id) = &own_id {
            check_event_id(version, own_id, "event_id")?;
        }

        let mut json = Vec::with_capacity(1024);
        let content = self.write_head(version, own_id.as_deref(), &mut json)?;
        let head_end = json.len();
        let mut tail = Vec::with_capacity(512);
        self.write_middle(version, &mut tail)?;
        let middle_end = tail.len();
        self.write_end(&mut tail);
        let (middle, end) = tail.split_at(middle_end);

        // The head opens the object and is never empty, so each later part starts with its comma.
        let content_hash = encode_base64(&sha256(&[&json, middle, end]));
        let hashes = [",\"hashes\":{\"sha256\":\"", &content_hash, "\"}"].concat();

        let mut redacted = Vec::with_capacity(json.len() + tail.len() + hashes.len());
        let content_json = json.get(content.clone()).unwrap_or_default();
        redacted.extend_from_slice(json.get(..content.start).unwrap_or_default());
        redact::write_redacted_content(version, &self.kind, content_json, &mut redacted)?;
        redacted.extend_from_slice(json.get(content.end..head_end).unwrap_or_default());
        redacted.extend_from_slice(hashes.as_bytes());
        self.write_redacted_middle(version, middle, &mut redacted)?;
        redacted.extend_from_slice(end);

        let signature = key.sign(&redacted);
        let event_id: Arc<str> = match own_id {
            Some(own_id) => own_id.into(),
            None => {
                hash::event_id(version, &sha256(&[&redacted])).ok_or(EventError::Missing("event_id"))?.into()
            }
        };
        json.extend_from_slice(hashes.as_bytes());
        json.extend_from_slice(middle);
        json.extend_from_slice(b",\"signatures\":{");
        write_string(&mut json, server);
        json.extend_from_slice(b":{");
        write_string(&mut json, key.key_id());
        json.push(b':');
        write_string(&mut json, &signature);
        json.extend_from_slice(b"}}");
        json.extend_from_slice(end);
        check_size("JSON", json.len(), EVENT_BYTES_MAX)?;
        self.into_pdu(version, event_id, json)
    }

    fn check(&self, version: &RoomVersion, server: &str) -> Result<(), EventError> {
        check_names(&self.kind, &self.sender, self.state_key.as_deref())?;
        if !is_server_name(server) {
            return Err(EventError::Invalid("origin"));
        }
        check_size("prev_events", self.prev_events.len(), PREV_EVENTS_MAX)?;
        check_size("auth_events", self.auth_events.len(), AUTH_EVENTS_MAX)?;
        // Inside the content, two objects surround each value.
        self.content.values().try_for_each(|value| check(value, strictness(version), 2))?;
        if self.origin_server_ts > INTEGER_MAX.unsigned_abs() {
            return Err(EventError::Json(JsonError::IntegerRange { at: 0 }));
        }
        match &self.redacts {
            Some(_) if &*self.kind != "m.room.redaction" => Err(EventError::Unexpected("redacts")),
            // As the parser takes it: of any version's form, for it may be the id of an event that is not here.
            Some(redacts) if !is_event_id(redacts) => Err(EventError::Invalid("redacts")),
            _ => Ok(()),
        }
    }

    /// The event id in room versions 1 and 2.
    fn own_id(&self, version: &RoomVersion, server: &str) -> Result<Option<String>, EventError> {
        if version.event_ids != EventIdFormat::Own {
            return Ok(None);
        }
        let localpart = self.event_id_localpart.as_deref().ok_or(EventError::Missing("event_id"))?;
        Ok(Some(format!("${localpart}:{server}")))
    }

    /// `auth_events`, `content`, `depth`, `event_id`. Returns where the content stands.
    fn write_head(
        &self,
        version: &RoomVersion,
        own_id: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<std::ops::Range<usize>, EventError> {
        out.extend_from_slice(b"{\"auth_events\":");
        write_references(version, "auth_events", &self.auth_events, out)?;
        out.extend_from_slice(b",\"content\":");
        let start = out.len();
        write_object(out, &self.content);
        let content = start..out.len();
        out.extend_from_slice(b",\"depth\":");
        write_unsigned(out, self.depth);
        if let Some(own_id) = own_id {
            out.extend_from_slice(b",\"event_id\":");
            write_string(out, own_id);
        }
        Ok(content)
    }

    /// `origin_server_ts`, `prev_events`, `redacts`, `room_id`, `sender`.
    fn write_middle(&self, version: &RoomVersion, out: &mut Vec<u8>) -> Result<(), EventError> {
        self.write_middle_start(version, out)?;
        if let Some(redacts) = self.redacts.as_deref().filter(|_| !version.redaction_v11) {
            out.extend_from_slice(b",\"redacts\":");
            write_string(out, redacts);
        }
        self.write_middle_end(out);
        Ok(())
    }

    fn write_middle_start(&self, version: &RoomVersion, out: &mut Vec<u8>) -> Result<(), EventError> {
        out.extend_from_slice(b",\"origin_server_ts\":");
        write_unsigned(out, self.origin_server_ts);
        out.extend_from_slice(b",\"prev_events\":");
        write_references(version, "prev_events", &self.prev_events, out)
    }

    fn write_middle_end(&self, out: &mut Vec<u8>) {
        if let Some(room_id) = self.room_id.as_deref() {
            out.extend_from_slice(b",\"room_id\":");
            write_string(out, room_id);
        }
        out.extend_from_slice(b",\"sender\":");
        write_string(out, &self.sender);
    }

    /// The middle without a top-level `redacts`, which no redaction keeps.
    fn write_redacted_middle(
        &self,
        version: &RoomVersion,
        middle: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EventError> {
        if self.redacts.is_none() || version.redaction_v11 {
            out.extend_from_slice(middle);
            return Ok(());
        }
        self.write_middle_start(version, out)?;
        self.write_middle_end(out);
        Ok(())
    }

    /// `state_key`, `type` and the closing brace.
    fn write_end(&self, out: &mut Vec<u8>) {
        if let Some(state_key) = self.state_key.as_deref() {
            out.extend_from_slice(b",\"state_key\":");
            write_string(out, state_key);
        }
        out.extend_from_slice(b",\"type\":");
        write_string(out, &self.kind);
        out.push(b'}');
    }

    fn into_pdu(self, version: &RoomVersion, event_id: Arc<str>, json: Vec<u8>) -> Result<Pdu, EventError> {
        let ids =
            |references: Vec<EventReference>| references.into_iter().map(|other| other.event_id).collect();
        let redacts = redacts(version, &self.kind, self.redacts.as_deref(), &self.content);
        let redacts = redacts.map(Arc::from);
        Ok(Pdu {
            redacts,
            room_id: room_id(version, &self.kind, &event_id, self.room_id.as_deref())?,
            event_id,
            sender: self.sender,
            kind: self.kind,
            state_key: self.state_key,
            content: self.content,
            prev_events: ids(self.prev_events),
            auth_events: ids(self.auth_events),
            depth: self.depth,
            origin_server_ts: self.origin_server_ts,
            json: Bytes::from(json),
        })
    }
}

/// Writes ids, or in room versions 1 and 2 `[id, {"sha256": hash}]` pairs.
fn write_references(
    version: &RoomVersion,
    what: &'static str,
    references: &[EventReference],
    out: &mut Vec<u8>,
) -> Result<(), EventError> {
    out.push(b'[');
    for (index, reference) in references.iter().enumerate() {
        check_event_id(version, &reference.event_id, what)?;
        if index > 0 {
            out.push(b',');
        }
        if version.event_ids != EventIdFormat::Own {
            write_string(out, &reference.event_id);
            continue;
        }
        out.push(b'[');
        write_string(out, &reference.event_id);
        out.extend_from_slice(b",{");
        if let Some(hash) = &reference.reference_hash {
            out.extend_from_slice(b"\"sha256\":");
            write_string(out, &encode_base64(hash));
        }
        out.extend_from_slice(b"}]");
    }
    out.push(b']');
    Ok(())
}
