//! The notifications of one thread that a user has not read: the last ones one by one, those before them as a sum.
//!
//! Invariant: the counts are exact. What a pile cannot answer exactly, because it falls among the summed, it says so and
//! leaves to be counted anew. So a pile is small however much is unread, and read marks, which move to the end as a rule,
//! cost nothing.

use std::collections::VecDeque;

use crate::core::num::StreamPos;

/// How many notifications are held one by one: what a screen shows is read at once, and eight bytes each are copied with
/// every new one.
const RECENT_MAX: usize = 32;

/// What falls among notifications that are no longer held one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uncertain;

/// One event that notifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Notification {
    /// Its position, and whether it is highlighted in the lowest bit.
    packed: i64,
}

impl Notification {
    fn new(pos: StreamPos, is_highlight: bool) -> Self {
        Self { packed: (pos.0 << 1) | i64::from(is_highlight) }
    }

    fn pos(self) -> StreamPos {
        StreamPos(self.packed >> 1)
    }

    fn highlights(self) -> u64 {
        u64::from(self.packed & 1 == 1)
    }
}

/// The older notifications.
#[derive(Clone, Copy, Debug)]
struct Summed {
    first: StreamPos,
    last: StreamPos,
    notifications: u64,
    highlights: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Pile {
    summed: Option<Summed>,
    /// Ascending, behind what is summed.
    recent: VecDeque<Notification>,
}

impl Pile {
    /// Adds a notification behind all others.
    pub fn push(&mut self, pos: StreamPos, is_highlight: bool) {
        if self.recent.len() >= RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            let pos = oldest.pos();
            let summed =
                self.summed.get_or_insert(Summed { first: pos, last: pos, notifications: 0, highlights: 0 });
            summed.last = pos;
            summed.notifications += 1;
            summed.highlights += oldest.highlights();
        }
        self.recent.push_back(Notification::new(pos, is_highlight));
    }

    /// Notifications, and how many of them are highlighted.
    pub fn counts(&self) -> (u64, u64) {
        let summed = self.summed.map_or((0, 0), |summed| (summed.notifications, summed.highlights));
        let highlights: u64 = self.recent.iter().map(|recent| recent.highlights()).sum();
        (summed.0 + self.recent.len() as u64, summed.1 + highlights)
    }

    /// The position of the last one.
    pub fn last(&self) -> Option<StreamPos> {
        let recent = self.recent.back().map(|recent| recent.pos());
        recent.or(self.summed.map(|summed| summed.last))
    }

    /// What it takes beside itself, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Notification>() * self.recent.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.summed.is_none() && self.recent.is_empty()
    }

    /// Drops what is at or before `read`.
    pub fn drop_read(&mut self, read: StreamPos) -> Result<(), Uncertain> {
        match self.summed {
            Some(summed) if summed.last <= read => self.summed = None,
            Some(summed) if summed.first <= read => return Err(Uncertain),
            Some(_) => return Ok(()),
            None => {}
        }
        while self.recent.front().is_some_and(|oldest| oldest.pos() <= read) {
            self.recent.pop_front();
        }
        Ok(())
    }

    /// Drops the notification at `pos`, if there is one.
    pub fn drop_one(&mut self, pos: StreamPos) -> Result<(), Uncertain> {
        if self.summed.is_some_and(|summed| (summed.first..=summed.last).contains(&pos)) {
            return Err(Uncertain);
        }
        self.recent.retain(|recent| recent.pos() != pos);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What can happen to a pile.
    #[derive(Clone, Debug)]
    enum Step {
        Push { behind: i64, is_highlight: bool },
        Read(i64),
        Redact(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..4_i64, any::<bool>()).prop_map(|(behind, is_highlight)| Step::Push { behind, is_highlight }),
            1 => (0..400_i64).prop_map(Step::Read),
            1 => (0..400_i64).prop_map(Step::Redact),
        ]
    }

    proptest! {
        /// Against a plain list: whatever is answered is right, and what is refused lies among the summed.
        #[test]
        fn counts_as_a_list_does(steps in prop::collection::vec(step(), 0..200)) {
            let mut pile = Pile::default();
            let mut list: Vec<(i64, bool)> = Vec::new();
            let mut last = 0;
            for step in steps {
                match step {
                    Step::Push { behind, is_highlight } => {
                        last += behind;
                        pile.push(StreamPos(last), is_highlight);
                        list.push((last, is_highlight));
                    }
                    Step::Read(pos) => {
                        if pile.drop_read(StreamPos(pos)).is_ok() {
                            list.retain(|(at, _)| *at > pos);
                        } else {
                            let recent = list.len().saturating_sub(RECENT_MAX);
                            prop_assert!(list[..recent].iter().any(|(at, _)| *at <= pos));
                        }
                    }
                    Step::Redact(pos) => {
                        if pile.drop_one(StreamPos(pos)).is_ok() {
                            list.retain(|(at, _)| *at != pos);
                        }
                    }
                }
                let highlights = list.iter().filter(|(_, is_highlight)| *is_highlight).count() as u64;
                prop_assert_eq!(pile.counts(), (list.len() as u64, highlights));
                prop_assert_eq!(pile.is_empty(), list.is_empty());
                prop_assert!(pile.recent.len() <= RECENT_MAX);
            }
        }
    }

    #[test]
    fn says_when_it_cannot_tell() {
        let mut pile = Pile::default();
        for pos in 1..=100 {
            pile.push(StreamPos(pos), pos % 10 == 0);
        }
        assert_eq!(pile.counts(), (100, 10));
        assert_eq!(pile.drop_read(StreamPos(50)), Err(Uncertain));
        assert_eq!(pile.drop_one(StreamPos(50)), Err(Uncertain));
        assert_eq!(pile.counts(), (100, 10));
        assert_eq!(pile.drop_one(StreamPos(95)), Ok(()));
        assert_eq!(pile.drop_read(StreamPos(90)), Ok(()));
        assert_eq!(pile.counts(), (9, 1));
        assert_eq!(pile.drop_read(StreamPos(100)), Ok(()));
        assert!(pile.is_empty());
    }
}
