//! `read_markers.yaml`: the place up to which a user has fully read a room, and receipts along with it.

use serde::Deserialize;
use warren_engine::command::SetReceipts;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/rooms/{roomId}/read_markers" ["r0"] Guest Send Json set_read_marker;
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<String>,
    #[serde(rename = "m.read")]
    read: Option<String>,
    #[serde(rename = "m.read.private")]
    read_private: Option<String>,
}

async fn set_read_marker(call: Call) -> Outcome {
    let body: Body = call.json_or_empty()?;
    let receipts = SetReceipts {
        room_id: call.path("roomId")?.into_owned(),
        user: call.user()?.to_string(),
        read: body.read,
        read_private: body.read_private,
        fully_read: body.fully_read,
        thread_id: None,
    };
    call.ctx.engine.write(receipts).await?;
    Ok(Answer::empty())
}
