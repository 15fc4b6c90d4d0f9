//! From a filter's JSON to the compiled filter, with errors that name what is wrong.
//!
//! Invariant: nothing is guessed: a property of a wrong type is refused, an unknown property is ignored as the
//! specification asks, and `null` means absent.

use serde_json::Value;

use super::{
    EventFields, EventFilter, EventFormat, FILTER_BYTES_MAX, Filter, LIMIT_MAX, LIST_ENTRIES_MAX,
    NAME_BYTES_MAX, Names, PATTERNS_MAX, RoomEventFilter, RoomFilter, Types,
};
use crate::core::event::JsonObject;
use crate::core::glob::{Glob, Wildcards};

/// Why a filter is refused; the client can mend all of it. `path` is the property, as in `room.timeline.limit`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum FilterError {
    /// The filter is longer than [`FILTER_BYTES_MAX`].
    #[error("the filter is longer than {FILTER_BYTES_MAX} bytes")]
    TooLong,
    /// The filter is not JSON; says where it stops being so.
    #[error("the filter is not JSON: {0}")]
    NotJson(Box<str>),
    /// A value has another type than the specification gives it.
    #[error("{path} in the filter must be {expected}")]
    WrongType {
        /// The property.
        path: Box<str>,
        /// What it must be.
        expected: &'static str,
    },
    /// A value is of the right type but not one of those allowed.
    #[error("{path} in the filter must be {expected}")]
    Invalid {
        /// The property.
        path: Box<str>,
        /// What it must be.
        expected: &'static str,
    },
    /// A list or its patterns are more than the server is willing to try on each event.
    #[error("{path} in the filter has too many {what}: at most {limit} are allowed")]
    TooMany {
        /// The property.
        path: Box<str>,
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

impl Filter {
    /// Compiles the filter of `/sync`, given inline or stored.
    pub fn parse(json: &[u8]) -> Result<Self, FilterError> {
        Self::compile(&parse_object(json)?)
    }

    /// As [`Filter::parse`], from JSON that was parsed already; the caller has limited its size.
    pub fn compile(object: &JsonObject) -> Result<Self, FilterError> {
        let root = Reader { path: String::new(), object: Some(object) };
        Ok(Filter {
            event_fields: root.event_fields()?,
            event_format: root.event_format()?,
            presence: root.child("presence")?.event_filter()?,
            account_data: root.child("account_data")?.event_filter()?,
            room: root.child("room")?.room_filter()?,
        })
    }
}

impl RoomEventFilter {
    /// Compiles the filter of `/messages`, `/context` and `/search`.
    pub fn parse(json: &[u8]) -> Result<Self, FilterError> {
        Self::compile(&parse_object(json)?)
    }

    /// As [`RoomEventFilter::parse`], from JSON that was parsed already; the caller has limited its size.
    pub fn compile(object: &JsonObject) -> Result<Self, FilterError> {
        Reader { path: String::new(), object: Some(object) }.room_event_filter()
    }
}

fn parse_object(json: &[u8]) -> Result<JsonObject, FilterError> {
    if json.len() > FILTER_BYTES_MAX {
        return Err(FilterError::TooLong);
    }
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(FilterError::WrongType { path: "the top level".into(), expected: "an object" }),
        Err(error) => Err(FilterError::NotJson(error.to_string().into())),
    }
}

/// An object within the filter, or its absence, and the path to it.
struct Reader<'a> {
    path: String,
    object: Option<&'a JsonObject>,
}

impl<'a> Reader<'a> {
    /// The path of a property of this object.
    fn path(&self, name: &str) -> Box<str> {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path).into() }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name).filter(|value| !value.is_null())
    }

    fn wrong_type<T>(&self, name: &str, expected: &'static str) -> Result<T, FilterError> {
        Err(FilterError::WrongType { path: self.path(name), expected })
    }

    fn child(&self, name: &str) -> Result<Reader<'a>, FilterError> {
        let object = match self.get(name) {
            None => None,
            Some(Value::Object(object)) => Some(object),
            Some(_) => return self.wrong_type(name, "an object"),
        };
        Ok(Reader { path: self.path(name).into(), object })
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, FilterError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => self.wrong_type(name, "true or false"),
        }
    }

    fn list(&self, name: &str) -> Result<Option<Vec<&'a str>>, FilterError> {
        const EXPECTED: &str = "a list of strings";
        let list = match self.get(name) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(_) => return self.wrong_type(name, EXPECTED),
        };
        if list.len() > LIST_ENTRIES_MAX {
            return Err(FilterError::TooMany {
                path: self.path(name),
                what: "entries",
                limit: LIST_ENTRIES_MAX,
            });
        }
        let strings = list.iter().map(Value::as_str).collect::<Option<_>>();
        strings.map_or_else(|| self.wrong_type(name, EXPECTED), |strings| Ok(Some(strings)))
    }

    /// A list whose entries are no longer than ids may be and begin with `sigil`.
    fn ids(
        &self,
        name: &str,
        sigil: char,
        expected: &'static str,
    ) -> Result<Option<Box<[Box<str>]>>, FilterError> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        if list.iter().any(|id| !id.starts_with(sigil) || id.len() > NAME_BYTES_MAX) {
            return Err(FilterError::Invalid { path: self.path(name), expected });
        }
        Ok(Some(sorted(list)))
    }

    fn users(&self) -> Result<Names, FilterError> {
        const EXPECTED: &str = "a list of user ids, which begin with @";
        Ok(Names {
            included: self.ids("senders", '@', EXPECTED)?,
            excluded: self.ids("not_senders", '@', EXPECTED)?.unwrap_or_default(),
        })
    }

    fn rooms(&self) -> Result<Names, FilterError> {
        const EXPECTED: &str = "a list of room ids, which begin with !";
        Ok(Names {
            included: self.ids("rooms", '!', EXPECTED)?,
            excluded: self.ids("not_rooms", '!', EXPECTED)?.unwrap_or_default(),
        })
    }

    /// A list of types, as names and patterns.
    fn type_list(&self, name: &str) -> Result<Option<TypeList>, FilterError> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        if list.iter().any(|kind| kind.len() > NAME_BYTES_MAX) {
            let expected = "a list of event types of at most 255 bytes";
            return Err(FilterError::Invalid { path: self.path(name), expected });
        }
        let (patterns, names): (Vec<&str>, Vec<&str>) = list.into_iter().partition(|kind| kind.contains('*'));
        if patterns.len() > PATTERNS_MAX {
            let what = "types with *";
            return Err(FilterError::TooMany { path: self.path(name), what, limit: PATTERNS_MAX });
        }
        let patterns = patterns.into_iter().map(|pattern| Glob::new(pattern, Wildcards::Star)).collect();
        Ok(Some((sorted(names), patterns)))
    }

    fn types(&self) -> Result<Types, FilterError> {
        let (mut included, patterns) = self.type_list("types")?.unzip();
        let mut patterns = patterns.unwrap_or_default();
        if patterns.iter().any(Glob::is_everything) {
            (included, patterns) = (None, Box::default());
        }
        let (excluded, excluded_patterns) = self.type_list("not_types")?.unwrap_or_default();
        Ok(Types { names: Names { included, excluded }, included: patterns, excluded: excluded_patterns })
    }

    fn limit(&self) -> Result<Option<u32>, FilterError> {
        let Some(value) = self.get("limit") else { return Ok(None) };
        match value.as_u64() {
            // The specification has none below 1. Clients that want no history say 0, and other servers take it.
            Some(limit) => Ok(Some(u32::try_from(limit).map_or(LIMIT_MAX, |limit| limit.min(LIMIT_MAX)))),
            None => self.wrong_type("limit", "an integer of 0 or more"),
        }
    }

    fn event_filter(&self) -> Result<EventFilter, FilterError> {
        Ok(EventFilter { limit: self.limit()?, types: self.types()?, senders: self.users()? })
    }

    fn room_event_filter(&self) -> Result<RoomEventFilter, FilterError> {
        Ok(RoomEventFilter {
            event: self.event_filter()?,
            rooms: self.rooms()?,
            contains_url: self.flag("contains_url")?,
            lazy_load_members: self.flag("lazy_load_members")?.unwrap_or(false),
            include_redundant_members: self.flag("include_redundant_members")?.unwrap_or(false),
            unread_thread_notifications: self.flag("unread_thread_notifications")?.unwrap_or(false),
            related_by_senders: self.list("related_by_senders")?.map(sorted).unwrap_or_default().into_vec(),
            related_by_rel_types: self
                .list("related_by_rel_types")?
                .map(sorted)
                .unwrap_or_default()
                .into_vec(),
        })
    }

    fn room_filter(&self) -> Result<RoomFilter, FilterError> {
        Ok(RoomFilter {
            rooms: self.rooms()?,
            include_leave: self.flag("include_leave")?.unwrap_or(false),
            timeline: self.child("timeline")?.room_event_filter()?,
            state: self.child("state")?.room_event_filter()?,
            ephemeral: self.child("ephemeral")?.room_event_filter()?,
            account_data: self.child("account_data")?.room_event_filter()?,
        })
    }

    fn event_format(&self) -> Result<EventFormat, FilterError> {
        const EXPECTED: &str = "\"client\" or \"federation\"";
        match self.get("event_format") {
            None => Ok(EventFormat::Client),
            Some(Value::String(format)) => match format.as_str() {
                "client" => Ok(EventFormat::Client),
                "federation" => Ok(EventFormat::Federation),
                _ => Err(FilterError::Invalid { path: self.path("event_format"), expected: EXPECTED }),
            },
            Some(_) => self.wrong_type("event_format", EXPECTED),
        }
    }

    fn event_fields(&self) -> Result<EventFields, FilterError> {
        Ok(match self.list("event_fields")? {
            None => EventFields::default(),
            Some(paths) => EventFields::new(paths),
        })
    }
}

/// Names and patterns of a list of types.
type TypeList = (Box<[Box<str>]>, Box<[Glob]>);

fn sorted(mut list: Vec<&str>) -> Box<[Box<str>]> {
    list.sort_unstable();
    list.dedup();
    list.into_iter().map(Box::from).collect()
}
