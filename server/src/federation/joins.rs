//! `joins-v1.yaml`, `joins-v2.yaml`: users of other servers join by way of this one.

use bytes::Bytes;
use serde_json::json;
use warren_engine::view::federation::{CountersignJoin, Handshake, JoinAnswer, JoinState};

use super::handshakes::{accept, make};
use super::lists::{self, Part};
use super::room_answers::RoomPlace;
use crate::http::{ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/make_join/{roomId}/{userId}"  [] Server Federation Nothing make_join;
    PUT "/_matrix/federation/v1/send_join/{roomId}/{eventId}" [] Server Federation Json    send_join_v1;
    PUT "/_matrix/federation/v2/send_join/{roomId}/{eventId}" [] Server Federation Json    send_join_v2;
}

async fn make_join(call: Call) -> Outcome {
    make(&call, Handshake::Join).await
}

async fn send_join_v1(mut call: Call) -> Outcome {
    let (place, event, answer) = join(&mut call, false).await?;
    let parts = parts(&call, event, answer);
    Ok(lists::answer(&call.ctx, place, "[200,", parts, "]"))
}

async fn send_join_v2(mut call: Call) -> Outcome {
    let omit_members = call.query_bool("omit_members", false)?;
    let (place, event, answer) = join(&mut call, omit_members).await?;
    let mut parts = parts(&call, event, answer.clone());
    parts.push(("members_omitted", Part::Json(json!(answer.members_omitted).to_string().into())));
    parts.push(("servers_in_room", Part::Json(json!(answer.servers_in_room).to_string().into())));
    Ok(lists::answer(&call.ctx, place, "", parts, ""))
}

fn parts(call: &Call, event: Bytes, answer: JoinAnswer) -> Vec<(&'static str, Part)> {
    vec![
        ("origin", Part::Json(json!(call.ctx.config.server_name).to_string().into())),
        ("event", Part::Json(event)),
        ("state", Part::Pdus(answer.state)),
        ("auth_chain", Part::Pdus(answer.auth_chain)),
    ]
}

async fn join(call: &mut Call, omit_members: bool) -> Result<(RoomPlace, Bytes, JoinAnswer), ApiError> {
    call.json_object()?;
    // Who has to ask again has not joined yet. Whoever is asked whether they may takes nobody's place meanwhile.
    let in_line = call.ctx.federation.room_answers.before_join(call)?;
    let (room_id, event_id) = (call.path("roomId")?.into_owned(), call.path("eventId")?.into_owned());
    let server = call.origin()?.to_string();
    let countersign =
        CountersignJoin { room_id: &room_id, event_id: &event_id, pdu: call.body(), server: &server };
    let pdu = call.ctx.engine.read(&countersign)?;
    // What is written around the event, and how, may be four times as much.
    call.drop_body();
    let (event, _) = accept(call, Handshake::Join, pdu).await?;
    let place = call.ctx.federation.room_answers.after_join(call).await?;
    drop(in_line);
    let view = JoinState { room_id, event_id, server, omit_members };
    // The state of a large room takes some time; other requests go to other threads meanwhile.
    let answer = tokio::task::block_in_place(|| call.ctx.engine.read(&view))?;
    Ok((place, event, answer))
}
