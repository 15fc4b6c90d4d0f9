//! Composing JSON by splicing bytes that are JSON already.
//!
//! Invariant: whoever opens an object or array closes it; a comma is put before what is not first.

use super::write_string;

/// Begins the next member of the object being written: comma, key, colon.
pub fn member(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_string(out, key);
    out.push(b':');
}

/// Begins the next item of the array being written.
pub fn item(out: &mut Vec<u8>) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
}

/// A member whose value is JSON already.
pub fn raw_member(out: &mut Vec<u8>, key: &str, json: &[u8]) {
    member(out, key);
    out.extend_from_slice(json);
}

/// A member whose value is a text.
pub fn string_member(out: &mut Vec<u8>, key: &str, text: &str) {
    member(out, key);
    write_string(out, text);
}

/// A member whose value is a number without sign.
pub fn number_member(out: &mut Vec<u8>, key: &str, number: u64) {
    member(out, key);
    super::write_unsigned(out, number);
}

/// A member whose value is true or false.
pub fn bool_member(out: &mut Vec<u8>, key: &str, value: bool) {
    raw_member(out, key, if value { b"true" } else { b"false" });
}

/// A member that is an object, filled by `fill`.
pub fn object_member<E>(
    out: &mut Vec<u8>,
    key: &str,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    member(out, key);
    out.push(b'{');
    fill(out)?;
    out.push(b'}');
    Ok(())
}

/// A member `key: {"events": [...]}`, the form of most lists in `/sync`, filled by `fill`.
pub fn events_member<E>(
    out: &mut Vec<u8>,
    key: &str,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    member(out, key);
    out.extend_from_slice(b"{\"events\":[");
    fill(out)?;
    out.extend_from_slice(b"]}");
    Ok(())
}

/// The item `{"type": kind, "content": content}` of a list, as account data and ephemeral events have it.
pub fn plain_event_item(out: &mut Vec<u8>, kind: &str, content: &[u8]) {
    item(out);
    out.push(b'{');
    raw_member(out, "content", content);
    string_member(out, "type", kind);
    out.push(b'}');
}
