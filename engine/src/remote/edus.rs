//! What servers tell each other outside of rooms: put together, and taken apart and checked as far as it can be without
//! looking anything up.
//!
//! Invariant: whoever something is told of is a user of the server that tells it. What is malformed is nothing: one bad
//! part must not keep the others from coming.
//! Specification: server-server API, "EDUs" and the sections of the kinds.

use bytes::Bytes;
use serde_json::Value;

use crate::{
    core::{
        event::JsonObject,
        identifiers,
        json::splice::{raw_member, string_member},
    },
    store::schema::PresenceState,
};

/// The longest text of a kind, an id of a message, or of a device, in bytes: as long as any other identifier.
const NAME_BYTES_MAX: usize = 255;
/// The longest status message, in bytes: some paragraphs. Longer ones are left out.
const STATUS_BYTES_MAX: usize = 4096;
/// How many users or receipts one part may tell of. A part has no more than an event's bytes on other servers, which leaves some
/// hundreds.
const ENTRIES_MAX: usize = 1_000;
/// How many messages to devices one part may have: some servers put into it all that a request of a user has for this one, of
/// whatever size. A room with thousands of devices here is among the largest.
const MESSAGES_MAX: usize = 10_000;

/// One thing that another server tells.
#[derive(Clone, Debug, PartialEq)]
pub enum IncomingEdu {
    /// `m.typing`.
    Typing {
        /// Where.
        room_id: String,
        /// Who.
        user_id: String,
        /// Whether they type.
        typing: bool,
    },
    /// `m.receipt`.
    Receipts(Vec<IncomingReceipt>),
    /// `m.presence`.
    Presence(Vec<IncomingPresence>),
    /// `m.direct_to_device`.
    Direct {
        /// Who sends.
        sender: String,
        /// The type of the messages.
        kind: String,
        /// By which a repetition is known.
        message_id: String,
        /// Users, devices (`*` for all), contents.
        messages: Vec<(String, String, JsonObject)>,
    },
    /// `m.device_list_update`.
    DeviceList {
        /// Whose device.
        user_id: String,
        /// Which.
        device_id: String,
        /// The position of this update.
        stream_id: u64,
        /// The positions of those that it follows.
        prev_ids: Vec<u64>,
        /// What the device is called.
        name: Option<String>,
        /// Its identity keys; `None` if it has none, or is gone.
        keys: Option<JsonObject>,
    },
    /// `m.signing_key_update`.
    SigningKeys {
        /// Whose keys.
        user_id: String,
        /// The master key.
        master: Option<JsonObject>,
        /// The self-signing key.
        self_signing: Option<JsonObject>,
    },
}

impl IncomingEdu {
    /// How many users, receipts or messages it tells of.
    pub(crate) fn entries(&self) -> usize {
        match self {
            Self::Receipts(receipts) => receipts.len(),
            Self::Presence(updates) => updates.len(),
            Self::Direct { messages, .. } => messages.len(),
            Self::Typing { .. } | Self::DeviceList { .. } | Self::SigningKeys { .. } => 1,
        }
    }

    /// The same in pieces of so many entries at most. What is known by an id stays whole.
    pub(crate) fn pieces(self, entries_max: usize) -> Vec<Self> {
        if self.entries() <= entries_max {
            return vec![self];
        }
        match self {
            Self::Receipts(receipts) => {
                receipts.chunks(entries_max).map(|piece| Self::Receipts(piece.to_vec())).collect()
            }
            Self::Presence(updates) => {
                updates.chunks(entries_max).map(|piece| Self::Presence(piece.to_vec())).collect()
            }
            whole => vec![whole],
        }
    }
}

/// That a user has read.
#[derive(Clone, Debug, PartialEq)]
pub struct IncomingReceipt {
    /// Where.
    pub room_id: String,
    /// Who.
    pub user_id: String,
    /// Up to which event.
    pub event_id: String,
    /// When, in milliseconds since the epoch.
    pub ts: u64,
    /// `main`, or the id of a thread's root; `None` for the whole room.
    pub thread_id: Option<String>,
}

/// How present a user is.
#[derive(Clone, Debug, PartialEq)]
pub struct IncomingPresence {
    /// Who.
    pub user_id: String,
    /// How present.
    pub state: PresenceState,
    /// What they say about it; empty for nothing.
    pub status_msg: String,
    /// How long ago they did something, in milliseconds.
    pub last_active_ago_ms: u64,
    /// Whether they are doing something.
    pub currently_active: bool,
}

/// Takes apart what `origin` tells. `None` if it is malformed, of no kind that is known here, or not the server's to tell. With it
/// comes how many entries it has beyond those that one part may have, and that are left out.
pub fn parse(origin: &str, edu: &Value) -> Option<(IncomingEdu, u64)> {
    let content = edu.get("content")?.as_object()?;
    let parsed = match edu.get("edu_type")?.as_str()? {
        "m.typing" => typing(origin, content)?,
        "m.receipt" => return Some(receipts(origin, content)),
        "m.presence" => return presence(origin, content),
        "m.direct_to_device" => return direct(origin, content),
        "m.device_list_update" => device_list(origin, content)?,
        "m.signing_key_update" => IncomingEdu::SigningKeys {
            user_id: user_of(origin, content.get("user_id")?)?,
            master: content.get("master_key").and_then(Value::as_object).cloned(),
            self_signing: content.get("self_signing_key").and_then(Value::as_object).cloned(),
        },
        _ => return None,
    };
    Some((parsed, 0))
}

/// The first entries of a part, and how many more it has.
struct Entries<T> {
    first: Vec<T>,
    more: u64,
}

impl<T> Entries<T> {
    fn none() -> Self {
        Self { first: Vec::new(), more: 0 }
    }

    fn add(&mut self, entry: T, max: usize) {
        if self.first.len() < max {
            self.first.push(entry);
        } else {
            self.more += 1;
        }
    }
}

/// An EDU in JSON. `content` is a JSON object.
pub fn edu(kind: &str, content: &[u8]) -> Bytes {
    let mut out = vec![b'{'];
    raw_member(&mut out, "content", content);
    string_member(&mut out, "edu_type", kind);
    out.push(b'}');
    out.into()
}

/// A user of the server.
fn user_of(origin: &str, user_id: &Value) -> Option<String> {
    let user_id = user_id.as_str()?;
    let is_its = identifiers::is_user_id(user_id) && identifiers::server_name(user_id) == Some(origin);
    is_its.then(|| user_id.to_owned())
}

/// A text that is not too long.
fn name(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| text.len() <= NAME_BYTES_MAX).map(str::to_owned)
}

fn typing(origin: &str, content: &JsonObject) -> Option<IncomingEdu> {
    Some(IncomingEdu::Typing {
        room_id: name(content.get("room_id"))?,
        user_id: user_of(origin, content.get("user_id")?)?,
        typing: content.get("typing")?.as_bool()?,
    })
}

fn receipts(origin: &str, content: &JsonObject) -> (IncomingEdu, u64) {
    let mut found = Entries::none();
    for (room_id, kinds) in content {
        let Some(users) = kinds.get("m.read").and_then(Value::as_object) else { continue };
        let receipts = users.iter().filter_map(|(user_id, receipt)| {
            let data = receipt.get("data")?;
            let thread_id = match data.get("thread_id") {
                None | Some(Value::Null) => None,
                Some(thread_id) => Some(name(Some(thread_id))?),
            };
            Some(IncomingReceipt {
                room_id: room_id.clone(),
                user_id: user_of(origin, &Value::String(user_id.clone()))?,
                event_id: name(receipt.get("event_ids")?.as_array()?.first())?,
                ts: data.get("ts")?.as_u64()?,
                thread_id,
            })
        });
        receipts.for_each(|receipt| found.add(receipt, ENTRIES_MAX));
    }
    (IncomingEdu::Receipts(found.first), found.more)
}

fn presence(origin: &str, content: &JsonObject) -> Option<(IncomingEdu, u64)> {
    let mut found = Entries::none();
    let updates = content.get("push")?.as_array()?.iter().filter_map(|update| {
        let status_msg = update.get("status_msg").and_then(Value::as_str).unwrap_or_default();
        Some(IncomingPresence {
            user_id: user_of(origin, update.get("user_id")?)?,
            state: PresenceState::from_name(update.get("presence")?.as_str()?)?,
            status_msg: if status_msg.len() > STATUS_BYTES_MAX {
                String::new()
            } else {
                status_msg.to_owned()
            },
            last_active_ago_ms: update.get("last_active_ago").and_then(Value::as_u64).unwrap_or_default(),
            currently_active: update.get("currently_active").and_then(Value::as_bool).unwrap_or_default(),
        })
    });
    updates.for_each(|update| found.add(update, ENTRIES_MAX));
    Some((IncomingEdu::Presence(found.first), found.more))
}

fn direct(origin: &str, content: &JsonObject) -> Option<(IncomingEdu, u64)> {
    let mut found = Entries::none();
    for (user_id, devices) in content.get("messages")?.as_object()? {
        let Some(devices) = devices.as_object() else { continue };
        for (device_id, content) in devices {
            let Some(content) = content.as_object() else { continue };
            found.add((user_id, device_id, content), MESSAGES_MAX);
        }
    }
    let messages = found.first.into_iter();
    let messages = messages
        .map(|(user_id, device_id, content)| (user_id.clone(), device_id.clone(), content.clone()))
        .collect();
    let direct = IncomingEdu::Direct {
        sender: user_of(origin, content.get("sender")?)?,
        kind: name(content.get("type"))?,
        message_id: name(content.get("message_id"))?,
        messages,
    };
    Some((direct, found.more))
}

fn device_list(origin: &str, content: &JsonObject) -> Option<IncomingEdu> {
    let is_deleted = content.get("deleted").and_then(Value::as_bool).unwrap_or_default();
    let prev_ids = content.get("prev_id").and_then(Value::as_array).into_iter().flatten();
    Some(IncomingEdu::DeviceList {
        user_id: user_of(origin, content.get("user_id")?)?,
        device_id: name(content.get("device_id"))?,
        stream_id: content.get("stream_id")?.as_u64()?,
        prev_ids: prev_ids.filter_map(Value::as_u64).take(ENTRIES_MAX).collect(),
        name: name(content.get("device_display_name")),
        keys: content.get("keys").and_then(Value::as_object).filter(|_| !is_deleted).cloned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_servers_own_users_are_told_of() {
        let edus = |user: &str| {
            [
                ("m.typing", json!({"room_id": "!r:x", "user_id": user, "typing": true})),
                ("m.device_list_update", json!({"user_id": user, "device_id": "D", "stream_id": 1})),
                ("m.signing_key_update", json!({"user_id": user})),
                (
                    "m.direct_to_device",
                    json!({"sender": user, "type": "t", "message_id": "1", "messages": {}}),
                ),
            ]
        };
        for (kind, content) in edus("@bob:there.example") {
            let edu = json!({"edu_type": kind, "content": content});
            assert!(parse("there.example", &edu).is_some(), "{kind}");
            assert!(parse("third.example", &edu).is_none(), "{kind}");
        }
        for user in ["bob:there.example", "@bob:there.example:1", "@:x", ""] {
            for (kind, content) in edus(user) {
                assert!(parse("there.example", &json!({"edu_type": kind, "content": content})).is_none());
            }
        }
        let read = json!({"event_ids": ["$e"], "data": {"ts": 1}});
        let receipts = json!({"!r:x": {"m.read": {"@bob:there.example": read, "@eve:third.example": read}}});
        let edu = json!({"edu_type": "m.receipt", "content": receipts});
        let Some((IncomingEdu::Receipts(found), 0)) = parse("there.example", &edu) else { panic!() };
        assert_eq!(found.iter().map(|receipt| &*receipt.user_id).collect::<Vec<_>>(), ["@bob:there.example"]);
    }

    #[test]
    fn what_is_beyond_the_entries_of_a_part_is_counted() {
        let many =
            |count: usize, entry: &dyn Fn(usize) -> Value| -> Vec<Value> { (0..count).map(entry).collect() };
        let named = |count: usize, entry: &Value| -> Value {
            (0..count).map(|number| (format!("@{number}:t"), entry.clone())).collect::<JsonObject>().into()
        };
        let read = json!({"event_ids": ["$e"], "data": {"ts": 1}});
        let present = |number: usize| json!({"user_id": format!("@{number}:t"), "presence": "online"});
        let direct = |count: usize| {
            let messages = json!({"@alice:here.example": named(count, &json!({}))});
            json!({"sender": "@b:t", "type": "t", "message_id": "1", "messages": messages})
        };
        for (kind, content, left_out) in [
            ("m.receipt", json!({"!r:x": {"m.read": named(ENTRIES_MAX, &read)}}), 0),
            ("m.receipt", json!({"!r:x": {"m.read": named(ENTRIES_MAX + 2, &read)}}), 2),
            ("m.presence", json!({"push": many(ENTRIES_MAX, &present)}), 0),
            ("m.presence", json!({"push": many(ENTRIES_MAX + 3, &present)}), 3),
            ("m.direct_to_device", direct(MESSAGES_MAX), 0),
            ("m.direct_to_device", direct(MESSAGES_MAX + 4), 4),
        ] {
            let parsed = parse("t", &json!({"edu_type": kind, "content": content}));
            assert_eq!(parsed.map(|(_, more)| more), Some(left_out), "{kind}");
        }
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        for edu in [
            json!(null),
            json!({"edu_type": "m.typing"}),
            json!({"edu_type": "m.typing", "content": {"typing": "yes"}}),
            json!({"edu_type": "m.unheard_of", "content": {}}),
            json!({"edu_type": 7, "content": []}),
            json!({"edu_type": "m.device_list_update", "content": {"user_id": "@b:t", "device_id": "D", "stream_id": -1}}),
        ] {
            assert_eq!(parse("t", &edu), None, "{edu}");
        }
    }
}
