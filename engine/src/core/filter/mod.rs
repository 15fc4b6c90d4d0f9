//! Filters, compiled once: which events a client wants from `/sync`, `/messages`, `/context` and `/search`.
//!
//! Invariant: a filter that compiled has passed all limits, so applying it to an event costs little whatever it says; what
//! a `not_` list names is excluded even if the list without `not_` names it.
//! Not here: where filters are stored, default limits of endpoints, lazy-loading of members (the views do it).
//!
//! Specification: "Filtering" of the client-server API.

mod fields;
mod parse;

#[cfg(test)]
mod tests;

use crate::core::event::JsonObject;
use crate::core::glob::Glob;

pub use self::fields::{EventFields, FieldsError};
pub use self::parse::FilterError;

/// Most bytes in a filter's JSON. Filters of clients take a few hundred; lists of ignored rooms some thousands.
pub const FILTER_BYTES_MAX: usize = 64 * 1024;

/// Most entries in one list of a filter: what fits [`FILTER_BYTES_MAX`] with real ids anyway.
pub const LIST_ENTRIES_MAX: usize = 2_000;

/// Most patterns with `*` in one list of types. Each is tried on each event, where names are looked up.
pub const PATTERNS_MAX: usize = 100;

/// Most bytes in an event type, a user id or a room id, as the specification limits them; longer ones match nothing.
pub const NAME_BYTES_MAX: usize = 255;

/// Most events that one answer may hold for one room; a greater `limit` means this.
pub const LIMIT_MAX: u32 = 1_000;

/// What a filter asks of `/sync`; also what is stored by `POST /user/{userId}/filter`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Which properties of events to send.
    pub event_fields: EventFields,
    /// In which format to send events.
    pub event_format: EventFormat,
    /// Which presence updates.
    pub presence: EventFilter,
    /// Which account data that belongs to no room.
    pub account_data: EventFilter,
    /// Which rooms and what of them.
    pub room: RoomFilter,
}

/// In which format events are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFormat {
    /// The format for clients.
    #[default]
    Client,
    /// As received over federation.
    Federation,
}

/// What a filter asks of rooms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomFilter {
    rooms: Names,
    /// Whether rooms that the user has left are sent.
    pub include_leave: bool,
    /// Messages and state updates.
    pub timeline: RoomEventFilter,
    /// State events.
    pub state: RoomEventFilter,
    /// Receipts and typing notices.
    pub ephemeral: RoomEventFilter,
    /// The user's account data of rooms.
    pub account_data: RoomEventFilter,
}

impl RoomFilter {
    /// Whether anything of this room is wanted. Comes before the filters of the four parts.
    pub fn includes_room(&self, room_id: &str) -> bool {
        self.rooms.includes(room_id)
    }

    /// Whether no room is left out.
    pub fn includes_every_room(&self) -> bool {
        self.rooms.is_everything()
    }
}

/// Which events, by type and sender.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// Most events to send, 1 to [`LIMIT_MAX`]; the endpoint's default if absent.
    pub limit: Option<u32>,
    types: Types,
    senders: Names,
}

impl EventFilter {
    /// Whether the event is wanted. Presence and account data have no other sender than the user they are about.
    pub fn matches(&self, kind: &str, sender: &str) -> bool {
        self.includes_type(kind) && self.includes_sender(sender)
    }

    /// Whether events of this type can match.
    pub fn includes_type(&self, kind: &str) -> bool {
        self.types.includes(kind)
    }

    /// Whether events of this sender can match.
    pub fn includes_sender(&self, sender: &str) -> bool {
        self.senders.includes(sender)
    }

    /// Whether no sender is left out.
    pub fn includes_every_sender(&self) -> bool {
        self.senders.is_everything()
    }

    /// Whether every event matches, so that none needs to be looked at.
    pub fn is_everything(&self) -> bool {
        self.types.is_everything() && self.senders.is_everything()
    }

    /// Whether no event can match, so that none needs to be read.
    pub fn is_nothing(&self) -> bool {
        self.types.is_nothing() || self.senders.is_nothing()
    }
}

/// Which events of rooms, and what is sent with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomEventFilter {
    /// By type and sender, and how many.
    pub event: EventFilter,
    rooms: Names,
    contains_url: Option<bool>,
    /// Send only the members who sent what is sent.
    pub lazy_load_members: bool,
    /// With `lazy_load_members`: send members again that the client has been sent.
    pub include_redundant_members: bool,
    /// Count notifications for each thread.
    pub unread_thread_notifications: bool,
    /// Only events that an event of one of these senders relates to (MSC3440); empty for no such condition. Needs the
    /// relations of an event, so [`RoomEventFilter::matches`] leaves it to its caller.
    pub related_by_senders: Vec<Box<str>>,
    /// Only events that are related to by one of these relation types (MSC3440); as above.
    pub related_by_rel_types: Vec<Box<str>>,
}

impl RoomEventFilter {
    /// Whether the event is wanted. `has_url` is asked last, and only if it matters: it is to tell whether the event's
    /// content has a `url`, see [`content_has_url`].
    pub fn matches(&self, kind: &str, sender: &str, room_id: &str, has_url: impl FnOnce() -> bool) -> bool {
        self.event.matches(kind, sender)
            && self.includes_room(room_id)
            && self.contains_url.is_none_or(|wanted| wanted == has_url())
    }

    /// Whether receipts or typing notices, as `kind` says, are wanted of this room: of the users whom
    /// [`EventFilter::includes_sender`] includes, since nobody else sends them. They have no `url`.
    pub fn includes_ephemeral(&self, kind: &str, room_id: &str) -> bool {
        self.event.includes_type(kind)
            && !self.event.senders.is_nothing()
            && self.includes_room(room_id)
            && self.contains_url != Some(true)
    }

    /// Whether anything of this room is wanted.
    pub fn includes_room(&self, room_id: &str) -> bool {
        self.rooms.includes(room_id)
    }

    /// Whether every event matches, so that none needs to be looked at.
    pub fn is_everything(&self) -> bool {
        self.event.is_everything()
            && self.rooms.is_everything()
            && self.contains_url.is_none()
            && !self.needs_relations()
    }

    /// Whether no event can match, so that none needs to be read.
    pub fn is_nothing(&self) -> bool {
        self.event.is_nothing() || self.rooms.is_nothing()
    }

    /// Whether the relations to an event decide too.
    pub fn needs_relations(&self) -> bool {
        !self.related_by_senders.is_empty() || !self.related_by_rel_types.is_empty()
    }
}

/// Whether an event's content has a `url`, for [`RoomEventFilter::matches`].
pub fn content_has_url(content: &JsonObject) -> bool {
    content.contains_key("url")
}

/// A list of names to include and one to exclude; sorted, for the search.
#[derive(Clone, Debug, Default, PartialEq)]
struct Names {
    included: Option<Box<[Box<str>]>>,
    excluded: Box<[Box<str>]>,
}

impl Names {
    fn includes(&self, name: &str) -> bool {
        !has_name(&self.excluded, name)
            && self.included.as_ref().is_none_or(|included| has_name(included, name))
    }

    fn is_everything(&self) -> bool {
        self.included.is_none() && self.excluded.is_empty()
    }

    fn is_nothing(&self) -> bool {
        self.included
            .as_ref()
            .is_some_and(|included| included.iter().all(|name| has_name(&self.excluded, name)))
    }
}

/// Whether a sorted list has `name`.
fn has_name(list: &[Box<str>], name: &str) -> bool {
    list.binary_search_by(|entry| (**entry).cmp(name)).is_ok()
}

/// Event types to include and to exclude: names, and patterns with `*`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Types {
    names: Names,
    /// Patterns of `types`; if there are any, `names.included` is `Some`.
    included: Box<[Glob]>,
    excluded: Box<[Glob]>,
}

impl Types {
    fn includes(&self, kind: &str) -> bool {
        if self.is_everything() {
            return true;
        }
        let matches = |patterns: &[Glob]| patterns.iter().any(|pattern| pattern.matches(kind));
        let is_excluded = has_name(&self.names.excluded, kind) || matches(&self.excluded);
        !is_excluded
            && self
                .names
                .included
                .as_ref()
                .is_none_or(|included| has_name(included, kind) || matches(&self.included))
    }

    fn is_everything(&self) -> bool {
        self.names.is_everything() && self.excluded.is_empty()
    }

    fn is_nothing(&self) -> bool {
        self.excluded.iter().any(Glob::is_everything) || (self.included.is_empty() && self.names.is_nothing())
    }
}
