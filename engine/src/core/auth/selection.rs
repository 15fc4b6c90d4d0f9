//! Which state events an event is to cite as its `auth_events`.
//!
//! Source: "Auth events selection" of the server-server API.

use serde_json::Value;

use crate::core::event::JsonObject;
use crate::core::version::RoomVersion;

/// The (type, state key) pairs of the state that allows an event, each once; those that the room state does not
/// have are left out of `auth_events` by the caller.
///
/// For the create event the list is empty.
pub fn auth_types<'a>(
    version: &RoomVersion,
    kind: &str,
    sender: &'a str,
    state_key: Option<&'a str>,
    content: &'a JsonObject,
) -> Vec<(&'static str, &'a str)> {
    if kind == "m.room.create" {
        return Vec::new();
    }
    // The longest list: create, power levels, sender, target, join rules, and a token or an authorising user.
    let mut types = Vec::with_capacity(6);
    if !version.room_id_is_create_hash {
        types.push(("m.room.create", ""));
    }
    types.push(("m.room.power_levels", ""));
    types.push(("m.room.member", sender));
    if kind == "m.room.member" {
        member_types(version, &mut types, state_key, content);
    }
    types
}

fn member_types<'a>(
    version: &RoomVersion,
    types: &mut Vec<(&'static str, &'a str)>,
    state_key: Option<&'a str>,
    content: &'a JsonObject,
) {
    let mut push = |kind: &'static str, state_key: Option<&'a str>| {
        if let Some(state_key) = state_key.filter(|state_key| !types.contains(&(kind, *state_key))) {
            types.push((kind, state_key));
        }
    };
    let membership = content.get("membership").and_then(Value::as_str);
    push("m.room.member", state_key);
    if matches!(membership, Some("join" | "invite" | "knock")) {
        push("m.room.join_rules", Some(""));
    }
    if membership == Some("invite") {
        let signed = content.get("third_party_invite").and_then(|invite| invite.get("signed"));
        push(
            "m.room.third_party_invite",
            signed.and_then(|signed| signed.get("token")).and_then(Value::as_str),
        );
    }
    if membership == Some("join") && version.restricted {
        push("m.room.member", content.get("join_authorised_via_users_server").and_then(Value::as_str));
    }
}
