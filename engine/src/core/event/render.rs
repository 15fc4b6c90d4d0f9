//! The formats in which clients get events, spliced from stored bytes: nothing is parsed or serialised again.
//!
//! Invariant: on an error nothing was appended.
//! Specification: client-server API, "Room event format"; "Event format" of room version 11, "Moving the `redacts`
//! property": servers show it both at the top level and in the content, whatever the room version, and it is what the room
//! version reads, as an event may say another thing in the other place, which clients would believe; `event_format` of a
//! filter, whose `federation` is the event as it was received, where nothing may be moved because servers have signed it.
//! Not here: what goes into `unsigned`; the caller gives it as JSON.

use serde_json::Value;

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
    /// Whether a redaction names its target in the content, as since room version 11, and not at the top level.
    pub redacts_in_content: bool,
}

impl<'a> From<&'a Pdu> for StoredEvent<'a> {
    fn from(pdu: &'a Pdu) -> StoredEvent<'a> {
        // Where both say the same, either may be read.
        let inner = pdu.content.get("redacts").and_then(Value::as_str);
        let redacts_in_content = inner.is_some() && inner == pdu.redacts.as_deref();
        StoredEvent { event_id: &pdu.event_id, room_id: &pdu.room_id, json: &pdu.json, redacts_in_content }
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
    let redacts = Redacts::find(&parts, kind, content, event.redacts_in_content)?;

    out.reserve(event.json.len() + unsigned.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"content\":");
    match redacts.is_in_content {
        true => out.extend_from_slice(content),
        false => write_redacting_content(out, content, redacts.target),
    }
    if format != ClientFormat::Stripped {
        out.extend_from_slice(b",\"event_id\":");
        write_string(out, event.event_id);
        write_member(out, b"origin_server_ts", timestamp);
        if let Some(target) = redacts.target {
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

/// Appends a content that [`Redacts::find`] has found sound, with `target` for what it says that it redacts.
fn write_redacting_content(out: &mut Vec<u8>, content: &[u8], target: Option<&[u8]>) {
    let own = members(content).flatten().filter(|member| member.key != b"redacts");
    let named = target.map(|target| (&b"redacts"[..], target));
    out.push(b'{');
    for (index, (key, value)) in
        named.into_iter().chain(own.map(|member| (member.key, member.value))).enumerate()
    {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(key);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
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

/// What a redaction names as its target, as JSON.
struct Redacts<'a> {
    target: Option<&'a [u8]>,
    /// Whether the content says so, and nothing else, already.
    is_in_content: bool,
}

impl<'a> Redacts<'a> {
    fn find(
        parts: &Parts<'a>,
        kind: &[u8],
        content: &'a [u8],
        is_read_in_content: bool,
    ) -> Result<Redacts<'a>, SpanError> {
        if kind != b"\"m.room.redaction\"" {
            return Ok(Redacts { target: None, is_in_content: true });
        }
        let mut inner = None;
        for member in members(content) {
            let member = member?;
            if member.key == b"redacts" {
                inner = Some(member.value);
            }
        }
        let target = if is_read_in_content { inner } else { parts.redacts };
        Ok(Redacts { target, is_in_content: inner == target })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::json::canonical;

    fn rendered(event: &Value, format: ClientFormat, unsigned: Option<&[u8]>) -> Value {
        let json = canonical(event);
        let stored = StoredEvent { event_id: "$e", room_id: "!r", json: &json, redacts_in_content: false };
        rendered_as(stored, format, unsigned)
    }

    fn rendered_as(stored: StoredEvent<'_>, format: ClientFormat, unsigned: Option<&[u8]>) -> Value {
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
        for (top, content, redacts_in_content) in [
            (Some("$t"), json!({}), false),
            (Some("$t"), json!({"reason": "spam"}), false),
            (None, json!({"reason": "spam", "redacts": "$t"}), true),
            (Some("$t"), json!({"redacts": "$t"}), false),
            (Some("$t"), json!({"redacts": "$t"}), true),
            // Nobody has looked whether what the version does not read may be redacted.
            (Some("$t"), json!({"reason": "spam", "redacts": "$another"}), false),
            (Some("$another"), json!({"reason": "spam", "redacts": "$t"}), true),
        ] {
            redaction["content"] = content;
            match top {
                Some(top) => redaction["redacts"] = json!(top),
                None => drop(redaction.as_object_mut().unwrap().remove("redacts")),
            }
            let json = canonical(&redaction);
            let stored = StoredEvent { event_id: "$e", room_id: "!r", json: &json, redacts_in_content };
            let shown = rendered_as(stored, ClientFormat::Room, None);
            assert_eq!((&shown["redacts"], &shown["content"]["redacts"]), (&json!("$t"), &json!("$t")));
            assert_eq!(shown["content"].get("reason"), redaction["content"].get("reason"));
        }
        // Nor is it where the version reads that there is nothing to redact.
        redaction["redacts"] = json!("$another");
        redaction["content"] = json!({"reason": "spam"});
        let json = canonical(&redaction);
        let stored = StoredEvent { event_id: "$e", room_id: "!r", json: &json, redacts_in_content: true };
        let shown = rendered_as(stored, ClientFormat::Room, None);
        assert_eq!((shown.get("redacts"), &shown["content"]), (None, &json!({"reason": "spam"})));
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
                let json = json.as_bytes();
                let stored = StoredEvent { event_id: "$e", room_id: "!r", json, redacts_in_content: false };
                assert!(write_client_event(&mut out, stored, format, None).is_err(), "{json:?}");
                assert!(out.is_empty());
            }
        }
    }
}
