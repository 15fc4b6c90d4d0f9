//! The engine of the Warren Matrix homeserver: rooms, state, streams and accounts on an embedded store.
//!
//! It never dials out, knows no HTTP and holds no globals. Clock, randomness and storage come from outside.
//!
//! [`Engine::open_embedded`] or [`Engine::open`] makes an [`Engine`]; a write is a value of a type in [`command`], a read of one in
//! [`view`]. [`Engine::wait`] tells of news. What has to be done again and again is in [`housekeeping`]. What goes on with other
//! servers is in [`delivery`], [`reception`], [`intake`], [`fetching`], [`approach`] and [`following`], which say what is to be
//! sent or asked next and do nothing themselves.

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
    receive::{Adopted, GivenState, LeftOut, Outcome, Within, in_order},
};
#[cfg(feature = "rocksdb")]
pub use store::OPEN_FILES_MAX;
pub use store::{
    Durability, StorageError,
    schema::{MediaFile, Membership, PresenceState},
};
pub use stream::{Outgoing, Touch, Wait, Woken};
pub use view::View;

#[cfg(test)]
mod tests {
    #[test]
    fn whoever_reads_of_the_crate_is_shown_a_program_that_compiles() {
        let (shown, example) = (include_str!("../README.md"), include_str!("../examples/chat.rs"));
        assert!(
            shown.contains(&format!("```rust\n{example}```\n")),
            "the README's program is not examples/chat.rs"
        );
    }
}
