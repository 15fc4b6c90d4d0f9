//! What is soon stale: who types, who has read what, who is there. Only in memory, the last of each alone.
//!
//! Invariant: what a server was sent stays at hand until it is asked for what is next, which is when the server has taken that;
//! before, it can be put back. Only that somebody types is told at once or not at all. Of receipts it is known behind which
//! position all came that are here, so that those for which there is no place can be looked for (`missed`).

use super::delivery::EDUS_MAX;
use crate::core::num::{RoomNum, StreamPos, TextNum, UserNum};

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

    /// Whether it is in the store, and can be looked for there.
    pub fn is_receipt(&self) -> bool {
        matches!(self, Self::Receipt(..))
    }
}

/// The earlier of two positions that may not be there.
pub(super) fn earlier(one: Option<StreamPos>, other: Option<StreamPos>) -> Option<StreamPos> {
    one.into_iter().chain(other).min()
}

fn has_receipts(ephemerals: &[Ephemeral]) -> bool {
    ephemerals.iter().any(Ephemeral::is_receipt)
}

/// What is soon stale for one server.
#[derive(Debug, Default)]
pub(super) struct Ephemerals {
    /// What waits, in the order of what it is about.
    waiting: Vec<Ephemeral>,
    /// What lasts of that with which the server was sent something, until it has taken that.
    on_way: Vec<Ephemeral>,
    /// All receipts that wait came behind this position; `None` if none waits.
    waiting_behind: Option<StreamPos>,
    /// The same of those that are on their way.
    on_way_behind: Option<StreamPos>,
    /// When what waits goes out by itself; `None` if there is none. With anything else it goes before.
    due_ms: Option<u64>,
}

impl Ephemerals {
    /// When what waits goes out by itself; `None` if there is none.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// How much waits.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Behind which position all receipts came that are here, but for those on their way if it `has_taken` them; `None` if none is.
    pub fn behind(&self, has_taken: bool) -> Option<StreamPos> {
        earlier(self.waiting_behind, self.on_way_behind.filter(|_| !has_taken))
    }

    /// Lets it wait in the place of what was known of the same, unless there are `max` others; answers whether it does. It came
    /// behind a position, and goes out in `held_ms` by itself.
    pub fn add(
        &mut self,
        ephemeral: Ephemeral,
        behind: StreamPos,
        max: usize,
        now_ms: u64,
        held_ms: u64,
    ) -> bool {
        match self.place(ephemeral) {
            Ok(at) => {
                if let Some(known) = self.waiting.get_mut(at) {
                    *known = ephemeral;
                }
            }
            Err(at) if self.waiting.len() < max => self.waiting.insert(at, ephemeral),
            Err(_) => return false,
        }
        if ephemeral.is_receipt() {
            self.waiting_behind = earlier(self.waiting_behind, Some(behind));
        }
        let until_ms = match held_ms {
            0 => now_ms,
            // As much as goes out at once waits for no more.
            _ if self.waiting.len() >= EDUS_MAX => now_ms,
            _ => now_ms.saturating_add(held_ms).next_multiple_of(HELD_UNTIL_MS),
        };
        self.goes_out_by(until_ms);
        true
    }

    /// Takes what goes out next, at most `limit`. The server has taken what it was sent before.
    pub fn take(&mut self, limit: usize) -> Vec<Ephemeral> {
        let count = limit.min(self.waiting.len());
        let taken: Vec<Ephemeral> = self.waiting.drain(..count).collect();
        self.on_way = taken.iter().copied().filter(|ephemeral| ephemeral.lasts()).collect();
        let behind = self.waiting_behind;
        self.on_way_behind = behind.filter(|_| has_receipts(&self.on_way));
        self.waiting_behind = behind.filter(|_| has_receipts(&self.waiting));
        if self.waiting.is_empty() {
            self.due_ms = None;
        }
        taken
    }

    /// What the server was sent and has not taken, as far as is known, waits again, unless there is later of the same. No more
    /// than `max` are added to. Answers behind which position receipts came that found no place, if there are any.
    pub fn put_back(&mut self, max: usize, now_ms: u64) -> Option<StreamPos> {
        let behind = self.on_way_behind.take();
        let mut lost = None;
        for ephemeral in std::mem::take(&mut self.on_way) {
            let Err(at) = self.place(ephemeral) else { continue };
            if self.waiting.len() < max {
                self.waiting.insert(at, ephemeral);
                self.goes_out_by(now_ms);
            } else if ephemeral.is_receipt() {
                lost = behind;
            }
        }
        self.waiting_behind = earlier(self.waiting_behind, behind).filter(|_| has_receipts(&self.waiting));
        lost
    }

    /// Keeps what is worth telling later, `max` at most. Answers behind which position receipts came that are not kept, if there
    /// are any.
    pub fn keep_lasting(&mut self, max: usize) -> Option<StreamPos> {
        self.waiting.retain(|ephemeral| ephemeral.lasts());
        let receipts = self.waiting.iter().filter(|ephemeral| ephemeral.is_receipt()).count();
        // Receipts stand first.
        self.waiting.truncate(max);
        self.waiting.shrink_to_fit();
        let behind = self.waiting_behind;
        self.waiting_behind = behind.filter(|_| has_receipts(&self.waiting));
        if self.waiting.is_empty() {
            self.due_ms = None;
        }
        behind.filter(|_| receipts > max)
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
    const BEHIND: StreamPos = StreamPos(5);

    fn receipt(user: u64) -> Ephemeral {
        Ephemeral::Receipt(ROOM, UserNum(user), TextNum(1))
    }

    #[test]
    fn what_is_put_back_waits_with_what_came_since_and_is_no_more_than_there_is_room_for() {
        let (elsewhere, typing) = (RoomNum(2), Ephemeral::Typing(ROOM, UserNum(1), true));
        let present = |room| Ephemeral::Presence(UserNum(1), room);
        let mut ephemerals = Ephemerals::default();
        for ephemeral in [present(ROOM), receipt(1), receipt(2), typing] {
            assert!(ephemerals.add(ephemeral, BEHIND, 10, NOW_MS, 0));
        }
        assert_eq!(ephemerals.take(10), [typing, receipt(1), receipt(2), present(ROOM)]);
        assert_eq!(ephemerals.due_ms(), None);
        for ephemeral in [present(elsewhere), receipt(3), typing] {
            assert!(ephemerals.add(ephemeral, BEHIND, 10, NOW_MS, 400));
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
            assert_eq!(ephemerals.add(ephemeral, BEHIND, 2, NOW_MS, 0), ephemeral < receipt(3));
        }
        assert!(ephemerals.add(receipt(2), BEHIND, 0, NOW_MS, 0));
        ephemerals.take(1);
        assert!(ephemerals.add(receipt(4), BEHIND, 2, NOW_MS, 0));
        ephemerals.put_back(2, NOW_MS);
        assert_eq!(ephemerals.take(10), [receipt(2), receipt(4)]);
        ephemerals.put_back(10, NOW_MS);
        ephemerals.keep_lasting(0);
        assert_eq!((ephemerals.take(10), ephemerals.due_ms()), (Vec::new(), None));
    }

    #[test]
    fn it_is_known_behind_what_all_receipts_came_that_are_here_and_that_found_no_place() {
        let mut ephemerals = Ephemerals::default();
        let add = |ephemerals: &mut Ephemerals, user, behind| {
            ephemerals.add(receipt(user), StreamPos(behind), 3, NOW_MS, 0)
        };
        assert!(ephemerals.add(Ephemeral::Presence(UserNum(1), ROOM), StreamPos(1), 3, NOW_MS, 0));
        assert_eq!(ephemerals.behind(false), None, "no receipt is here");
        assert!(add(&mut ephemerals, 1, 7) && add(&mut ephemerals, 2, 8));
        assert!(!add(&mut ephemerals, 3, 9), "there is no place");
        assert_eq!(ephemerals.take(1), [receipt(1)]);
        assert_eq!(
            (ephemerals.behind(false), ephemerals.behind(true)),
            (Some(StreamPos(7)), Some(StreamPos(7)))
        );
        assert_eq!(ephemerals.take(2).len(), 2);
        assert_eq!((ephemerals.behind(false), ephemerals.behind(true)), (Some(StreamPos(7)), None));
        // It fails with that, and so much has come since that the one that was on its way has no place.
        assert!([3, 4, 5].into_iter().all(|user| add(&mut ephemerals, user, 20)));
        assert_eq!(ephemerals.put_back(3, NOW_MS), Some(StreamPos(7)));
        assert_eq!(ephemerals.put_back(3, NOW_MS), None, "that is over");
        assert_eq!(ephemerals.keep_lasting(3), None);
        assert_eq!(ephemerals.keep_lasting(1), Some(StreamPos(7)));
        assert_eq!((ephemerals.take(3), ephemerals.take(0)), (vec![receipt(3)], Vec::new()));
        assert_eq!((ephemerals.behind(false), ephemerals.keep_lasting(0)), (None, None));
    }
}
