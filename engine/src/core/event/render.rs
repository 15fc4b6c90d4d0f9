//! The formats in which clients get events, spliced from stored bytes: nothing is parsed or serialised again.
//!
//! Invariant: on an error nothing was appended.
//! Specification: client-server API, "Room event format"; "Event format" of room version 11, "Moving the `redacts`
//! property": servers show it both at the top level and in the content, whatever the room version; `event_format` of a
//! filter, whose `federation` is the event as it was received, where nothing may be moved because servers have signed it.
//! Not here: what goes into `unsigned`; the caller gives it as JSON.

use super::Pdu;
use crate::core::json::{Member, SpanError, members, write_string};

/// Which members of an event a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFormat {
    /// As in `/sync`: the answer's place tells the room.
    Sync,
    /// As in `/messages` and `/event`: with `room_id`.
    Room,
    /// Stripped state: `sender`, `type`, `state_key`, `content`.
    Stripped,
    /// The whole event as servers give it to one another, with `event_id` also where its id is the hash of it.
    Federation,
}

/// An event as stored, and what its bytes do not always tell.
#[derive(Clone, Copy, Debug)]
pub struct StoredEvent<'a> {
    /// The event's id.
    pub event_id: &'a str,
    /// The room's id.
    pub room_id: &'a str,
    /// The event in canonical JSON.
    pub json: &'a [u8],
}

impl<'a> From<&'a Pdu> for StoredEvent<'a> {
    fn from(pdu: &'a Pdu) -> StoredEvent<'a> {
        StoredEvent { event_id: &pdu.event_id, room_id: &pdu.room_id, json: &pdu.json }
    }
}

/// Appends `event` in `format`, with `unsigned` (a JSON object) where it is given.
///
/// # Errors
/// The stored bytes are not a canonical event: its operator can act.
pub fn write_client_event(
    out: &mut Vec<u8>,
    event: StoredEvent<'_>,
    format: ClientFormat,
    unsigned: Option<&[u8]>,
) -> Result<(), SpanError> {
    let parts = Parts::find(event.json)?;
    let content = parts.content.ok_or(SpanError { at: 0 })?;
    let sender = parts.sender.ok_or(SpanError { at: 0 })?;
    let kind = parts.kind.ok_or(SpanError { at: 0 })?;
    let timestamp = parts.origin_server_ts.ok_or(SpanError { at: 0 })?;
    if format == ClientFormat::Federation {
        write_whole_event(out, event, unsigned);
        return Ok(());
    }
    let redacts = Redacts::find(&parts, kind, content)?;

    out.reserve(event.json.len() + unsigned.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"content\":");
    match redacts {
        Redacts::AddToContent(target) => {
            // The content is `{}` or `{…}`, found so by the scan for its own `redacts`.
            out.extend_from_slice(b"{\"redacts\":");
            out.extend_from_slice(target);
            if content != b"{}" {
                out.push(b',');
            }
            out.extend_from_slice(content.get(1..).unwrap_or_default());
        }
        Redacts::None | Redacts::AddToTop(_) | Redacts::Both(_) => out.extend_from_slice(content),
    }
    if format != ClientFormat::Stripped {
        out.extend_from_slice(b",\"event_id\":");
        write_string(out, event.event_id);
        write_member(out, b"origin_server_ts", timestamp);
        if let Some(target) = redacts.target() {
            write_member(out, b"redacts", target);
        }
    }
    if format == ClientFormat::Room {
        out.extend_from_slice(b",\"room_id\":");
        write_string(out, event.room_id);
    }
    write_member(out, b"sender", sender);
    if let Some(state_key) = parts.state_key {
        write_member(out, b"state_key", state_key);
    }
    write_member(out, b"type", kind);
    if let Some(unsigned) = unsigned {
        write_member(out, b"unsigned", unsigned);
    }
    out.push(b'}');
    Ok(())
}

/// Appends all of an event that [`Parts::find`] has found sound. What it says of its own id and `unsigned` makes room for
/// what this server says.
fn write_whole_event(out: &mut Vec<u8>, event: StoredEvent<'_>, unsigned: Option<&[u8]>) {
    out.reserve(event.json.len() + unsigned.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"event_id\":");
    write_string(out, event.event_id);
    for Member { key, value, .. } in members(event.json).flatten() {
        if !matches!(key, b"event_id" | b"unsigned") {
            write_member(out, key, value);
        }
    }
    if let Some(unsigned) = unsigned {
        write_member(out, b"unsigned", unsigned);
    }
    out.push(b'}');
}

fn write_member(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
    out.extend_from_slice(value);
}

/// The members that clients see, as they stand in the stored bytes.
#[derive(Default)]
struct Parts<'a> {
    content: Option<&'a [u8]>,
    origin_server_ts: Option<&'a [u8]>,
    redacts: Option<&'a [u8]>,
    sender: Option<&'a [u8]>,
    state_key: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn find(json: &'a [u8]) -> Result<Parts<'a>, SpanError> {
        let mut parts = Parts::default();
        for member in members(json) {
            let Member { key, value, start } = member?;
            match key {
                b"content" if value.first() != Some(&b'{') => return Err(SpanError { at: start }),
                b"content" => parts.content = Some(value),
                b"origin_server_ts" => parts.origin_server_ts = Some(value),
                b"redacts" => parts.redacts = Some(value),
                b"sender" => parts.sender = Some(value),
                b"state_key" => parts.state_key = Some(value),
                b"type" => parts.kind = Some(value),
                _ => {}
            }
        }
        Ok(parts)
    }
}

/// Where a redaction names its target, as the JSON of the target.
#[derive(Clone, Copy)]
enum Redacts<'a> {
    None,
    AddToTop(&'a [u8]),
    AddToContent(&'a [u8]),
    Both(&'a [u8]),
}

impl<'a> Redacts<'a> {
    fn find(parts: &Parts<'a>, kind: &[u8], content: &'a [u8]) -> Result<Redacts<'a>, SpanError> {
        if kind != b"\"m.room.redaction\"" {
            return Ok(Redacts::None);
        }
        let mut inner = None;
        for member in members(content) {
            let member = member?;
            if member.key == b"redacts" {
                inner = Some(member.value);
            }
        }
        Ok(match (parts.redacts, inner) {
            (None, None) => Redacts::None,
            (None, Some(inner)) => Redacts::AddToTop(inner),
            (Some(top), None) => Redacts::AddToContent(top),
            (Some(top), Some(_)) => Redacts::Both(top),
        })
    }

    /// What is shown at the top level.
    fn target(self) -> Option<&'a [u8]> {
        match self {
            Redacts::None => None,
            Redacts::AddToTop(target) | Redacts::AddToContent(target) | Redacts::Both(target) => Some(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::json::canonical;

    fn rendered(event: &Value, format: ClientFormat, unsigned: Option<&[u8]>) -> Value {
        let json = canonical(event);
        let stored = StoredEvent { event_id: "$e", room_id: "!r", json: &json };
        let mut out = b"before".to_vec();
        write_client_event(&mut out, stored, format, unsigned).unwrap();
        serde_json::from_slice(out.strip_prefix(b"before").unwrap()).unwrap()
    }

    fn message() -> Value {
        json!({"type": "m.room.message", "sender": "@a:b", "room_id": "!r", "content": {"body": "\"}{\n"},
            "origin_server_ts": 7, "depth": 3, "prev_events": [], "auth_events": [], "event_id": "$e", "extra": 1,
            "hashes": {"sha256": "x"}, "signatures": {"b": {"ed25519:1": "y"}}, "redacts": "$ignored"})
    }

    #[test]
    fn each_format_has_its_members() {
        let mut expected = json!({"type": "m.room.message", "sender": "@a:b", "content": {"body": "\"}{\n"},
            "origin_server_ts": 7, "event_id": "$e"});
        assert_eq!(rendered(&message(), ClientFormat::Sync, None), expected);
        expected["unsigned"] = json!({"age": 1});
        assert_eq!(rendered(&message(), ClientFormat::Sync, Some(b"{\"age\":1}")), expected);
        expected["room_id"] = json!("!r");
        assert_eq!(rendered(&message(), ClientFormat::Room, Some(b"{\"age\":1}")), expected);
        let mut state = message();
        state["state_key"] = json!("");
        let expected = json!({"type": "m.room.message", "sender": "@a:b", "content": {"body": "\"}{\n"},
            "state_key": ""});
        assert_eq!(rendered(&state, ClientFormat::Stripped, None), expected);
    }

    #[test]
    fn redactions_show_their_target_in_both_places() {
        let mut redaction = message();
        redaction["type"] = json!("m.room.redaction");
        for (top, content) in [
            (Some("$t"), json!({})),
            (Some("$t"), json!({"reason": "spam"})),
            (None, json!({"reason": "spam", "redacts": "$t"})),
            (Some("$t"), json!({"redacts": "$t"})),
        ] {
            redaction["content"] = content;
            match top {
                Some(top) => redaction["redacts"] = json!(top),
                None => drop(redaction.as_object_mut().unwrap().remove("redacts")),
            }
            let shown = rendered(&redaction, ClientFormat::Room, None);
            assert_eq!((&shown["redacts"], &shown["content"]["redacts"]), (&json!("$t"), &json!("$t")));
            assert_eq!(shown["content"].get("reason"), redaction["content"].get("reason"));
        }
        redaction["redacts"] = json!("$t");
        redaction["content"] = json!({});
        let stripped = rendered(&redaction, ClientFormat::Stripped, None);
        assert_eq!(stripped["content"], json!({"redacts": "$t"}));
        assert!(stripped.get("redacts").is_none());
    }

    #[test]
    fn the_format_of_federation_is_the_whole_event() {
        let mut redaction = message();
        redaction["type"] = json!("m.room.redaction");
        redaction["unsigned"] = json!({"age": 9, "secret": true});
        let mut expected = redaction.clone();
        expected.as_object_mut().unwrap().remove("unsigned");
        // Of room versions 1 and 2, which name their id, and of later ones, which do not.
        assert_eq!(rendered(&redaction, ClientFormat::Federation, None), expected);
        redaction.as_object_mut().unwrap().remove("event_id");
        expected["unsigned"] = json!({"age": 1});
        assert_eq!(rendered(&redaction, ClientFormat::Federation, Some(b"{\"age\":1}")), expected);
    }

    #[test]
    fn corrupt_bytes_are_errors_and_append_nothing() {
        for json in
            ["", "{}", r#"{"content":1,"origin_server_ts":1,"sender":"","type":""}"#, r#"{"content":{}"#]
        {
            for format in [ClientFormat::Room, ClientFormat::Federation] {
                let mut out = Vec::new();
                let stored = StoredEvent { event_id: "$e", room_id: "!r", json: json.as_bytes() };
                assert!(write_client_event(&mut out, stored, format, None).is_err(), "{json}");
                assert!(out.is_empty());
            }
        }
    }
}
