//! What push rules ask of an event, worked out at most once for all users.
//!
//! Invariant: nothing here depends on a user or a rule, so one value serves everybody for as long as it is kept.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use ruma_common::push::ScalarJsonValue;
use serde_json::Value;

use crate::core::event::Pdu;
use crate::core::glob::Glob;
use crate::core::property_path::parse_path;

/// An event as push rules see it: the properties that clients are sent, lower-cased where patterns want it.
#[derive(Debug)]
pub struct EventFeatures {
    event: Arc<Pdu>,
    body_lower: OnceLock<Option<Box<str>>>,
    state_key_lower: OnceLock<Option<Box<str>>>,
    mentioned: OnceLock<HashSet<Box<str>>>,
}

/// A property of events that a rule names; what a rule names that no event has is [`Property::Absent`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Property {
    Kind,
    Sender,
    RoomId,
    EventId,
    StateKey,
    OriginServerTs,
    Redacts,
    /// The names on the way from the content.
    Content(Box<[Box<str>]>),
    Absent,
}

/// A value that rules compare with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Integer(i64),
    Text(Box<str>),
}

/// The value of a property.
enum Found<'a> {
    Text(&'a str),
    Integer(u64),
    Json(&'a Value),
}

impl Property {
    /// The property with this dot-separated path.
    pub(super) fn new(path: &str) -> Self {
        let names = parse_path(path);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match *names.as_slice() {
            ["type"] => Property::Kind,
            ["sender"] => Property::Sender,
            ["room_id"] => Property::RoomId,
            ["event_id"] => Property::EventId,
            ["state_key"] => Property::StateKey,
            ["origin_server_ts"] => Property::OriginServerTs,
            ["redacts"] => Property::Redacts,
            ["content", ref within @ ..] if !within.is_empty() => {
                Property::Content(within.iter().map(|name| Box::from(*name)).collect())
            }
            _ => Property::Absent,
        }
    }

    /// Whether this is `content.` followed by these names.
    pub(super) fn is_content(&self, names: &[&str]) -> bool {
        matches!(self, Property::Content(path) if path.iter().map(|name| &**name).eq(names.iter().copied()))
    }
}

impl Scalar {
    pub(super) fn new(value: &ScalarJsonValue) -> Self {
        match value {
            ScalarJsonValue::Null => Scalar::Null,
            ScalarJsonValue::Bool(flag) => Scalar::Bool(*flag),
            ScalarJsonValue::Integer(number) => Scalar::Integer(i64::from(*number)),
            ScalarJsonValue::String(text) => Scalar::Text(text.as_str().into()),
        }
    }

    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Scalar::Null, Value::Null) => true,
            (Scalar::Bool(wanted), Value::Bool(found)) => wanted == found,
            (Scalar::Integer(wanted), Value::Number(found)) => found.as_i64() == Some(*wanted),
            (Scalar::Text(wanted), Value::String(found)) => **wanted == **found,
            _ => false,
        }
    }
}

impl EventFeatures {
    /// Nothing is worked out before a rule asks for it.
    pub fn new(event: Arc<Pdu>) -> Self {
        EventFeatures {
            event,
            body_lower: OnceLock::new(),
            state_key_lower: OnceLock::new(),
            mentioned: OnceLock::new(),
        }
    }

    pub(super) fn sender(&self) -> &str {
        &self.event.sender
    }

    pub(super) fn room_id(&self) -> &str {
        &self.event.room_id
    }

    /// The body in lower case, if it is a string.
    pub(super) fn body_lower(&self) -> Option<&str> {
        let body = || self.event.content.get("body").and_then(Value::as_str).map(|body| lower(body).into());
        self.body_lower.get_or_init(body).as_deref()
    }

    /// The state key in lower case, of a state event.
    pub(super) fn state_key_lower(&self) -> Option<&str> {
        self.state_key_lower
            .get_or_init(|| self.event.state_key.as_deref().map(|key| lower(key).into()))
            .as_deref()
    }

    /// Whether the event has `m.mentions`.
    pub(super) fn has_mentions(&self) -> bool {
        self.event.content.contains_key("m.mentions")
    }

    /// Whether `m.mentions` names any user.
    pub(super) fn mentions_anyone(&self) -> bool {
        !self.mentioned().is_empty()
    }

    /// Whether `m.mentions` names this user.
    pub(super) fn mentions(&self, user_id: &str) -> bool {
        self.mentioned().contains(user_id)
    }

    fn mentioned(&self) -> &HashSet<Box<str>> {
        self.mentioned.get_or_init(|| {
            let mentions = self.event.content.get("m.mentions");
            let user_ids = mentions.and_then(|mentions| mentions.get("user_ids")).and_then(Value::as_array);
            user_ids.into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect()
        })
    }

    /// Whether the property is a string that matches, both lower-cased.
    pub(super) fn matches(&self, property: &Property, pattern: &Glob) -> bool {
        match self.get(property) {
            Some(Found::Text(text)) => pattern.matches(&lower(text)),
            Some(Found::Json(Value::String(text))) => pattern.matches(&lower(text)),
            _ => false,
        }
    }

    /// Whether the property is exactly this value.
    pub(super) fn is(&self, property: &Property, value: &Scalar) -> bool {
        match (self.get(property), value) {
            (Some(Found::Text(found)), Scalar::Text(wanted)) => found == &**wanted,
            (Some(Found::Integer(found)), Scalar::Integer(wanted)) => i64::try_from(found) == Ok(*wanted),
            (Some(Found::Json(found)), wanted) => wanted.equals(found),
            _ => false,
        }
    }

    /// Whether the property is an array that has exactly this value.
    pub(super) fn contains(&self, property: &Property, value: &Scalar) -> bool {
        match self.get(property) {
            Some(Found::Json(Value::Array(list))) => list.iter().any(|found| value.equals(found)),
            _ => false,
        }
    }

    fn get(&self, property: &Property) -> Option<Found<'_>> {
        let event = &self.event;
        Some(match property {
            Property::Kind => Found::Text(&event.kind),
            Property::Sender => Found::Text(&event.sender),
            Property::RoomId => Found::Text(&event.room_id),
            Property::EventId => Found::Text(&event.event_id),
            Property::StateKey => Found::Text(event.state_key.as_deref()?),
            Property::Redacts => Found::Text(event.redacts.as_deref()?),
            Property::OriginServerTs => Found::Integer(event.origin_server_ts),
            Property::Content(path) => {
                let (first, rest) = path.split_first()?;
                let mut value = event.content.get(&**first)?;
                for name in rest {
                    value = value.as_object()?.get(&**name)?;
                }
                Found::Json(value)
            }
            Property::Absent => return None,
        })
    }
}

/// `text` in lower case; borrowed if it is already.
fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.to_lowercase())
    }
}
