//! `knocks.yaml`: users of other servers knock by way of this one.

use bytes::Bytes;
use warren_engine::view::federation::Handshake;

use super::events::push_joined;
use super::handshakes::{accept, make};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/make_knock/{roomId}/{userId}"  ["unstable/xyz.amorgan.knock"] Server Federation Nothing make_knock;
    PUT "/_matrix/federation/v1/send_knock/{roomId}/{eventId}" ["unstable/xyz.amorgan.knock"] Server Federation Json    send_knock;
}

async fn make_knock(call: Call) -> Outcome {
    make(&call, Handshake::Knock).await
}

async fn send_knock(call: Call) -> Outcome {
    call.json_object()?;
    let (_, room_state) = accept(&call, Handshake::Knock, call.body().clone()).await?;
    let mut chunks = vec![Bytes::from_static(b"{\"knock_room_state\":[")];
    push_joined(&mut chunks, room_state);
    chunks.push(Bytes::from_static(b"]}"));
    Ok(Answer::json_chunks(chunks))
}
