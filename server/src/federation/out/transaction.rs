//! One transaction on its way to another server, whole or in parts.
//!
//! Invariant: what was never taken is not given up, unless the server itself says of it alone that it is no good.
//! Specification: server-server API, "Transactions".

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, StatusCode};
use metrics::counter;
use ring::digest;
use ruma_common::ServerName;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{debug, warn};
use warren_engine::command::Transaction;
use warren_engine::core::json::canonical_text;

use super::client::Answer;
use super::{RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{
    REQUEST_BYTES_MAX, TRANSACTION_ANSWER_BYTES_MAX, TRANSACTION_ANSWER_TIME_MAX, TRANSACTION_TIME_MAX,
};

/// What a transaction has beside its parts: names of members, a server's name, and a time.
const ENVELOPE_BYTES: usize = 1024;

/// Sends a transaction; one that the server refuses to take as it is, in parts, so that what is wrong with one of them, or too
/// much for a proxy, costs nothing else. What the server finds wrong with single events is theirs and for the log.
///
/// Errors: it could not be sent, or not all of it: then the parts that the server has taken will be sent again, under the same ids.
pub async fn send(ctx: &Context, destination: &str, transaction: Transaction) -> Result<(), RemoteError> {
    let to = ServerName::parse(destination).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let mut left = vec![transaction];
    while let Some(part) = left.pop() {
        let outcome = match send_part(ctx, &to, &part).await {
            Err(error) if is_of_content(&error) => match halves(&part) {
                Some([first, second]) => {
                    debug!(destination, %error, "a transaction is refused, and is sent in parts");
                    left.extend([second, first]);
                    continue;
                }
                None if is_judgement(&error) => {
                    warn!(destination, %error, "a server refuses what is for it, which is given up");
                    Ok("given_up")
                }
                None => Err(error),
            },
            outcome => outcome,
        };
        counter!("warren_federation_transactions_sent_total", "outcome" => *outcome.as_ref().unwrap_or(&"failed"))
            .increment(1);
        outcome?;
    }
    Ok(())
}

async fn send_part(ctx: &Context, to: &ServerName, part: &Transaction) -> Result<&'static str, RemoteError> {
    let Some(request) = request(ctx.config.server_name.as_str(), to.as_str(), part) else {
        return Ok("given_up");
    };
    let said = said(request.open(ctx, to).await?).await?;
    debug!(destination = %to, answer = %String::from_utf8_lossy(&said), "a transaction was taken");
    Ok("taken")
}

/// Both halves of a transaction, in order; `None` of one that has a single part. A half is known by what is in it: when the
/// whole comes again there may be less in it of what is soon stale, so that it is cut elsewhere.
fn halves(whole: &Transaction) -> Option<[Transaction; 2]> {
    let (events, others) = (whole.pdus.len(), whole.edus.len());
    let count = events + others;
    if count < 2 {
        return None;
    }
    let of_events = events.min(count / 2);
    let of_others = count / 2 - of_events;
    let half = |pdus: &[Bytes], edus: &[Bytes]| {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in pdus.iter().chain(edus) {
            hash.update(part);
            // No part of JSON has it in it, so that none can be taken for two.
            hash.update(&[0]);
        }
        let hash = URL_SAFE_NO_PAD.encode(hash.finish());
        let root = whole.id.split('.').next().unwrap_or_default();
        Transaction {
            id: format!("{root}.{hash}"),
            origin_server_ts: whole.origin_server_ts,
            pdus: pdus.to_vec(),
            edus: edus.to_vec(),
        }
    };
    let ((first_pdus, pdus), (first_edus, edus)) =
        (whole.pdus.split_at(of_events), whole.edus.split_at(of_others));
    Some([half(first_pdus, first_edus), half(pdus, edus)])
}

/// The request that brings a transaction, without those of its parts that cannot be sent: that is no fault of the server's, and
/// would be the same for ever. Nothing if it cannot be sent without them either.
fn request(origin: &str, destination: &str, transaction: &Transaction) -> Option<Request> {
    let failed = match with_all_of(origin, transaction) {
        Ok(request) => return Some(request),
        Err(error) => error,
    };
    let rest = without_unsendable(transaction);
    let pdus = transaction.pdus.len() - rest.pdus.len();
    let edus = transaction.edus.len() - rest.edus.len();
    warn!(destination, error = %failed, pdus, edus, "parts of a transaction cannot be sent and are given up");
    let told =
        |error: &RemoteError| warn!(destination, %error, "a transaction cannot be sent and is given up");
    with_all_of(origin, &rest).inspect_err(told).ok()
}

fn with_all_of(origin: &str, transaction: &Transaction) -> Result<Request, RemoteError> {
    let body = transaction.body(origin);
    let body: &RawValue =
        serde_json::from_slice(&body).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let target = format!("/_matrix/federation/v1/send/{}", transaction.id);
    let request = Request::new(Method::PUT, target).with_content(&body)?.with_time(TRANSACTION_TIME_MAX);
    Ok(request.with_bytes_max(TRANSACTION_ANSWER_BYTES_MAX))
}

/// The transaction without what is no JSON that can be signed, or has no place in a request any more.
fn without_unsendable(transaction: &Transaction) -> Transaction {
    let mut bytes_left = REQUEST_BYTES_MAX - ENVELOPE_BYTES;
    let mut is_sendable = |part: &Bytes| {
        let is_sendable = canonical_text(part, bytes_left).is_ok();
        if is_sendable {
            // With the comma behind it.
            bytes_left = bytes_left.saturating_sub(part.len() + 1);
        }
        is_sendable
    };
    let mut rest = transaction.clone();
    rest.pdus.retain(&mut is_sendable);
    rest.edus.retain(&mut is_sendable);
    rest
}

/// What a server says of the events of a transaction that it has taken, as the status tells whatever follows. It is for the log,
/// and not worth reading if it is long or broken off.
///
/// Errors: `Timeout` if it does not come. Whoever keeps us waiting for it is to be left alone.
async fn said(mut answer: Answer) -> Result<Vec<u8>, RemoteError> {
    answer.end = answer.end.min(Instant::now() + TRANSACTION_ANSWER_TIME_MAX);
    let mut said = Vec::new();
    loop {
        match answer.next().await {
            Ok(Some(piece)) => said.extend_from_slice(&piece),
            Err(RemoteError::Timeout) => return Err(RemoteError::Timeout),
            Ok(None) | Err(_) => return Ok(said),
        }
    }
}

/// Whether a server, or a proxy before it, refuses a transaction for what is in it, or how much. Everything else is something
/// of the server, and may pass.
fn is_of_content(error: &RemoteError) -> bool {
    let RemoteError::Refused { status, .. } = error else { return false };
    matches!(
        *status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// Whether that was the server itself, which has read it and would refuse it for ever: it says why, as the specification wants. A
/// proxy that is set up wrongly refuses everything in its own words, until somebody sees it.
fn is_judgement(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Refused { errcode, error, .. } if errcode != "M_UNRECOGNIZED" && !error.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_given_up_and_nothing_else() {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let nested = |depth: usize| text(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        let long = |bytes: usize| text(&format!("\"{}\"", "x".repeat(bytes)));
        let transaction = |pdus: &[Bytes], edus: &[Bytes]| Transaction {
            id: "1".to_owned(),
            origin_server_ts: 1,
            pdus: pdus.to_vec(),
            edus: edus.to_vec(),
        };
        let good = [text(r#"{"a":1}"#), nested(1_000)];
        let whole = transaction(&good, &good);
        assert!(with_all_of("here.example", &whole).is_ok());
        assert_eq!(without_unsendable(&whole), whole);
        let half = long(REQUEST_BYTES_MAX / 2);
        for (bad, left) in [
            (transaction(&[good[0].clone(), text("{"), good[1].clone()], &good), whole.clone()),
            (
                transaction(&good, &[nested(40_000), good[0].clone(), good[1].clone(), text("")]),
                whole.clone(),
            ),
            (transaction(&[long(REQUEST_BYTES_MAX), good[0].clone(), good[1].clone()], &good), whole.clone()),
            (
                transaction(&[half.clone(), good[0].clone()], &[half.clone(), good[1].clone()]),
                transaction(&[half.clone(), good[0].clone()], &good[1..]),
            ),
        ] {
            assert!(with_all_of("here.example", &bad).is_err());
            assert!(without_unsendable(&bad) == left);
            assert!(request("here.example", "there.example", &bad).is_some());
        }
    }

    #[test]
    fn halves_have_everything_once_in_order_and_are_known_by_it() {
        let parts = |name: &str, count: usize| -> Vec<Bytes> {
            (0..count).map(|number| Bytes::from(format!("\"{name}{number}\""))).collect()
        };
        for (events, others) in [(2, 0), (0, 2), (1, 1), (50, 100), (3, 0), (1, 4), (4, 1)] {
            let (pdus, edus) = (parts("event", events), parts("other", others));
            let whole = Transaction { id: "1-abc".to_owned(), origin_server_ts: 1, pdus, edus };
            let [first, second] = halves(&whole).expect("there are several parts");
            assert_eq!([&first.pdus[..], &second.pdus[..]].concat(), whole.pdus);
            assert_eq!([&first.edus[..], &second.edus[..]].concat(), whole.edus);
            let count = |half: &Transaction| half.pdus.len() + half.edus.len();
            assert_eq!(
                (count(&first), count(&second)),
                ((events + others) / 2, (events + others).div_ceil(2))
            );
            assert!(first.id != second.id && first.id.starts_with("1-abc."));
            assert_eq!(halves(&whole), Some([first.clone(), second]), "the same again");
            if let Some([quarter, _]) = halves(&first) {
                assert_eq!(quarter.id.len(), first.id.len(), "ids do not grow");
            }
        }
        let single = Transaction {
            id: "1".to_owned(),
            origin_server_ts: 1,
            pdus: parts("event", 1),
            edus: Vec::new(),
        };
        assert_eq!(halves(&single), None);
    }
}
