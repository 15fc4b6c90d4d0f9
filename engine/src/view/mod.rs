//! One file per read: a view answers a question from one published moment.

mod account;
mod account_data;
mod joined_rooms;
mod public_rooms;
mod memo;
mod key_backup;
mod key_changes;
mod query_keys;
mod push_rules;
mod media;
#[allow(dead_code)]
pub(crate) mod render;
mod room_alias;
mod room_state;
mod sync;
mod timeline;
pub mod token;

pub use account::*;
pub use account_data::*;
pub use key_backup::{BackupKeys, KeyBackupVersion};
pub use key_changes::{ChangedUsers, KeyChanges};
pub use query_keys::QueryKeys;
pub use joined_rooms::JoinedRooms;
pub use media::{FoundMedia, Media, PendingMedia};
pub use public_rooms::{IsListed, PUBLIC_ROOMS_MAX, PublicRooms, PublicRoomsPage};
pub use room_alias::{RoomAlias, RoomAliases};
pub use room_state::{RoomState, RoomStateEvent};
pub use token::StreamToken;

pub(crate) use memo::{LazyMember, Memo};
pub use push_rules::PushRules;
pub use sync::{Sync, SyncAnswer};
mod context;
mod event_by_timestamp;
mod members;
mod messages;
mod related_events;
mod user_directory;

#[cfg(test)]
mod tests;

pub use context::{CONTEXT_LIMIT_DEFAULT, EventContext, OneEvent};
pub use event_by_timestamp::EventByTimestamp;
pub use members::{JoinedMembers, Members};
pub use messages::{MESSAGES_LIMIT_DEFAULT, Messages};
pub use related_events::{RELATIONS_LIMIT_DEFAULT, RelatedEvents, Threads};
pub use user_directory::{PresenceOf, SearchUsers, USERS_LIMIT_DEFAULT};

use crate::{error::Result, room::unread, store::Reader};

/// A question.
pub trait View {
    /// The answer.
    type Output;

    /// Answers from the reader's moment.
    fn read(&self, reader: &Reader) -> Result<Self::Output>;
}

/// What views remember between reads. Nothing in it is needed: it can be forgotten at any time.
#[derive(Default)]
pub(crate) struct Memo {
    /// Push rules, compiled.
    pub push_rules: crate::account::push_rules::Memo,
    /// What is unread, counted up to some position.
    pub unread: unread::Memo,
}
