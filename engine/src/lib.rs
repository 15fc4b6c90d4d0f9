//! The engine of the Warren Matrix homeserver: rooms, state, streams and accounts on an embedded store.
//!
//! It never dials out, knows no HTTP and holds no globals. Clock, randomness and storage come from outside.

#![deny(unsafe_code, missing_docs)]

pub mod account;
pub mod approach;
pub mod check;
pub mod command;
pub mod core;
pub mod delivery;
pub mod device;
mod engine;
mod error;
pub mod fetching;
#[cfg(test)]
mod fixture;
pub mod following;
pub mod hierarchy;
pub mod housekeeping;
pub mod intake;
mod media;
mod open;
mod outbox;
pub mod reception;
pub mod remote;
pub mod room;
pub mod store;
mod stream;
pub mod view;

pub use command::{Command, Lanes};
pub use engine::{Clock, Committer, Engine, Options, Pending, Random, SystemClock, SystemRandom};
pub use error::{Conflict, Denied, Error, Invalid, Missing, Result, What};
pub use outbox::OutgoingNews;
pub use room::{
    Freed, Preset, PurgeProgress, RoomSummary, SpaceChild, SpaceRoom,
    policy::{PolicyServer, UnsignedEvent, WantedSignature},
    receive::{Adopted, AdoptedEntry, GivenState, LeftOut, Outcome, Within, in_order},
};
pub use store::{
    Durability, StorageError,
    schema::{MediaFile, Membership, PresenceState},
};
pub use stream::{Outgoing, Touch, Wait, Woken};
pub use view::View;
