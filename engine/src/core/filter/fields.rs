//! `event_fields`: sends only some properties of each event.
//!
//! Invariant: what is kept is copied byte for byte from the event; only objects on the way to a wanted property are
//! written anew.
//!
//! Specification: "Filtering", and "Dot-separated property paths" of the appendices.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::core::property_path::parse_path;

/// Deepest path that is followed; what is deeper is sent whole, which the specification allows ("a server may include
/// more fields"). It bounds the recursion; events of clients are not half as deep.
const PATH_DEPTH_MAX: usize = 32;

/// The properties of events that a client wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFields {
    /// `None` for all.
    wanted: Option<Field>,
}

/// A property on the way to wanted ones.
#[derive(Clone, Debug, Default, PartialEq)]
struct Field {
    /// Wanted with all that it holds.
    is_wanted: bool,
    fields: BTreeMap<Box<str>, Field>,
}

/// Bytes that are not the JSON of an event: the storage is damaged.
#[derive(Debug, thiserror::Error)]
#[error("an event is not valid JSON: {0}")]
pub struct FieldsError(#[from] serde_json::Error);

impl EventFields {
    /// The properties that these dot-separated paths name; an empty list wants none.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut root = Field::default();
        for path in paths {
            let mut field = &mut root;
            for name in parse_path(path).into_iter().take(PATH_DEPTH_MAX) {
                field = field.fields.entry(name.into()).or_default();
            }
            field.is_wanted = true;
        }
        EventFields { wanted: Some(root) }
    }

    /// Whether events are sent as they are.
    pub fn is_everything(&self) -> bool {
        self.wanted.is_none()
    }

    /// The event with only the wanted properties; borrowed if all are wanted.
    pub fn apply<'a>(&self, event_json: &'a [u8]) -> Result<Cow<'a, [u8]>, FieldsError> {
        let Some(root) = &self.wanted else { return Ok(Cow::Borrowed(event_json)) };
        let event: &RawValue = serde_json::from_slice(event_json)?;
        let mut kept = String::with_capacity(event_json.len());
        keep(root, event.get(), &mut kept)?;
        Ok(Cow::Owned(kept.into_bytes()))
    }
}

/// Writes what is wanted of the object `json`.
fn keep(field: &Field, json: &str, kept: &mut String) -> Result<(), FieldsError> {
    let properties: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
    kept.push('{');
    let mut is_first = true;
    for (name, value) in &properties {
        let Some(field) = field.fields.get(name.as_str()) else { continue };
        // A path that goes on below something that is no object names nothing.
        if !field.is_wanted && !value.get().starts_with('{') {
            continue;
        }
        if !std::mem::replace(&mut is_first, false) {
            kept.push(',');
        }
        kept.push_str(&serde_json::to_string(name)?);
        kept.push(':');
        if field.is_wanted {
            kept.push_str(value.get());
        } else {
            keep(field, value.get(), kept)?;
        }
    }
    kept.push('}');
    Ok(())
}
