//! What views remember between reads. Nothing in it is needed: it can be forgotten at any time.

use dashmap::DashMap;

use crate::{
    core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    room::tail::{Tail, Tails},
    store::Cache,
    view::sync::{DeviceFacts, Section},
};

/// Bytes for the last events of rooms: some two thousand rooms in which something happens.
const TAILS_BYTES_MAX: usize = 2 << 20;
/// Bytes for what is known of devices: some ten thousand that sync.
const DEVICES_BYTES_MAX: usize = 4 << 20;
/// Bytes for news of rooms as they are sent; they serve for a moment.
const SECTIONS_BYTES_MAX: usize = 2 << 20;

/// The memories, each bounded.
pub(crate) struct Memo {
    /// Members that devices were told of.
    pub lazy_members: LazyMembers,
    /// Push rules, compiled.
    pub push_rules: crate::account::push_rules::Memo,
    /// What is unread, counted up to some position.
    pub unread: crate::room::unread::Memo,
    /// Which nodes of state trees are in use, for purges that are under way.
    pub purges: crate::room::purge::Memo,
    /// The last events of rooms.
    pub tails: Tails,
    /// Whom users ignore.
    pub ignored: crate::room::ignored::Memo,
    /// What every sync of a device asks for.
    pub devices: Cache<(UserNum, TextNum), DeviceFacts>,
    /// News of rooms, rendered for all who wait for them.
    pub sections: Cache<RoomNum, Section>,
}

impl Default for Memo {
    fn default() -> Self {
        Self {
            lazy_members: LazyMembers::default(),
            push_rules: Default::default(),
            unread: Default::default(),
            purges: Default::default(),
            tails: Cache::<_, Tail>::new(TAILS_BYTES_MAX),
            ignored: Default::default(),
            devices: Cache::new(DEVICES_BYTES_MAX),
            sections: Cache::new(SECTIONS_BYTES_MAX),
        }
    }
}

/// A member of a room as a device was told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LazyMember {
    pub user: UserNum,
    pub device: Option<TextNum>,
    pub room: RoomNum,
    pub member: UserNum,
}

/// Which membership event a device was given, in the answer at which position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LazySent {
    pub event: EventNum,
    pub at: StreamPos,
}

/// How many (device, member) pairs are remembered: some 100 bytes each. Who is forgotten is sent again, no more.
const LAZY_MEMBERS_MAX: usize = 100_000;

/// The membership events that devices were given with lazy loading, so that they are not given again.
#[derive(Default)]
pub(crate) struct LazyMembers(DashMap<LazyMember, LazySent>);

impl LazyMembers {
    pub fn get(&self, key: &LazyMember) -> Option<LazySent> {
        self.0.get(key).map(|sent| *sent)
    }

    pub fn put(&self, key: LazyMember, event: EventNum, at: StreamPos) {
        if self.0.len() >= LAZY_MEMBERS_MAX {
            self.0.clear();
        }
        self.0.insert(key, LazySent { event, at });
    }
}
