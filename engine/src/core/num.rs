//! The dense integers that stand for rooms, users, events and texts inside the engine.
//!
//! Invariant: a number, once on disk, means the same thing for ever. Strings are translated at the edge (`store::intern`).

use serde::{Deserialize, Serialize};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);
    )*};
}

numbers! {
    /// A room.
    RoomNum(u64);
    /// A user, local or remote.
    UserNum(u64);
    /// An event.
    EventNum(u64);
    /// An interned text: an event type, a state key, a device id.
    TextNum(u32);
    /// A node of a room's state tree; as a root it is a snapshot of the room's state. Zero is the empty state.
    NodeId(u64);
}

/// A (type, state key) pair: the type's number above the state key's, so that all of one type lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateKeyId(pub u64);

impl StateKeyId {
    /// The id of the pair.
    pub fn new(kind: TextNum, state_key: TextNum) -> Self {
        Self(u64::from(kind.0) << 32 | u64::from(state_key.0))
    }

    /// The number of the event type.
    pub fn kind(self) -> TextNum {
        TextNum((self.0 >> 32) as u32)
    }

    /// The number of the state key.
    pub fn state_key(self) -> TextNum {
        TextNum(self.0 as u32)
    }
}

/// A place in the one stream of everything a client can be told about.
///
/// Live positions grow upwards from 1; backfilled history has negative ones, growing downwards. Positions at the
/// very top are placeholders: "the n-th position of the batch being made"; they become real when the batch is staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamPos(pub i64);

/// How many placeholders there can be, that is, how many positions one batch may take: as many as their index has. A gap
/// in a timeline takes some millions at once.
const PLACEHOLDERS: i64 = 1 << 32;

impl StreamPos {
    /// Before every live position.
    pub const ZERO: Self = Self(0);
    /// After every position.
    pub const MAX: Self = Self(i64::MAX);

    /// The placeholder for the `index`-th position of the batch being made.
    pub(crate) fn placeholder(index: u32) -> Self {
        Self(i64::MAX - PLACEHOLDERS + i64::from(index))
    }

    /// Which position of its batch this placeholder stands for, or `None` for a real position.
    pub(crate) fn placeholder_index(self) -> Option<u32> {
        // Saturating: positions that clients name may be as low as they like.
        let index = self.0.saturating_sub(i64::MAX - PLACEHOLDERS);
        (0..PLACEHOLDERS).contains(&index).then_some(index as u32)
    }
}
