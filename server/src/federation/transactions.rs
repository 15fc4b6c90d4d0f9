//! `transactions.yaml`: what other servers send of their own accord.

use std::sync::Arc;

use warren_engine::reception::{Body, EDUS_MAX, PDUS_MAX, Reception, RoomReception};

use super::out::fetch::{follow_up, take_in_here};
use super::refusals;
use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome as Answered, endpoints};
use crate::worker;

endpoints! {
    PUT "/_matrix/federation/v1/send/{txnId}" [] Server Federation Transaction send_transaction;
}

async fn send_transaction(call: Call) -> Answered {
    let (origin, transaction_id) = (call.origin()?.to_string(), call.path("txnId")?.into_owned());
    let body: Body<'_> = call.json()?;
    let Some(mut reception) = Reception::new(origin, transaction_id, &body) else {
        let limits = format!("A transaction may have {PDUS_MAX} PDUs and {EDUS_MAX} EDUs");
        return Err(ApiError::too_large(limits).with_status(http::StatusCode::BAD_REQUEST));
    };
    let engine = &call.ctx.engine;
    if let Some(answer) = reception.answered(engine)? {
        return Ok(Answer::json_bytes(answer));
    }
    let rooms = reception.rooms().into_iter().map(|room| take_in_room(call.ctx.clone(), room));
    for room in worker::side_by_side(rooms.collect::<Vec<_>>()).await {
        reception.took_in(room?);
    }
    if let Some(edus) = reception.edus() {
        // Lists of which something is missing are asked for by a task of their own.
        reception.took_in_edus(engine.write(edus).await?);
    }
    let dropped = reception.dropped();
    dropped.pdus.iter().for_each(|(reason, count)| refusals::dropped_events(reason, *count));
    dropped.edus.iter().for_each(|(reason, count)| refusals::edus(reason, *count));
    let note = reception.answer();
    let answer = note.answer.clone();
    engine.write(note).await?;
    Ok(Answer::json_bytes(answer.into()))
}

/// Takes in the events of one room. What lacks something is fetched for behind.
async fn take_in_room(ctx: Arc<Context>, mut room: RoomReception) -> Result<RoomReception, ApiError> {
    if let Some(mut intake) = room.begin(&ctx.engine)? {
        take_in_here(&ctx, &mut intake).await?;
        if let Some(park) = room.judged(&intake) {
            room.parked(ctx.engine.write(park).await?);
            follow_up(&ctx, room.room_id());
        }
    }
    Ok(room)
}
