//! What a new room begins with: the states that presets stand for, and its first power levels.
//!
//! Specification: client-server API, `POST /createRoom`.

use serde_json::{Value, json};

use crate::core::{event::JsonObject, version::RoomVersion};

/// Default states of new rooms, by the name that clients give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// By invitation.
    PrivateChat,
    /// By invitation, and whoever is invited at once has the creator's power.
    TrustedPrivateChat,
    /// For everybody, but no guests.
    PublicChat,
}

impl Preset {
    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "private_chat" => Self::PrivateChat,
            "trusted_private_chat" => Self::TrustedPrivateChat,
            "public_chat" => Self::PublicChat,
            _ => return None,
        })
    }

    /// The state events that the preset sets, in their order: type and content.
    pub(crate) fn state(self) -> [(&'static str, JsonObject); 3] {
        let (join_rule, guest_access) = match self {
            Self::PrivateChat | Self::TrustedPrivateChat => ("invite", "can_join"),
            Self::PublicChat => ("public", "forbidden"),
        };
        [
            ("m.room.join_rules", one("join_rule", join_rule)),
            ("m.room.history_visibility", one("history_visibility", "shared")),
            ("m.room.guest_access", one("guest_access", guest_access)),
        ]
    }

    /// The level that inviting takes. Everybody in a private room may bring others, as on other servers.
    fn invite_level(self) -> i64 {
        match self {
            Self::PrivateChat | Self::TrustedPrivateChat => 0,
            Self::PublicChat => 50,
        }
    }
}

/// An object with one member.
pub(crate) fn one(key: &str, value: impl Into<Value>) -> JsonObject {
    JsonObject::from_iter([(key.to_owned(), value.into())])
}

/// The level of who created the room, in versions where creators are not above all levels.
const CREATOR_LEVEL: i64 = 100;

/// What sending a tombstone takes where creators are above all levels: more than any administrator has by default.
const TOMBSTONE_LEVEL_OF_CREATORS: i64 = 150;

/// The content of a new room's `m.room.power_levels`. `trusted` are those whom the preset gives the creator's power.
pub(crate) fn power_levels(
    version: &RoomVersion,
    preset: Preset,
    creator: &str,
    trusted: &[String],
) -> JsonObject {
    let tombstone = match version.privileged_creators {
        true => TOMBSTONE_LEVEL_OF_CREATORS,
        false => CREATOR_LEVEL,
    };
    let mut users = JsonObject::new();
    if !version.privileged_creators {
        let all = std::iter::once(creator).chain(trusted.iter().map(String::as_str));
        users.extend(all.map(|user| (user.to_owned(), CREATOR_LEVEL.into())));
    }
    let levels = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50,
            "m.room.avatar": 50,
            "m.room.tombstone": tombstone,
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": preset.invite_level(),
    });
    match levels {
        Value::Object(levels) => levels,
        _ => JsonObject::new(),
    }
}

/// The content of `m.room.topic`: the text, also as a content block since v1.15.
pub(crate) fn topic(text: &str) -> JsonObject {
    let mut content = one("topic", text);
    content.insert("m.topic".to_owned(), json!({ "m.text": [{ "body": text }] }));
    content
}
