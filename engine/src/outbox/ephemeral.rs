//! What is soon stale: who types, who has read what, who is there. Only in memory, the last of each alone.
//!
//! Invariant: what a server was sent stays at hand until it is asked for what is next, which is when the server has taken that;
//! before, it can be put back. Only that somebody types is told at once or not at all.

use super::delivery::EDUS_MAX;
use crate::core::num::{RoomNum, TextNum, UserNum};

/// What is held goes out at multiples of this time, in milliseconds, so that those who are due are seldom looked for.
const HELD_UNTIL_MS: u64 = 250;

/// Something of which the last alone is told, as it is when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ephemeral {
    /// Whether a user types in a room.
    Typing(RoomNum, UserNum, bool),
    /// How far a user has read a room, or a thread of it.
    Receipt(RoomNum, UserNum, TextNum),
    /// How present a user is, who is in a room with the server.
    Presence(UserNum, RoomNum),
}

impl Ephemeral {
    /// What a later one of the same replaces.
    fn subject(self) -> Self {
        match self {
            Self::Typing(room, user, _) => Self::Typing(room, user, false),
            Self::Presence(user, _) => Self::Presence(user, RoomNum(0)),
            Self::Receipt(..) => self,
        }
    }

    /// Whether it is worth telling to a server that could not be reached for a while.
    pub fn lasts(self) -> bool {
        !matches!(self, Self::Typing(..))
    }
}

/// What is soon stale for one server.
#[derive(Debug, Default)]
pub(super) struct Ephemerals {
    /// What waits, in the order of what it is about.
    waiting: Vec<Ephemeral>,
    /// What lasts of that with which the server was sent something, until it has taken that.
    on_way: Vec<Ephemeral>,
    /// When what waits goes out by itself; `None` if there is none. With anything else it goes before.
    due_ms: Option<u64>,
}

impl Ephemerals {
    /// When what waits goes out by itself; `None` if there is none.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Lets it wait in the place of what was known of the same, unless there are `max` others. It goes out in `held_ms` by itself.
    pub fn add(&mut self, ephemeral: Ephemeral, max: usize, now_ms: u64, held_ms: u64) {
        match self.place(ephemeral) {
            Ok(at) => {
                if let Some(known) = self.waiting.get_mut(at) {
                    *known = ephemeral;
                }
            }
            Err(at) if self.waiting.len() < max => self.waiting.insert(at, ephemeral),
            Err(_) => return,
        }
        let until_ms = match held_ms {
            0 => now_ms,
            // As much as goes out at once waits for no more.
            _ if self.waiting.len() >= EDUS_MAX => now_ms,
            _ => now_ms.saturating_add(held_ms).next_multiple_of(HELD_UNTIL_MS),
        };
        self.goes_out_by(until_ms);
    }

    /// Takes what goes out next, at most `limit`. The server has taken what it was sent before.
    pub fn take(&mut self, limit: usize) -> Vec<Ephemeral> {
        let count = limit.min(self.waiting.len());
        let taken: Vec<Ephemeral> = self.waiting.drain(..count).collect();
        self.on_way = taken.iter().copied().filter(|ephemeral| ephemeral.lasts()).collect();
        if self.waiting.is_empty() {
            self.due_ms = None;
        }
        taken
    }

    /// What the server was sent and has not taken, as far as is known, waits again, unless there is later of the same. No more
    /// than `max` are added to.
    pub fn put_back(&mut self, max: usize, now_ms: u64) {
        for ephemeral in std::mem::take(&mut self.on_way) {
            if let Err(at) = self.place(ephemeral)
                && self.waiting.len() < max
            {
                self.waiting.insert(at, ephemeral);
                self.goes_out_by(now_ms);
            }
        }
    }

    /// Keeps what is worth telling later, `max` at most.
    pub fn keep_lasting(&mut self, max: usize) {
        self.waiting.retain(|ephemeral| ephemeral.lasts());
        self.waiting.truncate(max);
        self.waiting.shrink_to_fit();
        if self.waiting.is_empty() {
            self.due_ms = None;
        }
    }

    /// Where it is, or else belongs.
    fn place(&self, ephemeral: Ephemeral) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&ephemeral.subject(), |known| known.subject())
    }

    fn goes_out_by(&mut self, until_ms: u64) {
        self.due_ms = Some(self.due_ms.map_or(until_ms, |known| known.min(until_ms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomNum = RoomNum(1);
    const NOW_MS: u64 = 1_000;

    fn receipt(user: u64) -> Ephemeral {
        Ephemeral::Receipt(ROOM, UserNum(user), TextNum(1))
    }

    #[test]
    fn what_is_put_back_waits_with_what_came_since_and_is_no_more_than_there_is_room_for() {
        let (elsewhere, typing) = (RoomNum(2), Ephemeral::Typing(ROOM, UserNum(1), true));
        let present = |room| Ephemeral::Presence(UserNum(1), room);
        let mut ephemerals = Ephemerals::default();
        for ephemeral in [present(ROOM), receipt(1), receipt(2), typing] {
            ephemerals.add(ephemeral, 10, NOW_MS, 0);
        }
        assert_eq!(ephemerals.take(10), [typing, receipt(1), receipt(2), present(ROOM)]);
        assert_eq!(ephemerals.due_ms(), None);
        for ephemeral in [present(elsewhere), receipt(3), typing] {
            ephemerals.add(ephemeral, 10, NOW_MS, 400);
        }
        ephemerals.put_back(10, NOW_MS + 1);
        assert_eq!(ephemerals.due_ms(), Some(NOW_MS + 1), "that has waited long enough");
        ephemerals.keep_lasting(10);
        let all = [receipt(1), receipt(2), receipt(3), present(elsewhere)];
        assert_eq!(ephemerals.take(10), all);
        // It has taken them: nothing is left to be put back.
        assert_eq!(ephemerals.take(0), []);
        ephemerals.put_back(10, NOW_MS);
        assert_eq!((ephemerals.take(10), ephemerals.due_ms()), (Vec::new(), None));
        // There is room for two; what is known already needs none.
        for ephemeral in all {
            ephemerals.add(ephemeral, 2, NOW_MS, 0);
        }
        ephemerals.add(receipt(2), 0, NOW_MS, 0);
        ephemerals.take(1);
        ephemerals.add(receipt(4), 2, NOW_MS, 0);
        ephemerals.put_back(2, NOW_MS);
        assert_eq!(ephemerals.take(10), [receipt(2), receipt(4)]);
        ephemerals.put_back(10, NOW_MS);
        ephemerals.keep_lasting(0);
        assert_eq!((ephemerals.take(10), ephemerals.due_ms()), (Vec::new(), None));
    }
}
