//! One file per read: a view answers a question from one published moment.

mod account;
mod account_data;
mod check_pdus;
mod context;
mod event_by_timestamp;
pub mod federation;
mod frontier;
mod gone_presences;
mod have_devices;
mod history_gap;
mod joined_rooms;
mod key_backup;
mod key_changes;
mod master_keys_elsewhere;
mod may_upgrade;
mod media;
mod members;
mod memo;
mod messages;
mod public_rooms;
mod purges;
mod push_rules;
mod query_keys;
mod related_events;
pub(crate) mod render;
mod replaced_room;
mod room_alias;
mod room_state;
mod rooms_to_merge;
mod senders;
mod server_keys;
mod space_room;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod timeline;
pub mod token;
mod unfinished;
mod user_directory;

#[cfg(test)]
mod tests;

pub use account::*;
pub use account_data::*;
pub use check_pdus::{CheckHistory, CheckPdus};
pub use context::{CONTEXT_LIMIT_DEFAULT, EventContext, OneEvent};
pub use event_by_timestamp::{ClosestEvent, EventByTimestamp};
pub use frontier::{Frontier, FrontierEvent, RoomFrontier};
pub use gone_presences::GonePresences;
pub use have_devices::HaveDevices;
pub use history_gap::{BeforeGap, HistoryGap, OpenGap};
pub use joined_rooms::JoinedRooms;
pub use key_backup::{BackupKeys, KeyBackupVersion};
pub use key_changes::{ChangedUsers, KeyChanges};
pub use master_keys_elsewhere::{UnknownMasterKey, UnknownMasterKeys, WithOwnSignatures};
pub use may_upgrade::MayUpgrade;
pub use media::{FoundMedia, Media, PendingMedia, RemoteMedia, StoredFiles};
pub use members::{AwaitedMembers, JoinedMembers, Members, Whose};
pub(crate) use memo::{LazyRoom, LazySent, Memo};
pub use messages::{MESSAGES_LIMIT_DEFAULT, Messages};
pub use public_rooms::{IsListed, PUBLIC_ROOMS_MAX, PublicRooms, PublicRoomsPage};
pub use purges::{OlderThan, Purges};
pub use push_rules::PushRules;
pub use query_keys::QueryKeys;
pub use related_events::{RELATIONS_LIMIT_DEFAULT, RelatedEvents, Threads};
pub use replaced_room::ReplacedRoom;
pub use room_alias::{AliasesElsewhere, RoomAlias, RoomAliases};
pub use room_state::{RoomState, RoomStateEvent};
pub use rooms_to_merge::RoomsToMerge;
pub use server_keys::{OwnOldKeys, PublishedKeys, PublishedKeysOf, StandingOfKey};
pub use space_room::{IsShownElsewhere, KnownRoom, RoomOfSpace};
pub use sync::{Sync, SyncAnswer};
pub use token::{StreamToken, SyncToken};
pub use unfinished::{
    OverdueInvite, OverdueInvites, RoomsWithGuestsToRemove, SomeOverdueInvites, UncarriedSettings,
    UncarriedSettingsIn, UnshownProfiles, UnshownProfilesIn,
};
pub use user_directory::{IsPresent, PresenceOf, SearchUsers, USERS_LIMIT_DEFAULT};

use crate::{error::Result, store::Reader};

/// A question.
pub trait View {
    /// The answer.
    type Output;

    /// Answers from the reader's moment.
    fn read(&self, reader: &Reader) -> Result<Self::Output>;
}
