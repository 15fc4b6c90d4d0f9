//! What of other servers' input is not taken is counted, with its reason: requests whose signature or sender is refused, events,
//! and what is told outside of rooms.
//!
//! Whatever else a request is refused for is told by its status, which is counted by endpoint.

use metrics::counter;
use warren_engine::Outcome;
use warren_engine::core::checked::Refused;

/// A request that is not believed, or whose sender is not admitted.
pub fn request(reason: &'static str) {
    counter!("warren_federation_refusals_total", "reason" => reason).increment(1);
}

/// What became of an event. One that still waits, or was known before, is counted when that is over, or was.
pub fn event(outcome: &Outcome) {
    let (outcome, reason) = match outcome {
        Outcome::Accepted => ("accepted", ""),
        Outcome::SoftFailed(denied) => ("soft_failed", denied.rule),
        Outcome::NotRecommended => ("soft_failed", "policy_server"),
        Outcome::Rejected(denied) => ("rejected", denied.rule),
        Outcome::Refused(refused) => return unchecked_event(refused),
        Outcome::Known | Outcome::Stored | Outcome::Waiting => return,
    };
    count_event(outcome, reason);
}

/// An event that fails before any room is looked at.
pub fn unchecked_event(refused: &Refused) {
    dropped_event(match refused {
        Refused::Format(_) => "format",
        Refused::Unsigned(_) => "unsigned",
        Refused::Signature(_) => "wrong_signature",
        Refused::KeyExpired(_) => "key_expired",
        Refused::KeyNeverTrusted(_) => "key_never_trusted",
        Refused::OtherRoom => "other_room",
        Refused::SecondCreate => "second_create",
        Refused::Circular => "circular",
        Refused::Unrelated => "unrelated",
    });
}

/// An event that a rule of the room refuses, by the rule's number.
pub fn rejected_event(rule: &'static str) {
    count_event("rejected", rule);
}

/// An event of which nothing is kept.
pub fn dropped_event(reason: &'static str) {
    count_event("dropped", reason);
}

/// Events of which nothing is kept.
pub fn dropped_events(reason: &'static str, count: u64) {
    count_events("dropped", reason, count);
}

fn count_event(outcome: &'static str, reason: &'static str) {
    count_events(outcome, reason, 1);
}

fn count_events(outcome: &'static str, reason: &'static str, count: u64) {
    if count > 0 {
        counter!("warren_federation_events_total", "outcome" => outcome, "reason" => reason).increment(count);
    }
}

/// Parts of a transaction outside of rooms, or entries in them, that are passed over.
pub fn edus(reason: &'static str, count: u64) {
    counter!("warren_federation_edus_dropped_total", "reason" => reason).increment(count);
}
