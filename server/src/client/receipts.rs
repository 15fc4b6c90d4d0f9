//! `receipts.yaml`: how far users have read.

use serde::Deserialize;
use serde_json::Value;
use warren_engine::command::SetReceipts;

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}" ["r0"] Guest Send Json post_receipt;
}

#[derive(Deserialize)]
struct Body {
    thread_id: Option<Value>,
}

async fn post_receipt(call: Call) -> Outcome {
    let body: Body = call.json_or_empty()?;
    let thread_id = match body.thread_id {
        None => None,
        Some(Value::String(thread_id)) => Some(thread_id),
        Some(_) => return Err(ApiError::invalid_param("thread_id must be a non-empty string")),
    };
    let event_id = Some(call.path("eventId")?.into_owned());
    let receipts = SetReceipts {
        room_id: call.path("roomId")?.into_owned(),
        user: call.user()?.to_string(),
        thread_id,
        ..SetReceipts::default()
    };
    let receipts = match &*call.path("receiptType")? {
        "m.read" => SetReceipts { read: event_id, ..receipts },
        "m.read.private" | "org.matrix.msc2285.read.private" => {
            SetReceipts { read_private: event_id, ..receipts }
        }
        "m.fully_read" => SetReceipts { fully_read: event_id, ..receipts },
        _ => {
            return Err(ApiError::invalid_param(
                "The receipt type must be m.read, m.read.private or m.fully_read",
            ));
        }
    };
    call.ctx.engine.write(receipts).await?;
    Ok(Answer::empty())
}
