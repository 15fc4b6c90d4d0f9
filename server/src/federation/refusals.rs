//! What of other servers' input is not taken is counted, with its reason: requests, answers, templates and keys, well-known
//! files, events, and what is told outside of rooms.
//!
//! Every reason is one of few that this server knows, never a word of another server: there is no end of those.

use metrics::counter;
use warren_engine::core::checked::Refused;
use warren_engine::{Error, Invalid, Outcome};

use super::large_bodies::BUSY;
use crate::http::{ApiError, Endpoint};

/// A request that is refused for something that its sender could do otherwise, or for want of a place, by the endpoint's name.
pub fn request(endpoint: &'static Endpoint, error: &ApiError) {
    if let Some(name) = name(endpoint.path)
        && (error.status.is_client_error() || error.reason == BUSY)
    {
        count(name, error.reason);
    }
}

/// The name of an endpoint for other servers: what follows the version in its path.
fn name(path: &'static str) -> Option<&'static str> {
    let mut segments = path.strip_prefix("/_matrix/")?.split('/');
    let is_for_servers = matches!(segments.next(), Some("federation" | "key" | "policy"));
    segments.nth(1).filter(|_| is_for_servers)
}

/// What another server answered, and is not taken.
pub fn answer(reason: &'static str) {
    count("answer", reason);
}

/// Entries of an answer that are left out, where the others are taken.
pub fn entries(count: u64) {
    if count > 0 {
        counter!("warren_federation_refusals_total", "what" => "answer", "reason" => "unfit_entry")
            .increment(count);
    }
}

/// A template for an event that is not signed, by the member that is for something else than was asked.
pub fn template(error: &Error) {
    let reason = match error {
        Error::Invalid(Invalid::Template(member)) => *member,
        Error::Invalid(Invalid::RoomVersion(_)) => "room_version",
        Error::Invalid(Invalid::Event(_)) => "event",
        _ => "unfit",
    };
    count("template", reason);
}

/// What a server publishes of its keys, or a notary tells of it.
pub fn keys(reason: &'static str) {
    count("keys", reason);
}

/// A server's well-known file that is of no use.
pub fn well_known(reason: &'static str) {
    count("well_known", reason);
}

fn count(what: &'static str, reason: &'static str) {
    counter!("warren_federation_refusals_total", "what" => what, "reason" => reason).increment(1);
}

/// What became of an event. One that still waits, or was known before, is counted when that is over, or was.
pub fn event(outcome: &Outcome) {
    let (outcome, reason) = match outcome {
        Outcome::Accepted => ("accepted", ""),
        Outcome::SoftFailed(denied) => ("soft_failed", denied.rule),
        Outcome::NotRecommended => ("soft_failed", "policy_server"),
        Outcome::Rejected(denied) => ("rejected", denied.rule),
        Outcome::Refused(refused) => return unchecked_event(refused),
        Outcome::Past => return dropped_event("history"),
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
        Refused::OtherVersion => "other_version",
        Refused::Circular => "circular",
        Refused::Unrelated => "unrelated",
        Refused::Outsider => "outsider",
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
    if count > 0 {
        counter!("warren_federation_edus_dropped_total", "reason" => reason).increment(count);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_cannot_be_of_a_room_is_counted_by_why() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            unchecked_event(&Refused::Circular);
            unchecked_event(&Refused::OtherVersion);
        });
        let page = recorder.handle().render();
        for reason in ["circular", "other_version"] {
            let line = format!(r#"warren_federation_events_total{{outcome="dropped",reason="{reason}"}} 1"#);
            assert!(page.contains(&line), "{page}");
        }
    }

    #[test]
    fn endpoints_for_servers_have_a_name() {
        for (path, expected) in [
            ("/_matrix/federation/v2/invite/{roomId}/{eventId}", Some("invite")),
            ("/_matrix/federation/v1/query/{queryType}", Some("query")),
            ("/_matrix/key/v2/server", Some("server")),
            ("/_matrix/policy/v1/sign", Some("sign")),
            ("/_matrix/client/v3/sync", None),
            ("/health", None),
        ] {
            assert_eq!(name(path), expected, "{path}");
        }
    }
}
