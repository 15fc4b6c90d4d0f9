//! A local user knocks at a room that this server is not in, or of which it does not know all members.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use warren_engine::approach::{Approach, Change};
use warren_engine::command::NoteKnock;
use warren_engine::view::federation::{Handshake, SignedEvent};

use super::Asker;
use super::ask::{Ask, path, read_answer};
use super::check::{readable, shown};
use super::keys::Cause;
use super::membership::{JUDGED_TIME_MAX, NoHelp, next_event, no_help, take_in_own, takes_part, told};
use crate::context::Context;
use crate::http::ApiError;

#[derive(Deserialize)]
struct Knocked<'a> {
    #[serde(borrow, default)]
    knock_room_state: Vec<&'a RawValue>,
}

/// Knocks by way of one of the servers.
///
/// Errors: what the last server that knew the room refused; 404 if none could be reached.
pub async fn knock(ctx: &Arc<Context>, change: &Change, servers: &[String]) -> Result<(), ApiError> {
    let mut approach = Approach::new(change.clone(), Handshake::Knock, servers);
    while let Some((server, event)) = next_event(ctx, &mut approach).await {
        match knock_by(ctx, change, &server, event).await {
            Ok(()) => return Ok(()),
            Err(why) => no_help(&mut approach, &server, why),
        }
    }
    Err(told(approach))
}

async fn knock_by(
    ctx: &Arc<Context>,
    change: &Change,
    server: &str,
    event: SignedEvent,
) -> Result<(), NoHelp> {
    let target = path("v1/send_knock/{roomId}/{eventId}", &[&change.room_id, &event.event_id]);
    let asker = Asker::User(change.user_id.clone());
    let answer = Ask::put(server, target, &event.json).asked_by(&asker).for_event().bytes(ctx).await?;
    if takes_part(ctx, &change.room_id) {
        return take_in_own(ctx, change, server, &event, event.json.clone(), JUDGED_TIME_MAX).await;
    }
    let knocked: Knocked<'_> = read_answer(&answer)?;
    let (version, room_state) = (event.version, readable(&knocked.knock_room_state));
    // The knock is placed, whatever came with it.
    let cause = Cause::told(server);
    let shown = shown(ctx, &cause, version, room_state).await;
    let room_state = shown.map(|shown| shown.events).unwrap_or_default();
    let note = NoteKnock {
        room_id: change.room_id.clone(),
        user_id: change.user_id.clone(),
        version,
        event: event.json,
        room_state,
        server: server.to_owned(),
    };
    Ok(ctx.engine.write(note).await?)
}
