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

use super::client::Answer;
use super::{RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{
    TRANSACTION_ANSWER_BYTES_MAX, TRANSACTION_ANSWER_TIME_MAX, TRANSACTION_TIME_MAX,
};

/// What becomes of a part that cannot be sent, or that the server says is no good, as it is counted.
const GIVEN_UP: &str = "given_up";

/// Sends a transaction; one that is too large, or that the server refuses to take as it is, in parts, so that what is wrong with one
/// of them, or too much for a proxy, costs nothing else. What the server finds wrong with single events is theirs and for the log.
///
/// Errors: it could not be sent, or not all of it: then the parts that the server has taken will be sent again, under the same ids
/// unless something that is soon stale was among them, which is left out then.
pub async fn send(ctx: &Context, destination: &str, transaction: Transaction) -> Result<(), RemoteError> {
    let to = ServerName::parse(destination).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let origin = ctx.config.server_name.as_str();
    let mut left = vec![transaction];
    while let Some((part, request)) = next_sendable(origin, destination, &mut left) {
        let outcome = match send_part(ctx, &to, request).await {
            Err(error) if is_of_content(&error) => match halves(&part) {
                Some([first, second]) => {
                    debug!(destination, %error, "a transaction is refused, and is sent in parts");
                    left.extend([second, first]);
                    continue;
                }
                None if is_judgement(&error) => {
                    warn!(destination, %error, "a server refuses what is for it, which is given up");
                    Ok(GIVEN_UP)
                }
                None => Err(error),
            },
            outcome => outcome.map(|()| "taken"),
        };
        count(outcome.as_ref().copied().unwrap_or("failed"));
        outcome?;
    }
    Ok(())
}

fn count(outcome: &'static str) {
    counter!("warren_federation_transactions_sent_total", "outcome" => outcome).increment(1);
}

async fn send_part(ctx: &Context, to: &ServerName, request: Request) -> Result<(), RemoteError> {
    let said = said(request.open(ctx, to).await?).await?;
    debug!(destination = %to, answer = %String::from_utf8_lossy(&said), "a transaction was taken");
    Ok(())
}

/// The first part that can be sent of what is left, and the request that brings it. What cannot be is cut until that is one part
/// alone, which is given up: that is no fault of the server's, and would be the same for ever.
fn next_sendable(
    origin: &str,
    destination: &str,
    left: &mut Vec<Transaction>,
) -> Option<(Transaction, Request)> {
    while let Some(part) = left.pop() {
        let error = match request(origin, &part) {
            Ok(request) => return Some((part, request)),
            Err(error) => error,
        };
        match halves(&part) {
            Some([first, second]) => {
                debug!(destination, %error, "a transaction cannot be sent as it is, and is sent in parts");
                left.extend([second, first]);
            }
            None => {
                warn!(destination, %error, "what is for a server cannot be sent, and is given up");
                count(GIVEN_UP);
            }
        }
    }
    None
}

/// The request that brings a transaction.
///
/// Errors: something in it is no JSON that can be signed, or it is too large.
fn request(origin: &str, transaction: &Transaction) -> Result<Request, RemoteError> {
    let body = transaction.body(origin);
    let body: &RawValue =
        serde_json::from_slice(&body).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let target = format!("/_matrix/federation/v1/send/{}", transaction.id);
    let request = Request::new(Method::PUT, target).with_content(&body)?.with_time(TRANSACTION_TIME_MAX);
    Ok(request.with_bytes_max(TRANSACTION_ANSWER_BYTES_MAX).for_delivery())
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
    use crate::federation::limits::REQUEST_BYTES_MAX;

    fn text(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn nested(depth: usize) -> Bytes {
        text(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)))
    }

    fn transaction(pdus: &[Bytes], edus: &[Bytes]) -> Transaction {
        Transaction { id: "1".to_owned(), origin_server_ts: 1, pdus: pdus.to_vec(), edus: edus.to_vec() }
    }

    /// The parts in which it is sent to somebody who takes everything.
    fn sent(whole: Transaction) -> Vec<Transaction> {
        let mut left = vec![whole];
        let next = || next_sendable("here.example", "there.example", &mut left);
        std::iter::from_fn(next).map(|(part, _)| part).collect()
    }

    /// All events in them, and all else.
    fn together(parts: &[Transaction]) -> [Vec<Bytes>; 2] {
        let pdus = parts.iter().flat_map(|part| part.pdus.clone()).collect();
        let edus = parts.iter().flat_map(|part| part.edus.clone()).collect();
        [pdus, edus]
    }

    #[test]
    fn what_cannot_be_sent_is_given_up_and_nothing_else() {
        let good = [text(r#"{"a":1}"#), nested(1_000)];
        let whole = transaction(&good, &good);
        assert_eq!(sent(whole.clone()), [whole], "in one");
        let long = text(&format!("\"{}\"", "x".repeat(REQUEST_BYTES_MAX)));
        for bad in [long, text("{"), text("nul"), nested(40_000)] {
            let of_events = transaction(&[bad.clone(), good[0].clone(), good[1].clone()], &good);
            let of_others = transaction(&good, &[good[0].clone(), bad.clone(), good[1].clone()]);
            for whole in [of_events, of_others] {
                assert!(together(&sent(whole)) == [good.to_vec(), good.to_vec()]);
            }
            assert!(sent(transaction(&[], &[bad])).is_empty());
        }
    }

    #[test]
    fn what_is_too_large_together_is_sent_in_parts_and_all_of_it() {
        // What a user's many devices may make, and behind them what somebody else has said.
        let large = |count: usize, bytes: usize| -> Vec<Bytes> {
            (0..count).map(|number| text(&format!("\"{number} {}\"", "x".repeat(bytes)))).collect()
        };
        let whole = transaction(&large(50, 60_000), &[large(95, 143_000), large(3, 60_000)].concat());
        let parts = sent(whole.clone());
        assert!(parts.len() > 1);
        assert!(together(&parts) == [whole.pdus, whole.edus], "all of it, in order");
        let mut ids: Vec<_> = parts.iter().map(|part| &part.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), parts.len());
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
