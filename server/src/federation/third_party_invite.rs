//! `third_party_invite.yaml`: somebody who was invited by an address turns out to be a user of another server.
//!
//! Not here: `/3pid/onbind`, by which identity servers tell whose an address is; this server uses none.

use serde::Deserialize;
use serde_json::Value;
use warren_engine::view::federation::MakeInvite;

use super::out::invite::send_invite;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    PUT "/_matrix/federation/v1/exchange_third_party_invite/{roomId}" [] Server Federation Json exchange_third_party_invite;
}

#[derive(Deserialize)]
struct Exchange {
    #[serde(rename = "type")]
    kind: String,
    room_id: String,
    sender: String,
    state_key: String,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: Value,
}

async fn exchange_third_party_invite(call: Call) -> Outcome {
    let exchange: Exchange = call.json()?;
    let is_invite = exchange.kind == "m.room.member" && exchange.content.membership == "invite";
    if !is_invite || exchange.room_id != call.path("roomId")? {
        return Err(ApiError::invalid_param("This is not an invite to the room in the path"));
    }
    let invite = MakeInvite {
        room_id: exchange.room_id,
        sender: exchange.sender,
        target: exchange.state_key,
        reason: None,
        is_direct: false,
        third_party_invite: Some(exchange.content.third_party_invite),
    };
    send_invite(&call.ctx, invite).await?;
    Ok(Answer::empty())
}
