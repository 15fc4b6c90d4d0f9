//! Streams: who has to be told that there is something new.
//!
//! Invariant: whoever waits after having read at a position misses nothing that is published after it.

mod early_presence;
mod marks;
mod presence;
mod wake;

pub use early_presence::EarlyPresence;
pub use presence::{Activity, Claim, PresenceChange};
pub(crate) use presence::{BEFORE_RESTART, ELSEWHERE, ELSEWHERE_HOLD_MS, OFFLINE_AFTER_MS};
pub(crate) use wake::{Standing, TYPING_MS_MAX, Watch};
pub use wake::{Wait, Woken};

use crate::{
    core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    store::{Direction, Reader, StorageError, schema},
};

/// What a batch touched: recorded by the module that wrote, turned into wake-ups in one place when it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Something that everyone in the room is told: an event, a receipt, typing.
    Room(RoomNum),
    /// The room's timeline, elsewhere than at its end: something older came, or was purged. Nobody is told.
    History(RoomNum),
    /// The same, of something that users may have been told of.
    Withdrawn(RoomNum),
    /// The room lacks members from now on, or no longer. Nobody is told.
    Partial(RoomNum),
    /// A receipt in the room, beside whatever else tells of it: where receipts have to be looked for.
    Receipt(RoomNum),
    /// Something about a member that those who share the room are told outside of it: device lists.
    Peers(RoomNum),
    /// Something in a room that only one of its users is told: a private receipt.
    InRoom {
        /// Who is told.
        user: UserNum,
        /// Where it is.
        room: RoomNum,
    },
    /// Something of the user's own: account data, push rules, a receipt, a membership, a to-device message.
    User(UserNum),
    /// What is known of the user's sessions no longer holds: a token ended, the account changed.
    Sessions(UserNum),
    /// The user asked that what they sent be forgotten. Nobody is told.
    Erased(UserNum),
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
    /// How present a user is may have changed. Those who are in a room with them are told if it has.
    Presence {
        /// Who.
        user: UserNum,
        /// How.
        change: PresenceChange,
        /// When, in milliseconds since the epoch.
        now_ms: u64,
    },
    /// Something that other servers are to be sent. No client is told.
    Outgoing(Outgoing),
    /// The room's servers are told again what was said here while they refused it. No client is told.
    ToldAgain {
        /// Where.
        room: RoomNum,
        /// The newest of that which says something.
        newest: Option<EventNum>,
        /// When, in milliseconds since the epoch.
        now_ms: u64,
    },
}

/// Something that other servers are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// An event, to those that are in the room.
    Event(RoomNum),
    /// A server is no longer in the room, and is told what made it so.
    Left {
        /// The server.
        server: TextNum,
        /// The room.
        room: RoomNum,
    },
    /// A server has its first user in the room, and does not know yet who is there.
    Came {
        /// The server.
        server: TextNum,
        /// The room.
        room: RoomNum,
    },
    /// Something stands in the server's queue.
    Queued(TextNum),
    /// A user of this server types in the room, or stopped.
    Typing {
        /// Who.
        user: UserNum,
        /// Where.
        room: RoomNum,
        /// Whether they type.
        typing: bool,
    },
    /// A user of this server read the room, or a thread of it.
    Receipt {
        /// Who.
        user: UserNum,
        /// Where.
        room: RoomNum,
        /// The thread, as it stands in keys.
        thread: TextNum,
    },
    /// How present a user of this server is has changed, or is to be told again.
    Presence(UserNum),
}

/// Lists the user in their rooms, if they are not yet, so that what is new there reaches them.
pub(crate) fn activate(reader: &Reader, user: UserNum) -> Result<(), StorageError> {
    let shared = &reader.shared;
    if !shared.watch.is_active(user) {
        let positions = || (shared.published_pos(), shared.given_out_pos());
        shared.watch.activate(user, reader.joined_rooms(user)?, positions);
    }
    Ok(())
}

/// Marks the rooms that lack members, or did, as the store knows them. O(joins that ever left members out): once, before
/// anybody reads.
pub(crate) fn mark_partial_rooms(reader: &Reader) -> Result<(), StorageError> {
    let marks = &reader.shared.watch.marks;
    reader.scan(
        &schema::PARTIAL_STRETCHES,
        &(),
        Direction::Forward,
        |(room, _): (RoomNum, StreamPos), whole_since| {
            marks.note_partial(room, whole_since);
            true
        },
    )?;
    reader.scan(&schema::PARTIAL_JOINS, &(), Direction::Forward, |room: RoomNum, _| {
        marks.note_partial(room, StreamPos::ZERO);
        true
    })
}
