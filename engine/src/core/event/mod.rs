//! Events (PDUs) of every room version: what an event is once it has passed the strict parse at the door.
//!
//! Invariant: a [`Pdu`] has passed the format and size checks of its room version, and `json` is its canonical form.
//! Not here: whether it is allowed (`core::auth`), where it is stored (`room`).

mod builder;
mod format;
mod hash;
mod redact;
mod render;
mod sign;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

pub use builder::{EventBuilder, EventReference};
pub use format::{
    AUTH_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_TEXT_BYTES_MAX, EventError, KEY_BYTES_MAX, PREV_EVENTS_MAX,
    depth_max, strictness,
};
pub use hash::{
    Hash, content_hash, decode_base64, encode_base64, event_id, reference_hash, reference_hash_of_json,
    sha256, verify_content_hash, verify_content_hash_of_json,
};
pub use redact::{redact, redact_content, write_redacted, write_redacted_content};
pub use render::{ClientFormat, StoredEvent, write_client_event};
pub use sign::{
    EventSignature, KeyError, KeyPair, SignatureError, SignedRequest, hash_and_sign_event,
    required_signatures, sign_json, verify, verify_json,
};

/// A JSON object; keys are kept sorted by code point, as canonical JSON wants them.
pub type JsonObject = Map<String, Value>;

/// Whether an object that stands for an event of a room is stripped: it has nothing that only a whole event has.
pub fn is_stripped(event: &JsonObject) -> bool {
    !["auth_events", "hashes", "prev_events", "signatures"].into_iter().any(|name| event.contains_key(name))
}

/// One event of a room, parsed and checked for the format of its room version.
///
/// Specification: "Persistent Data Units (PDUs)" of the server-server API and "Event format" of each room version.
#[derive(Clone, Debug)]
pub struct Pdu {
    /// The event's id; computed from its reference hash from room version 3 on.
    pub event_id: Arc<str>,
    /// The room; for the create event of room version 12 it is made from the event's own id.
    pub room_id: Arc<str>,
    /// The user id of the sender.
    pub sender: Arc<str>,
    /// The event's type (`type` in JSON).
    pub kind: Arc<str>,
    /// Present exactly for state events.
    pub state_key: Option<Arc<str>>,
    /// The content, as sent.
    pub content: JsonObject,
    /// Ids of the events this one follows.
    pub prev_events: Vec<Arc<str>>,
    /// Ids of the events that allow this one.
    pub auth_events: Vec<Arc<str>>,
    /// Distance from the create event, as claimed by the sender's server.
    pub depth: u64,
    /// Milliseconds since the Unix epoch, as claimed by the sender's server.
    pub origin_server_ts: u64,
    /// The event that an `m.room.redaction` redacts: top level before room version 11, in the content since.
    pub redacts: Option<Arc<str>>,
    /// The whole event in canonical JSON, with hashes and signatures, and without `unsigned`.
    /// In room versions 1 and 2 with its `event_id`.
    pub json: Bytes,
}

impl Pdu {
    /// Whether this is the state event for (`kind`, `state_key`).
    pub fn is_state(&self, kind: &str, state_key: &str) -> bool {
        &*self.kind == kind && self.state_key.as_deref() == Some(state_key)
    }

    /// The `membership` of an `m.room.member` event's content, if it is a string.
    pub fn membership(&self) -> Option<&str> {
        self.content.get("membership").and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests;
