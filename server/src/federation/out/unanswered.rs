//! Events of the past on which their room's policy server fails, though it signs others: whoever finds one that it fails on would else
//! close all history that is before it.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;
use warren_engine::WantedSignature;

use crate::federation::limits::{POLICY_PAUSE, POLICY_TRIES_MAX, UNANSWERED_EVENTS_MAX};

/// How often each was asked about in vain, and when that last counted.
#[derive(Default)]
pub struct Unanswered(Mutex<BTreeMap<WantedSignature, (u32, Instant)>>);

impl Unanswered {
    /// The policy server has failed on the event, and signed another at the same time. Returns whether it did so often enough; what
    /// comes soon after the last time is the same failure.
    pub fn is_over(&self, wanted: &WantedSignature, now: Instant) -> bool {
        let mut events = self.0.lock();
        if events.len() >= UNANSWERED_EVENTS_MAX && !events.contains_key(wanted) {
            // They are asked about a few times more.
            events.clear();
        }
        let (tries, last) = events.get(wanted).copied().unwrap_or((0, now));
        if tries > 0 && now.duration_since(last) < POLICY_PAUSE {
            return false;
        }
        events.insert(wanted.clone(), (tries + 1, now));
        tries + 1 >= POLICY_TRIES_MAX
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(unanswered.is_over(&one, now), pauses + 1 == POLICY_TRIES_MAX);
            assert!(!unanswered.is_over(&one, now + POLICY_PAUSE / 2), "it is the same failure");
        }
        assert!(!unanswered.is_over(&wanted("$one", "other.test"), begun + POLICY_TRIES_MAX * POLICY_PAUSE));
        for number in 0..2 * UNANSWERED_EVENTS_MAX {
            unanswered.is_over(&wanted(&format!("${number}"), "policy.test"), begun);
        }
        assert!(unanswered.0.lock().len() <= UNANSWERED_EVENTS_MAX);
    }
}
