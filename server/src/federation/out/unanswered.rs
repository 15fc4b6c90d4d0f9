//! Events that policy servers gave nothing about, or refused while they signed no other, though they were asked time and again: whoever
//! finds one on which it fails would else close all history that is before it, and a policy server that is gone would have all that is
//! sent wait for it.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;
use warren_engine::WantedSignature;

use crate::federation::limits::{POLICY_PAUSE, POLICY_TRIES_MAX, UNANSWERED_EVENTS_MAX};

/// How often one was asked about in vain, and when that last counted.
type Tries = (u32, Instant);

/// Events that were asked about in vain.
#[derive(Default)]
pub struct Unanswered(Mutex<BTreeMap<WantedSignature, Tries>>);

fn is_over(tries: Option<&Tries>) -> bool {
    tries.is_some_and(|(tries, _)| *tries >= POLICY_TRIES_MAX)
}

fn is_due(tries: Option<&Tries>, now: Instant) -> bool {
    tries.is_none_or(|(_, last)| now.duration_since(*last) >= POLICY_PAUSE)
}

impl Unanswered {
    /// Whether an event was asked about in vain so often that it goes without the signature.
    pub fn is_over(&self, wanted: &WantedSignature) -> bool {
        is_over(self.0.lock().get(wanted))
    }

    /// Whether it would count now that it was asked about in vain: what comes soon after the last time is the same failure.
    pub fn is_due(&self, wanted: &WantedSignature, now: Instant) -> bool {
        is_due(self.0.lock().get(wanted), now)
    }

    /// Notes that an event was asked about in vain, if that counts. Returns whether it is over with it.
    pub fn note(&self, wanted: &WantedSignature, now: Instant) -> bool {
        let mut events = self.0.lock();
        if is_due(events.get(wanted), now) {
            if events.len() >= UNANSWERED_EVENTS_MAX && !events.contains_key(wanted) {
                // They are asked about a few times more.
                events.clear();
            }
            let (tries, last) = events.entry(wanted.clone()).or_insert((0, now));
            (*tries, *last) = (*tries + 1, now);
        }
        is_over(events.get(wanted))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use warren_engine::PolicyServer;

    use super::*;

    fn wanted(event_id: &str, name: &str) -> WantedSignature {
        let policy = PolicyServer { name: name.to_owned(), public_key: Vec::new() };
        WantedSignature { event_id: event_id.into(), policy }
    }

    #[test]
    fn an_event_is_asked_about_a_few_times_with_pauses_and_few_are_remembered() {
        let (unanswered, begun) = (Unanswered::default(), Instant::now());
        let one = wanted("$one", "policy.test");
        for pauses in 0..POLICY_TRIES_MAX {
            let now = begun + pauses * POLICY_PAUSE;
            let is_last = pauses + 1 == POLICY_TRIES_MAX;
            assert!(unanswered.is_due(&one, now) && !unanswered.is_over(&one));
            assert_eq!(unanswered.note(&one, now), is_last);
            let soon = now + POLICY_PAUSE / 2;
            assert!(!unanswered.is_due(&one, soon));
            assert_eq!(unanswered.note(&one, soon), is_last, "it is the same failure");
            assert_eq!(unanswered.is_over(&one), is_last);
        }
        let other = wanted("$one", "other.test");
        assert!(!unanswered.is_over(&other) && !unanswered.note(&other, begun));
        for number in 0..2 * UNANSWERED_EVENTS_MAX {
            unanswered.note(&wanted(&format!("${number}"), "policy.test"), begun);
        }
        assert!(unanswered.0.lock().len() <= UNANSWERED_EVENTS_MAX);
    }

    #[test]
    fn failures_that_come_together_count_once() {
        const TOGETHER: usize = 4;
        let (unanswered, begun) = (Unanswered::default(), Instant::now());
        for number in 0..1000 {
            let (one, start) = (wanted(&format!("${number}"), "policy.test"), Barrier::new(TOGETHER));
            std::thread::scope(|scope| {
                for _ in 0..TOGETHER {
                    scope.spawn(|| {
                        start.wait();
                        unanswered.note(&one, begun);
                    });
                }
            });
            assert_eq!(unanswered.0.lock().get(&one).map(|(tries, _)| *tries), Some(1));
        }
    }
}
