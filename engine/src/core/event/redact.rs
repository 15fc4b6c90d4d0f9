//! The redaction algorithm of every room version, from the flags of its [`RoomVersion`].
//!
//! One table of what is kept serves values ([`redact`]) and stored bytes ([`write_redacted`]); hashes and signatures
//! are made over the second. Specification: "Redactions" of room versions 1, 6, 8, 9 and 11.
//! Not here: who may redact what (`core::auth`), and `unsigned.redacted_because` (the views add it).

use serde_json::Value;

use super::JsonObject;
use crate::core::json::{SpanError, members, string_value};
use crate::core::version::RoomVersion;

/// What redaction does to a member of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    No,
    Whole,
    /// Of an object only this key; anything but an object is dropped.
    Only(&'static str),
}

/// The redacted form of an event: what is left when the keys that are not protected are gone. `unsigned` goes too.
pub fn redact(version: &RoomVersion, event: &JsonObject) -> JsonObject {
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
    let mut redacted = JsonObject::new();
    for (key, value) in event.iter().filter(|(key, _)| keeps_member(version, key.as_bytes())) {
        let value = match value {
            Value::Object(content) if key == "content" => {
                Value::Object(redact_content(version, kind, content))
            }
            value => value.clone(),
        };
        redacted.insert(key.clone(), value);
    }
    redacted
}

/// The redacted content of an event of type `kind`.
pub fn redact_content(version: &RoomVersion, kind: &str, content: &JsonObject) -> JsonObject {
    if keeps_all_content(version, kind) {
        return content.clone();
    }
    let mut redacted = JsonObject::new();
    for (key, value) in content {
        match (keeps_content(version, kind, key.as_bytes()), value) {
            (Kept::Whole, value) => {
                redacted.insert(key.clone(), value.clone());
            }
            (Kept::Only(inner_key), Value::Object(inner)) => {
                let only = inner.get(inner_key).map(|value| (inner_key.to_owned(), value.clone()));
                redacted.insert(key.clone(), Value::Object(only.into_iter().collect()));
            }
            (Kept::No | Kept::Only(_), _) => {}
        }
    }
    redacted
}

/// Appends the redacted form of the event in `json` (canonical bytes), leaving out `signatures` too: the bytes that
/// are signed and of which the reference hash is taken.
///
/// # Errors
/// The bytes are not a canonical event.
pub fn write_redacted(version: &RoomVersion, json: &[u8], out: &mut Vec<u8>) -> Result<(), SpanError> {
    let mut kind = None;
    for member in members(json) {
        let member = member?;
        if member.key == b"type" {
            kind = string_value(member.value);
        }
    }
    let kind = kind.unwrap_or_default();
    out.push(b'{');
    let mut first = true;
    for member in members(json) {
        let member = member?;
        if member.key == b"signatures" || !keeps_member(version, member.key) {
            continue;
        }
        write_key(out, &mut first, member.key);
        if member.key == b"content" && member.value.first() == Some(&b'{') {
            write_redacted_content(version, &kind, member.value, out)?;
        } else {
            out.extend_from_slice(member.value);
        }
    }
    out.push(b'}');
    Ok(())
}

/// Appends the redacted form of the content in `json` (a canonical object) of an event of type `kind`.
///
/// # Errors
/// The bytes are not a canonical object.
pub fn write_redacted_content(
    version: &RoomVersion,
    kind: &str,
    json: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SpanError> {
    if keeps_all_content(version, kind) {
        out.extend_from_slice(json);
        return Ok(());
    }
    if !keeps_some_content(kind) {
        out.extend_from_slice(b"{}");
        return Ok(());
    }
    out.push(b'{');
    let mut first = true;
    for member in members(json) {
        let member = member?;
        match keeps_content(version, kind, member.key) {
            Kept::Whole => {
                write_key(out, &mut first, member.key);
                out.extend_from_slice(member.value);
            }
            Kept::Only(inner_key) if member.value.first() == Some(&b'{') => {
                write_key(out, &mut first, member.key);
                out.push(b'{');
                for inner in members(member.value) {
                    let inner = inner?;
                    if inner.key == inner_key.as_bytes() {
                        write_key(out, &mut true, inner.key);
                        out.extend_from_slice(inner.value);
                    }
                }
                out.push(b'}');
            }
            Kept::No | Kept::Only(_) => {}
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_key(out: &mut Vec<u8>, first: &mut bool, key: &[u8]) {
    if !*first {
        out.push(b',');
    }
    *first = false;
    out.push(b'"');
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
}

/// Whether redaction keeps the event's member `key`.
fn keeps_member(version: &RoomVersion, key: &[u8]) -> bool {
    match key {
        b"event_id" | b"type" | b"room_id" | b"sender" | b"state_key" | b"content" | b"hashes"
        | b"signatures" | b"depth" | b"prev_events" | b"auth_events" | b"origin_server_ts" => true,
        b"origin" | b"membership" | b"prev_state" => version.redaction_keeps_legacy_keys,
        _ => false,
    }
}

fn keeps_all_content(version: &RoomVersion, kind: &str) -> bool {
    version.redaction_v11 && kind == "m.room.create"
}

/// Whether any room version keeps something of the content of this event type.
fn keeps_some_content(kind: &str) -> bool {
    matches!(
        kind,
        "m.room.member"
            | "m.room.create"
            | "m.room.join_rules"
            | "m.room.power_levels"
            | "m.room.aliases"
            | "m.room.history_visibility"
            | "m.room.redaction"
    )
}

/// What redaction keeps of the content's member `key`, where not all is kept.
fn keeps_content(version: &RoomVersion, kind: &str, key: &[u8]) -> Kept {
    let whole = match (kind, key) {
        ("m.room.member", b"membership") => true,
        ("m.room.member", b"join_authorised_via_users_server") => version.redaction_keeps_authorising_user,
        ("m.room.member", b"third_party_invite") if version.redaction_v11 => return Kept::Only("signed"),
        ("m.room.create", b"creator") => true,
        ("m.room.join_rules", b"join_rule") => true,
        ("m.room.join_rules", b"allow") => version.redaction_keeps_allow,
        (
            "m.room.power_levels",
            b"ban" | b"events" | b"events_default" | b"kick" | b"redact" | b"state_default" | b"users"
            | b"users_default",
        ) => true,
        ("m.room.power_levels", b"invite") => version.redaction_v11,
        ("m.room.aliases", b"aliases") => version.special_aliases,
        ("m.room.history_visibility", b"history_visibility") => true,
        ("m.room.redaction", b"redacts") => version.redaction_v11,
        _ => false,
    };
    if whole { Kept::Whole } else { Kept::No }
}
