//! All that allows an event is asked of another server at once.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use warren_engine::Error;
use warren_engine::core::event::Pdu;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Answer;
use warren_engine::view::federation::UnknownEvents;

use super::RemoteError;
use super::ask::{Ask, path};
use super::fetch::bytes_of;
use super::state_memory::Share;
use crate::context::Context;
use crate::http::ApiError;

/// Events of one answer that are looked at, known ones among them: ten times what is taken.
const EVENTS_MAX: usize = 100_000;

/// The answer to `/event_auth`.
#[derive(Deserialize)]
struct AuthChain {
    auth_chain: Vec<Box<RawValue>>,
}

/// The auth chain of an event, as far as it is not here, and the memory that it takes: it may be as large as a whole state.
pub async fn auth_chain(
    ctx: &Context,
    server: &str,
    (room_id, version): (&str, &'static RoomVersion),
    event_id: &str,
) -> Result<Result<(Answer, Share), RemoteError>, ApiError> {
    let target = path("v1/event_auth/{roomId}/{eventId}", &[room_id, event_id]);
    let (told, memory): (AuthChain, Share) = match Ask::get(server, target).read_state(ctx, |_| {}).await {
        Ok(told) => told,
        Err(failure) => return Ok(Err(failure)),
    };
    if told.auth_chain.len() > EVENTS_MAX {
        return Ok(Err(RemoteError::bad_answer("too_large", "an auth chain has too many events")));
    }
    let pdus = tokio::task::block_in_place(|| unknown(ctx, version, told.auth_chain))?;
    Ok(Ok((Answer::Events(pdus), memory)))
}

/// Those of the events that are not here in any form, each once. What is none of the room's version is left out.
fn unknown(
    ctx: &Context,
    version: &'static RoomVersion,
    pdus: Vec<Box<RawValue>>,
) -> Result<Vec<Bytes>, Error> {
    let mut event_ids: Vec<Arc<str>> = Vec::with_capacity(pdus.len());
    let mut by_id: HashMap<Arc<str>, Bytes> = HashMap::with_capacity(pdus.len());
    for json in pdus {
        if let Ok(pdu) = Pdu::parse_history(version, json.get().as_bytes()) {
            event_ids.push(pdu.event_id.clone());
            by_id.entry(pdu.event_id).or_insert_with(|| bytes_of(json));
        }
    }
    let unknown = ctx.engine.read(&UnknownEvents { event_ids: &event_ids })?;
    Ok(unknown.iter().filter_map(|event_id| by_id.remove(event_id)).collect())
}
