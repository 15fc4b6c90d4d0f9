//! One file per write: a command is read a snapshot, decide, return one batch.

mod accept_membership;
mod account_data;
mod adopt_state;
mod carry_settings;
mod change_account;
mod change_membership;
mod change_push_rules;
mod claim_keys;
mod create_room;
mod delete_to_device;
mod deliver;
mod directory;
mod forget_device;
mod forget_room;
mod key_backup;
mod log_in;
mod media;
mod merge_ends;
mod next_transaction;
mod note_out_of_band;
pub(crate) mod outsiders;
mod park_pdus;
mod passing_token;
mod profile;
mod prune;
mod purge;
mod receive_edus;
mod receive_invite;
mod receive_pdus;
mod register;
mod remind_of_leave;
mod remote_devices;
mod remove_guests;
mod renew_key_stock;
mod rotate_signing_key;
mod send_event;
mod send_to_device;
mod set_presence;
mod set_receipts;
mod set_typing;
mod settle_receipts;
mod show_signed_invite;
mod store_published_keys;
mod store_server_keys;
#[cfg(feature = "testing")]
pub mod testing;
mod try_store;
mod unchecked_events;
mod upgrade_guest;
mod upgrade_room;
mod upload_cross_signing_keys;
mod upload_keys;
mod upload_signatures;
mod with_signed;

pub use accept_membership::{AcceptMembership, AcceptedMembership};
pub use account_data::{SetAccountData, SetTag, StoreFilter};
pub use adopt_state::AdoptState;
pub use carry_settings::CarrySettings;
pub use change_account::{ChangePassword, Deactivate, EndDeactivation, SetAccount};
pub use change_membership::{ChangeMembership, MembershipAction};
pub use change_push_rules::{ChangePushRules, PushRuleChange};
pub use claim_keys::{CLAIM_BATCH, ClaimKeys, ClaimedKey, WantedKey};
pub use create_room::{CreateRoom, InitialState};
pub use delete_to_device::DeleteToDevice;
pub use deliver::{DeliveryFailed, DeliveryShelved, HeardFromServer, ResetDestination};
pub use directory::{ListRoom, MoveNames, RemoveAlias, SetAlias};
pub use forget_room::ForgetRoom;
pub use key_backup::{CreateKeyBackup, DeleteBackupKeys, DeleteKeyBackup, PutBackupKeys, UpdateKeyBackup};
pub use log_in::{EndOlderTokens, LogIn, NoteSeen, RefreshTokens, RemoveDevices, RenameDevice, WhichDevices};
pub use media::{CreateMedia, CreatedMedia, NoteMediaAccess, StoreMedia, StoreRemoteMedia};
pub use merge_ends::MergeEnds;
pub use next_transaction::{NextTransaction, NextUp, Transaction};
pub use note_out_of_band::{LeaveOutOfBand, NoteKnock, NoteTurnedAway};
pub use park_pdus::{ParkPdus, Parked, ReleasePdus};
pub use passing_token::{MakePassingToken, SpendPassingToken};
pub use profile::{LeaveProfileUnshown, SetProfileField, ShowProfile};
pub use prune::{Prune, PruneProgress};
pub use purge::{PurgeBefore, PurgeHistory, PurgeRoom, StepPurge};
pub use receive_edus::{NoteTransaction, ReceiveEdus, TakenEdus};
pub use receive_invite::{ReceiveInvite, ReceivedInvite};
pub use receive_pdus::{CompleteState, EnterRoom, ReceivePdus, Received, StoreOutliers};
pub use register::{MakeFirstToken, MakeRegistrationToken, NewRegistrationToken, Register, Registered};
pub use remind_of_leave::RemindOfLeave;
pub use remote_devices::{DoubtDeviceLists, FOLLOW_BATCH, FollowDevices, RemoteDevice, StoreRemoteDevices};
pub use remove_guests::{KeepGuests, RemoveGuests};
pub use renew_key_stock::RenewKeyStock;
pub use rotate_signing_key::{RotateSigningKey, RotatedKeys};
pub use send_event::{SendEvent, Sent, SetCanonicalAlias, ShutOutGuests};
pub use send_to_device::{DeviceMessage, SendToDevice};
pub use set_presence::{EndPresence, ForgetPresence, SetPresence, SettlePresence, ShowPresence};
pub use set_receipts::SetReceipts;
pub use set_typing::{EndTyping, SetTyping};
pub use settle_receipts::SettleReceipts;
pub use show_signed_invite::ShowSignedInvite;
pub use store_published_keys::StorePublishedKeys;
pub use store_server_keys::StoreServerKeys;
pub use try_store::TryStore;
pub use unchecked_events::{
    KeepUnchecked, TakeUnchecked, TakenUnchecked, UNCHECKED_BYTES_MAX, UNCHECKED_EVENTS_MAX, Unchecked,
};
pub use upgrade_guest::UpgradeGuest;
pub use upgrade_room::UpgradeRoom;
pub use upload_cross_signing_keys::{CrossSigningUpload, UploadCrossSigningKeys};
pub use upload_keys::UploadKeys;
pub use upload_signatures::{SignatureFailure, SignedKey, ToldMasterKey, UploadSignatures};
pub use with_signed::WithSigned;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use crate::{core::checked::CheckedPdu, error::Result, store::Tx};

/// A write. It may be run more than once before it takes effect, so it decides only from what it is given and reads.
pub trait Command {
    /// What it answers.
    type Output;

    /// What it must have for itself while it decides: every row that it reads and then writes must belong to one of
    /// these.
    fn lanes(&self) -> Lanes;

    /// Reads, decides, writes into the transaction.
    fn run(&self, tx: &mut Tx) -> Result<Self::Output>;
}

/// The lanes of a command: rooms, users and names that nobody else may change meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Vec<u64>);

impl Lanes {
    /// None: the command only writes rows that no other command depends on.
    pub fn none() -> Self {
        Self::default()
    }

    /// A room, by its id.
    pub fn room(self, room_id: &str) -> Self {
        self.add(("room", room_id))
    }

    /// A user's own things, by the user's id.
    pub fn user(self, user_id: &str) -> Self {
        self.add(("user", user_id))
    }

    /// A name that must be unique: an alias, a token.
    pub fn name(self, name: &str) -> Self {
        self.add(("name", name))
    }

    /// The ids of events that are stored, if it is servers that choose them, as in room versions 1 and 2: one may be given to events of
    /// two rooms, and stands for that which comes first. All such events go one after the other, since these versions are rare; where ids
    /// are hashes, this is none.
    pub(crate) fn event_ids<'a>(self, pdus: impl IntoIterator<Item = &'a Arc<CheckedPdu>>) -> Self {
        // Only a chosen id names a server: a hash has no colon in it.
        match pdus.into_iter().any(|checked| checked.pdu().event_id.contains(':')) {
            true => self.add(("event ids", "")),
            false => self,
        }
    }

    fn add(mut self, lane: (&str, &str)) -> Self {
        // Keyed with constants: which commands share a lane by accident must not differ between runs of a simulation.
        self.0.push(BuildHasherDefault::<DefaultHasher>::default().hash_one(lane));
        self
    }

    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied()
    }
}
