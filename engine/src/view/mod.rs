//! One file per read: a view answers a question from one published moment.

mod account;
mod context;
mod event_by_timestamp;
mod joined_rooms;
mod members;
mod messages;
mod related_events;
pub(crate) mod render;
mod room_alias;
mod room_state;
pub(crate) mod timeline;
mod token;
mod user_directory;

#[cfg(test)]
mod tests;

pub use account::*;
pub use context::{CONTEXT_LIMIT_DEFAULT, EventContext, OneEvent};
pub use event_by_timestamp::EventByTimestamp;
pub use joined_rooms::JoinedRooms;
pub use members::{JoinedMembers, Members};
pub use messages::{MESSAGES_LIMIT_DEFAULT, Messages};
pub use related_events::{RELATIONS_LIMIT_DEFAULT, RelatedEvents, Threads};
pub use room_alias::RoomAlias;
pub use room_state::{RoomState, RoomStateEvent};
pub use token::StreamToken;
pub use user_directory::{PresenceOf, SearchUsers, USERS_LIMIT_DEFAULT};

use crate::{error::Result, store::Reader};

/// A question.
pub trait View {
    /// The answer.
    type Output;

    /// Answers from the reader's moment.
    fn read(&self, reader: &Reader) -> Result<Self::Output>;
}

/// What views remember between reads. Nothing in it is needed: it can be forgotten at any time.
#[derive(Default)]
pub(crate) struct Memo {}
