//! What views remember between reads. Nothing in it is needed: it can be forgotten at any time.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

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
    /// Moderation policy lists.
    pub policy_lists: crate::room::policy_lists::Memo,
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
            policy_lists: Default::default(),
            devices: Cache::new(DEVICES_BYTES_MAX),
            sections: Cache::new(SECTIONS_BYTES_MAX),
        }
    }
}

/// A room as a device is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LazyRoom {
    pub user: UserNum,
    pub device: Option<TextNum>,
    pub room: RoomNum,
}

/// Which membership event a device was given, in the answer at which position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LazySent {
    pub event: EventNum,
    pub at: StreamPos,
}

/// How many (device, member) pairs are remembered: some 100 bytes each, or 300 where it is one of a room. Who is forgotten is
/// sent again, no more.
const LAZY_MEMBERS_MAX: usize = 100_000;

/// The membership events that devices were given with lazy loading, so that they are not given again.
#[derive(Default)]
pub(crate) struct LazyMembers {
    rooms: DashMap<LazyRoom, HashMap<UserNum, LazySent>>,
    /// How many events those are.
    count: AtomicUsize,
}

impl LazyMembers {
    pub fn get(&self, room: &LazyRoom, member: UserNum) -> Option<LazySent> {
        self.rooms.get(room)?.get(&member).copied()
    }

    pub fn put(&self, room: LazyRoom, member: UserNum, sent: LazySent) {
        if self.count.load(Ordering::Relaxed) >= LAZY_MEMBERS_MAX {
            self.rooms.clear();
            self.count.store(0, Ordering::Relaxed);
        }
        if self.rooms.entry(room).or_default().insert(member, sent).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A device that begins anew with a room has nothing of it: what it was given before belongs to another sequence of syncs.
    pub fn forget(&self, room: &LazyRoom) {
        let Some((_, members)) = self.rooms.remove(room) else { return };
        // Should all be forgotten in this moment, it goes below zero, round to very many, and with the next all are again.
        self.count.fetch_sub(members.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_were_given_takes_little_memory() {
        let members = LazyMembers::default();
        let room = |number: usize| LazyRoom { user: UserNum(1), device: None, room: RoomNum(number as u64) };
        let sent = LazySent { event: EventNum(1), at: StreamPos(1) };
        for number in 0..2 * LAZY_MEMBERS_MAX {
            members.put(room(number % 7), UserNum(number as u64), sent);
            assert!(members.count.load(Ordering::Relaxed) <= LAZY_MEMBERS_MAX);
        }
        for number in 0..7 {
            members.forget(&room(number));
            assert!(members.get(&room(number), UserNum(number as u64)).is_none());
        }
        assert_eq!(members.count.load(Ordering::Relaxed), 0, "what is forgotten makes room for others");
    }
}
