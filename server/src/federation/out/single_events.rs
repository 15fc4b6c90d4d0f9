//! Events that other servers are asked for by their ids.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use warren_engine::core::checked::Refused;
use warren_engine::core::event::Pdu;
use warren_engine::core::json::AtMost;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::Answer;

use super::RemoteError;
use super::ask::{Ask, path};
use super::fetch::{Asked, bytes_of};
use crate::context::Context;
use crate::federation::refusals;
use crate::worker;

/// Events that are asked for side by side.
const EVENTS_AT_ONCE: usize = 10;

#[derive(Deserialize)]
struct SingleEvent {
    pdus: AtMost<Box<RawValue>, 1>,
}

/// What a server gives of events that it was asked for by their ids.
struct ToldEvents {
    found: Vec<Bytes>,
    /// What kept it from answering about one of them, if something did.
    failure: Option<RemoteError>,
}

/// Events by their ids, as far as the server knows them.
///
/// Errors: when it gives no answer at all.
pub async fn events(
    ctx: &Arc<Context>,
    server: &str,
    event_ids: &[Arc<str>],
) -> Result<Vec<Bytes>, RemoteError> {
    Ok(told_events(ctx, server, event_ids).await?.found)
}

async fn told_events(
    ctx: &Arc<Context>,
    server: &str,
    event_ids: &[Arc<str>],
) -> Result<ToldEvents, RemoteError> {
    let mut told = ToldEvents { found: Vec::new(), failure: None };
    for event_ids in event_ids.chunks(EVENTS_AT_ONCE) {
        let asks = event_ids.iter().map(|event_id| {
            let (ctx, server, event_id) = (ctx.clone(), server.to_owned(), event_id.clone());
            async move {
                let asked = Ask::get(&server, path("v1/event/{eventId}", &[&event_id]));
                asked.for_event().read::<SingleEvent>(&ctx).await
            }
        });
        for answer in worker::side_by_side(ctx, asks.collect::<Vec<_>>()).await {
            match answer {
                Ok(event) => told.found.extend(event.pdus.0.into_iter().next().map(bytes_of)),
                Err(failure @ (RemoteError::Timeout | RemoteError::Unreachable(_)))
                    if told.found.is_empty() =>
                {
                    return Err(failure);
                }
                Err(failure) => {
                    tracing::debug!(server, %failure, "a server does not give an event");
                    if !is_denial(&failure) {
                        told.failure = Some(failure);
                    }
                }
            }
        }
    }
    Ok(told)
}

/// Whether a server says that an event is not to be had from it: there is none, or none for this server. Other errors may be over by and
/// by, and so may be what is said by something that stands before a server that is down.
fn is_denial(failure: &RemoteError) -> bool {
    const DENIALS: [StatusCode; 3] = [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
    match failure {
        RemoteError::Refused { status, has_code, .. } => *has_code && DENIALS.contains(status),
        _ => false,
    }
}

/// The answer of one server. What it gives that was not asked for, or cannot be read, does not count: another one may have it right.
///
/// Errors: when it gives no answer at all, or none about an event, and nothing else.
pub async fn ask_for_events(
    ctx: &Arc<Context>,
    server: &str,
    version: &'static RoomVersion,
    event_ids: &[Arc<str>],
) -> Asked {
    let ToldEvents { mut found, failure } = told_events(ctx, server, event_ids).await?;
    found.retain(|json| match Pdu::parse_history(version, json) {
        Ok(pdu) => event_ids.contains(&pdu.event_id),
        Err(error) => {
            refusals::unchecked_event(&Refused::Format(error.to_string()));
            false
        }
    });
    match failure {
        Some(failure) if found.is_empty() => Err(failure),
        _ => Ok(Answer::Events(found)),
    }
}
