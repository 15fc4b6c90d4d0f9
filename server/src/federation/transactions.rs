//! `transactions.yaml`: what other servers send of their own accord.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use warren_engine::command::{NoteTransaction, ParkPdus, ReceiveEdus};
use warren_engine::core::event::Pdu;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{AnsweredTransaction, IncomingRoom};
use warren_engine::{Denied, Error, Outcome};

use super::out::fetch::{follow_up_on, take_in_here};
use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome as Answered, endpoints};
use crate::worker;

endpoints! {
    PUT "/_matrix/federation/v1/send/{txnId}" [] Server Federation Transaction send_transaction;
}

/// Specification: "List of persistent updates to rooms. Must not include more than 50 PDUs."
const PDUS_MAX: usize = 50;
/// Specification: "Must not include more than 100 EDUs."
const EDUS_MAX: usize = 100;

/// The last transactions of a server whose answers are kept. A server has one under way at a time and goes on when that is
/// answered, so that older ones do not come again; what is kept of it does not grow with what it sends.
const ANSWERS_KEPT: usize = 10;
/// Servers of which it is remembered which transactions were their last, some 500 bytes each. The answers to what is
/// forgotten here are kept for a day.
const ANSWERED_SERVERS_MAX: usize = 20_000;
/// Bytes of the id of a transaction whose answer is kept.
const TRANSACTION_ID_BYTES_MAX: usize = 255;

/// The ids of the last transactions of each server, oldest first.
#[derive(Default)]
pub struct LastAnswers(Mutex<HashMap<String, VecDeque<String>>>);

impl LastAnswers {
    /// Notes one more. Returns the one whose answer need not be kept any more.
    fn note(&self, origin: &str, transaction_id: &str) -> Option<String> {
        if transaction_id.len() > TRANSACTION_ID_BYTES_MAX {
            return None;
        }
        let mut servers = self.0.lock();
        if servers.len() >= ANSWERED_SERVERS_MAX && !servers.contains_key(origin) {
            servers.clear();
        }
        let ids = servers.entry(origin.to_owned()).or_default();
        ids.push_back(transaction_id.to_owned());
        let over = if ids.len() > ANSWERS_KEPT { ids.pop_front() } else { None };
        over.filter(|over| !ids.contains(over))
    }
}

#[derive(Deserialize)]
struct Transaction<'a> {
    #[serde(default, borrow)]
    pdus: Vec<&'a RawValue>,
    #[serde(default, borrow)]
    edus: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct OfRoom {
    room_id: String,
}

async fn send_transaction(call: Call) -> Answered {
    let transaction: Transaction<'_> = call.json()?;
    let origin = call.origin()?.to_string();
    if transaction.pdus.len() > PDUS_MAX || transaction.edus.len() > EDUS_MAX {
        return Err(ApiError::too_large(format!(
            "A transaction may have {PDUS_MAX} PDUs and {EDUS_MAX} EDUs"
        ))
        .with_status(http::StatusCode::BAD_REQUEST));
    }
    let transaction_id = call.path("txnId")?.into_owned();
    let answered = AnsweredTransaction { origin: &origin, transaction_id: &transaction_id };
    if let Some(answer) = call.ctx.engine.read(&answered)? {
        return Ok(Answer::json_bytes(answer));
    }
    let mut rooms: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    for pdu in transaction.pdus {
        // What names no room has no version by which its id could be told, and so no place in the answer.
        if let Ok(OfRoom { room_id }) = serde_json::from_str(pdu.get()) {
            rooms.entry(room_id).or_default().push(Bytes::copy_from_slice(pdu.get().as_bytes()));
        }
    }
    let work = rooms
        .into_iter()
        .map(|(room_id, pdus)| take_in_room(call.ctx.clone(), origin.clone(), room_id, pdus));
    let mut results = Map::new();
    for result in worker::side_by_side(work.collect::<Vec<_>>()).await {
        results.extend(result?);
    }
    // Behind the events, of which some may be what they are about.
    take_in_edus(&call.ctx, &origin, &transaction.edus).await?;
    let answer = json!({ "pdus": results }).to_string().into_bytes();
    let over = call.ctx.federation.answered.note(&origin, &transaction_id);
    let note = NoteTransaction { origin, transaction_id, answer: answer.clone(), over };
    call.ctx.engine.write(note).await?;
    Ok(Answer::json_bytes(answer.into()))
}

/// Takes in what is told outside of rooms. What is malformed is passed over: one bad part must not keep the others away.
async fn take_in_edus(ctx: &Context, origin: &str, edus: &[&RawValue]) -> Result<(), ApiError> {
    let edus: Vec<Value> = edus.iter().filter_map(|edu| serde_json::from_str(edu.get()).ok()).collect();
    let received = ReceiveEdus::new(origin, &edus);
    if !received.is_empty() {
        // Lists of which something is missing are asked for by a task of their own.
        ctx.engine.write(received).await?;
    }
    Ok(())
}

/// Takes in the events of one room. Answers for each by its id.
async fn take_in_room(
    ctx: Arc<Context>,
    origin: String,
    room_id: String,
    pdus: Vec<Bytes>,
) -> Result<Map<String, Value>, ApiError> {
    let mut results = Map::new();
    let version = match ctx.engine.read(&IncomingRoom { room_id: &room_id, server: &origin }) {
        Ok(version) => version,
        // Without the room's version it cannot be told what the events are called.
        Err(Error::NotFound(_)) => return Ok(results),
        Err(Error::Denied(Denied::ServerAcl)) => return shut_out(&ctx, &room_id, &pdus),
        Err(error) => return Err(error.into()),
    };
    let mut intake = Intake::new(room_id.clone(), version, pdus);
    take_in_here(&ctx, &mut intake).await?;
    for (event_id, outcome) in &intake.outcomes {
        let result = match outcome {
            Outcome::Rejected(denied) => refusal(&denied.to_string()),
            Outcome::Refused(refused) => refusal(&refused.to_string()),
            _ => json!({}),
        };
        results.insert(event_id.to_string(), result);
    }
    let waiting = intake.waiting();
    if !waiting.is_empty() {
        let parked = ctx
            .engine
            .write(ParkPdus { room_id: room_id.clone(), origin: origin.clone(), pdus: waiting })
            .await?;
        results.extend(parked.kept.into_iter().map(|event_id| (event_id.to_string(), json!({}))));
        let refused = parked.refused.into_iter();
        results.extend(
            refused.map(|event_id| (event_id.to_string(), refusal("too many events wait in this room"))),
        );
        follow_up_on(&ctx, &room_id, &origin);
    }
    Ok(results)
}

fn refusal(why: &str) -> Value {
    json!({ "error": why })
}

/// What is answered to a server that the room does not let take part. Specification: "Server Access Control Lists (ACLs)".
fn shut_out(ctx: &Context, room_id: &str, pdus: &[Bytes]) -> Result<Map<String, Value>, ApiError> {
    let version = ctx.engine.read(&IncomingRoom { room_id, server: ctx.engine.server_name() })?;
    let ids = pdus.iter().filter_map(|pdu| Pdu::parse(version, pdu).ok()).map(|pdu| pdu.event_id.to_string());
    let why = Denied::ServerAcl.to_string();
    Ok(ids.map(|event_id| (event_id, refusal(&why))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_server_the_answers_to_its_last_transactions_are_kept() {
        let last = LastAnswers::default();
        let note = |origin: &str, number: usize| last.note(origin, &number.to_string());
        assert!((0..ANSWERS_KEPT).all(|number| note("a.example", number).is_none()));
        assert_eq!(note("a.example", ANSWERS_KEPT), Some("0".to_owned()));
        assert_eq!(note("b.example", 0), None);
        // What comes again is among the last.
        assert_eq!(note("a.example", 2), Some("1".to_owned()));
        assert_eq!(note("a.example", ANSWERS_KEPT + 1), None);
        assert_eq!(last.note("b.example", &"x".repeat(TRANSACTION_ID_BYTES_MAX + 1)), None);
    }
}
