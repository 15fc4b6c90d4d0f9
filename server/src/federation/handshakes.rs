//! What joining, knocking and leaving by way of this server have in common.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use warren_engine::command::{AcceptMembership, AcceptedMembership};
use warren_engine::core::checked::CheckedPdu;
use warren_engine::view::federation::{Handshake, IncomingRoom, MakeMembership};
use warren_engine::{Denied, Error};

use super::out::check::check_one;
use super::out::keys::Cause;
use super::out::policy::ask_for_peer;
use super::refusals;
use crate::context::Context;
use crate::http::{Answer, ApiError, Call, Outcome};

/// The template for the event of a user of the server that asks.
pub async fn make(call: &Call, handshake: Handshake) -> Outcome {
    let mut versions = call.query_all("ver")?;
    if versions.is_empty() {
        // Specification: "If not provided, the room version is assumed to be version 1 in both cases."
        versions.push("1".to_owned());
    }
    let make = MakeMembership {
        room_id: call.path("roomId")?.into_owned(),
        user_id: call.path("userId")?.into_owned(),
        handshake,
        versions,
        server: call.origin()?.to_string(),
    };
    let template = call.ctx.engine.read(&make)?;
    Answer::json(&json!({ "event": template.event, "room_version": template.room_version }))
}

/// Takes the submitted event in. Answers with the event as it stands in the room, and with what a knock shows of it.
pub async fn accept(call: &Call, handshake: Handshake, pdu: Bytes) -> Result<(Bytes, Vec<Bytes>), ApiError> {
    let (room_id, server) = (call.path("roomId")?.into_owned(), call.origin()?.to_string());
    let version = call.ctx.engine.read(&IncomingRoom { room_id: &room_id, server: &server })?;
    let event = check_one(&call.ctx, &Cause::Sent(server.clone()), version, pdu).await?;
    let event_id = call.path("eventId")?.into_owned();
    let accept = |event: &Arc<CheckedPdu>| AcceptMembership {
        room_id: room_id.clone(),
        event_id: event_id.clone(),
        handshake,
        event: event.clone(),
        server: server.clone(),
    };
    let mut accepted = submit(&call.ctx, accept(&event)).await?;
    if let AcceptedMembership::Waiting(missing) = &accepted
        && let Some(wanted) = missing.signatures.first()
    {
        let answer = ask_for_peer(&call.ctx, &call.asker(), &wanted.policy, &event.pdu().json).await;
        let answer = answer.inspect_err(|_| refusals::dropped_event("policy_server"))?;
        let signed = wanted.policy.sign_checked(version, &event, &answer)?;
        accepted = submit(&call.ctx, accept(&signed)).await?;
    }
    match accepted {
        AcceptedMembership::Accepted { event, room_state } => Ok((event, room_state)),
        // Our templates name events that are here.
        AcceptedMembership::Waiting(_) => {
            Err(ApiError::invalid_param("The event follows events that this server does not have"))
        }
    }
}

/// Hands the event in, and counts what becomes of it.
async fn submit(ctx: &Context, accept: AcceptMembership) -> Result<AcceptedMembership, Error> {
    let accepted = ctx.engine.write(accept).await;
    match &accepted {
        Ok(AcceptedMembership::Accepted { .. }) => refusals::event(&warren_engine::Outcome::Accepted),
        Ok(AcceptedMembership::Waiting(_)) => {}
        Err(Error::Denied(Denied::Rule { rule, .. })) => refusals::rejected_event(rule),
        Err(_) => refusals::dropped_event("unfit"),
    }
    accepted
}
