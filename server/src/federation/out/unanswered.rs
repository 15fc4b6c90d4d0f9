//! Events of the past about which their room's policy server has no answer, though it answers about others: whoever makes it fail on an
//! event would else close all history that is before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::federation::limits::{POLICY_TRIES_MAX, SILENT_SERVERS_MAX, UNANSWERED_EVENTS_MAX};

/// For how long a policy server that has signed something is taken to be there.
const SIGNING_TIME: Duration = Duration::from_secs(10 * 60);

/// See the module.
#[derive(Default)]
pub struct Unanswered {
    /// How often each event was asked about in vain.
    tries: Mutex<HashMap<Arc<str>, u32>>,
    /// When policy servers last signed something.
    signing: Mutex<HashMap<String, Instant>>,
}

impl Unanswered {
    /// The policy server has signed something.
    pub fn note_signing(&self, policy_server: &str, now: Instant) {
        let mut signing = self.signing.lock();
        if signing.len() >= SILENT_SERVERS_MAX && !signing.contains_key(policy_server) {
            // Others are taken to be there when they sign next.
            signing.clear();
        }
        signing.insert(policy_server.to_owned(), now);
    }

    /// Whether it has lately.
    pub fn is_signing(&self, policy_server: &str, now: Instant) -> bool {
        let signing = self.signing.lock();
        signing.get(policy_server).is_some_and(|at| now.duration_since(*at) < SIGNING_TIME)
    }

    /// A policy server that signs others had no answer about the event. Returns whether it was asked often enough.
    pub fn is_over(&self, event_id: &Arc<str>) -> bool {
        let mut events = self.tries.lock();
        if events.len() >= UNANSWERED_EVENTS_MAX && !events.contains_key(event_id) {
            // They are asked about a few times more.
            events.clear();
        }
        let tries = events.entry(event_id.clone()).or_default();
        *tries += 1;
        let is_over = *tries >= POLICY_TRIES_MAX;
        if is_over {
            events.remove(event_id);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_server_is_there_that_has_signed_lately() {
        let (unanswered, now) = (Unanswered::default(), Instant::now());
        assert!(!unanswered.is_signing("policy.test", now));
        unanswered.note_signing("policy.test", now);
        assert!(unanswered.is_signing("policy.test", now + SIGNING_TIME / 2));
        assert!(!unanswered.is_signing("policy.test", now + SIGNING_TIME));
    }

    #[test]
    fn an_event_is_asked_about_a_few_times_and_few_are_remembered() {
        let unanswered = Unanswered::default();
        let told =
            |name: &str| (0..POLICY_TRIES_MAX).map(|_| unanswered.is_over(&name.into())).collect::<Vec<_>>();
        let mut expected = vec![false; POLICY_TRIES_MAX as usize];
        expected[POLICY_TRIES_MAX as usize - 1] = true;
        assert_eq!(told("$one"), expected);
        assert_eq!(told("$one"), expected, "it is forgotten");
        for number in 0..2 * UNANSWERED_EVENTS_MAX {
            unanswered.is_over(&format!("${number}").into());
        }
        assert!(unanswered.tries.lock().len() <= UNANSWERED_EVENTS_MAX);
    }
}
