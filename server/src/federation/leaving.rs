//! `leaving-v1.yaml`, `leaving-v2.yaml`: users of other servers leave, or decline an invite, by way of this one.

use bytes::Bytes;
use warren_engine::view::federation::Handshake;

use super::handshakes::{accept, make};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/make_leave/{roomId}/{userId}"  [] Server Federation Nothing make_leave;
    PUT "/_matrix/federation/v1/send_leave/{roomId}/{eventId}" [] Server Federation Json    send_leave_v1;
    PUT "/_matrix/federation/v2/send_leave/{roomId}/{eventId}" [] Server Federation Json    send_leave_v2;
}

async fn make_leave(call: Call) -> Outcome {
    make(&call, Handshake::Leave).await
}

async fn send_leave_v1(call: Call) -> Outcome {
    leave(&call).await?;
    Ok(Answer::json_bytes(Bytes::from_static(b"[200,{}]")))
}

async fn send_leave_v2(call: Call) -> Outcome {
    leave(&call).await?;
    Ok(Answer::empty())
}

async fn leave(call: &Call) -> Result<(), crate::http::ApiError> {
    call.json_object()?;
    accept(call, Handshake::Leave, call.body().clone()).await.map(drop)
}
