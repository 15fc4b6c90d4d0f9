//! What other servers ask for. One file per question; who may ask is `room::peer`'s to say.
//!
//! Long answers are lists of numbers, eight bytes for each event, which are then read piece by piece ([`Pdus`],
//! [`EventIds`]), so that nobody has to hold the hundred thousand events of a large room's state at once.
//! Specification: server-server API.

mod absent_policy_lists;
mod answered_transaction;
mod backfill;
mod countersign_join;
mod destinations;
mod device_lists;
mod due_destinations;
mod due_receipts;
mod early_presence;
mod ephemeral_edus;
mod event_auth;
mod events_by_id;
mod events_not_in_graph;
mod hierarchy;
mod incoming_room;
mod is_accepted;
mod is_joined;
mod is_to_be_reminded;
mod is_untold;
mod join_state;
mod make_invite;
mod make_membership;
mod missing_events;
mod out_of_band_membership;
mod parked_pdus;
mod pdus;
mod peer_event_by_timestamp;
mod policy_opinion;
mod policy_probes;
mod policy_signature;
mod pruned_events;
mod servers_in_room;
mod shares_room;
mod sign_template;
mod spokesmen;
mod state_at;
mod state_since;
mod unchecked_events;
mod unknown_events;
mod user_devices;
mod wanted_whole;
mod way_into_room;

#[cfg(test)]
mod tests;

pub use crate::room::{handshake::Handshake, policy_lists::PolicyRefusal};
pub use absent_policy_lists::AbsentPolicyLists;
pub use answered_transaction::AnsweredTransaction;
pub use backfill::{BACKFILL_LIMIT_MAX, Backfill};
pub use countersign_join::CountersignJoin;
pub use destinations::{DestinationOf, DestinationRooms, DestinationStatus, Destinations, RoomForServer};
pub use device_lists::{
    AreDevicesFollowed, Doubtful, DoubtfulDeviceLists, StaleDeviceList, StaleDeviceLists,
};
pub use due_destinations::{
    Due, DueDestinations, IsBackingOff, IsSlow, LeaveDestination, MakeDue, MayBeBack,
};
pub use due_receipts::DueReceipts;
pub use early_presence::TakeEarlyPresence;
pub use ephemeral_edus::EphemeralEdus;
pub use event_auth::EventAuth;
pub use events_by_id::{EVENTS_BY_ID_MAX, EventsById};
pub use events_not_in_graph::EventsNotInGraph;
pub use hierarchy::{Hierarchy, PeerHierarchy};
pub use incoming_room::IncomingRoom;
pub use is_accepted::IsAccepted;
pub use is_joined::IsJoined;
pub use is_to_be_reminded::IsToBeReminded;
pub use is_untold::{IsUntold, IsUntoldOfEnd, UntoldEnds};
pub use join_state::{JoinAnswer, JoinState};
pub use make_invite::{Invite, MakeInvite};
pub use make_membership::{MakeMembership, MembershipTemplate};
pub use missing_events::{MISSING_EVENTS_LIMIT_DEFAULT, MISSING_EVENTS_LIMIT_MAX, MissingEvents};
pub use out_of_band_membership::{EndableMembership, OpenMembership, OutOfBandMembership};
pub use parked_pdus::{
    ParkedOrigins, ParkedPdus, ParkedRooms, PartialRoom, PartialRooms, RoomsWithEarlyReceipts, WaitingPdu,
};
pub use pdus::{EventIds, PduList, Pdus, Piece};
pub use peer_event_by_timestamp::PeerEventByTimestamp;
pub use policy_opinion::{Opinion, PolicyOpinion, ProtectedRoom};
pub use policy_probes::PolicyProbes;
pub use policy_signature::PolicySignature;
pub use pruned_events::PrunedEvents;
pub use servers_in_room::ServersInRoom;
pub use shares_room::SharesRoom;
pub use sign_template::{SignTemplate, SignedEvent, TakeSignature, TakenSignature};
pub use spokesmen::Spokesmen;
pub use state_at::{StateAnswer, StateAt};
pub use state_since::{ChangedEntry, ChangedState, StateSince};
pub use unchecked_events::{AwaitedKeys, AwaitedServers, UncheckedEvents, WaitingForKeys};
pub use unknown_events::UnknownEvents;
pub use user_devices::UserDevices;
pub use wanted_whole::WantedWhole;
pub use way_into_room::{Way, WayIntoRoom};
