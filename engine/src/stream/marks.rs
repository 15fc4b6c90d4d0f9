//! Up to where a room had what is rare in it, so that who asks for what is new need not look for it in vain.
//!
//! Invariant: whatever is published after a position, of one of these kinds, is marked before. What there was when the
//! database was opened is not known, but for the rooms that lacked members, which are read then.

use dashmap::DashMap;

use crate::{
    core::num::{RoomNum, StreamPos},
    store::NumberHash,
};

/// The last position of each kind in a room.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    receipt: StreamPos,
    member: StreamPos,
    history: StreamPos,
    withdrawn: StreamPos,
    /// `None`: members were never missing.
    partial: Option<StreamPos>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Marks {
    opened_at: StreamPos,
    rooms: DashMap<RoomNum, Last, NumberHash>,
}

impl Marks {
    /// Marks of what comes after `opened_at`, the last position in the store.
    pub fn new(opened_at: StreamPos) -> Self {
        Self { opened_at, rooms: DashMap::default() }
    }

    /// Notes a receipt.
    pub fn note_receipt(&self, room: RoomNum, pos: StreamPos) {
        let mut last = self.rooms.entry(room).or_default();
        last.receipt = last.receipt.max(pos);
    }

    /// Notes that somebody came or went.
    pub fn note_member(&self, room: RoomNum, pos: StreamPos) {
        let mut last = self.rooms.entry(room).or_default();
        last.member = last.member.max(pos);
    }

    /// Notes that the timeline changed elsewhere than at its end.
    pub fn note_history(&self, room: RoomNum, pos: StreamPos) {
        let mut last = self.rooms.entry(room).or_default();
        last.history = last.history.max(pos);
    }

    /// Notes that something was taken from the timeline that users may have been told of.
    pub fn note_withdrawn(&self, room: RoomNum, pos: StreamPos) {
        self.note_history(room, pos);
        let mut last = self.rooms.entry(room).or_default();
        last.withdrawn = last.withdrawn.max(pos);
    }

    /// Notes that the room lacks members from now on, or no longer.
    pub fn note_partial(&self, room: RoomNum, pos: StreamPos) {
        let mut last = self.rooms.entry(room).or_default();
        last.partial = last.partial.max(Some(pos));
    }

    /// The last position at which the room may have come to lack members, or become whole; `None` if it never lacked any.
    pub fn partial(&self, room: RoomNum) -> Option<StreamPos> {
        self.rooms.get(&room)?.partial
    }

    /// Whether something that was in the timeline at `pos` may have been withdrawn since.
    pub fn may_have_withdrawn(&self, room: RoomNum, pos: StreamPos) -> bool {
        self.rooms.get(&room).is_some_and(|last| last.withdrawn >= pos)
    }

    /// Whether what a reader at `pos` saw of the timeline may have changed since, other than by what came at its end. A
    /// batch that takes no position shares that of the one before it, hence also at `pos` itself.
    pub fn may_have_other_history(&self, room: RoomNum, pos: StreamPos) -> bool {
        self.rooms.get(&room).is_some_and(|last| last.history >= pos)
    }

    /// Whether there may be receipts after `since`.
    pub fn may_have_receipts(&self, room: RoomNum, since: StreamPos) -> bool {
        since < self.opened_at || self.rooms.get(&room).is_some_and(|last| last.receipt > since)
    }

    /// Whether somebody may have come or gone after `since`.
    pub fn may_have_members(&self, room: RoomNum, since: StreamPos) -> bool {
        since < self.opened_at || self.rooms.get(&room).is_some_and(|last| last.member > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_the_start_is_not_ruled_out() {
        let marks = Marks::new(StreamPos(10));
        let room = RoomNum(1);
        assert!(marks.may_have_receipts(room, StreamPos(9)));
        assert!(!marks.may_have_receipts(room, StreamPos(10)));
        marks.note_receipt(room, StreamPos(12));
        assert!(marks.may_have_receipts(room, StreamPos(11)));
        assert!(!marks.may_have_receipts(room, StreamPos(12)));
        assert!(!marks.may_have_members(room, StreamPos(11)));
        assert!(!marks.may_have_receipts(RoomNum(2), StreamPos(11)));
        marks.note_member(room, StreamPos(13));
        assert!(marks.may_have_members(room, StreamPos(12)));
        assert!(!marks.may_have_other_history(RoomNum(2), StreamPos(1)));
        marks.note_history(room, StreamPos(14));
        assert!(marks.may_have_other_history(room, StreamPos(14)));
        assert!(!marks.may_have_other_history(room, StreamPos(15)));
        assert_eq!(marks.partial(room), None);
        marks.note_partial(room, StreamPos(16));
        marks.note_partial(room, StreamPos::ZERO);
        assert_eq!(marks.partial(room), Some(StreamPos(16)));
    }
}
