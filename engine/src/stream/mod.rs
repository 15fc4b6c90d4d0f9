//! Streams: who has to be told that there is something new.
//!
//! Invariant: whoever waits after having read at a position misses nothing that is published after it.

mod marks;
mod wake;

pub use wake::Wait;
pub(crate) use wake::{Standing, Watch};

use crate::core::num::{RoomNum, UserNum};

/// What a batch touched: recorded by the module that wrote, turned into wake-ups in one place when it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Something that everyone in the room is told: an event, a receipt, typing.
    Room(RoomNum),
    /// A receipt in the room, beside whatever else tells of it: where receipts have to be looked for.
    Receipt(RoomNum),
    /// Something about a member that those who share the room are told outside of it: device lists, presence.
    Peers(RoomNum),
    /// Something of the user's own: account data, push rules, a receipt, a membership, a to-device message.
    User(UserNum),
    /// What is known of the user's sessions no longer holds: a token ended, the account changed.
    Sessions(UserNum),
    /// The user is now in the room, or no longer.
    Membership {
        /// Who.
        user: UserNum,
        /// Where.
        room: RoomNum,
        /// Whether the user is joined now.
        joined: bool,
    },
    /// The user types in the room until the time (milliseconds since the epoch), or stopped (zero).
    Typing {
        /// Who.
        user: UserNum,
        /// Where.
        room: RoomNum,
        /// When it ends by itself.
        until_ms: u64,
    },
}
