//! What views remember between reads. Nothing in it is needed: it can be forgotten at any time.

use dashmap::DashMap;

use crate::core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum};

/// The memories, each bounded.
#[derive(Default)]
pub(crate) struct Memo {
    /// Members that devices were told of.
    pub lazy_members: LazyMembers,
    /// Push rules, compiled.
    pub push_rules: crate::account::push_rules::Memo,
    /// What is unread, counted up to some position.
    pub unread: crate::room::unread::Memo,
    /// Which nodes of state trees are in use, for purges that are under way.
    pub purges: crate::room::purge::Memo,
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
