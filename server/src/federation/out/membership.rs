//! What joining, knocking and leaving by way of another server have in common: its template becomes our user's event, and
//! is handed in.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;
use warren_engine::core::event::JsonObject;
use warren_engine::core::version::ROOM_VERSIONS;
use warren_engine::view::federation::{Handshake, SignTemplate, SignedEvent};

use super::RemoteError;
use super::ask::{Ask, escaped, path};
use super::state_memory::StateAnswer;
use crate::context::Context;
use crate::http::ApiError;

/// Servers that are tried, one after the other.
pub const SERVERS_TRIED_MAX: usize = 10;

/// How long one server may take to give a template: its part is to read some twenty rows.
const TEMPLATE_TIME_MAX: Duration = Duration::from_secs(20);

/// A change of a local user's own membership.
#[derive(Clone)]
pub struct Change {
    pub room_id: String,
    pub user_id: String,
    pub reason: Option<String>,
}

/// Why a server was of no help, and whether another may be.
pub enum NoHelp {
    /// Another one may help.
    TryAnother(ApiError),
    /// The room itself says no: another server would say the same.
    Refused(ApiError),
}

impl From<RemoteError> for NoHelp {
    fn from(failure: RemoteError) -> NoHelp {
        let is_final = matches!(&failure, RemoteError::Refused { errcode, .. } if errcode == "M_INCOMPATIBLE_ROOM_VERSION");
        match is_final {
            true => NoHelp::Refused(failure.into()),
            false => NoHelp::TryAnother(failure.into()),
        }
    }
}

impl From<warren_engine::Error> for NoHelp {
    fn from(error: warren_engine::Error) -> NoHelp {
        NoHelp::TryAnother(error.into())
    }
}

impl From<ApiError> for NoHelp {
    fn from(error: ApiError) -> NoHelp {
        NoHelp::TryAnother(error)
    }
}

/// What is told when there is nobody to ask.
pub fn nobody() -> ApiError {
    ApiError::not_found("No server is known that could help with this room")
}

/// The error that says most of two: what a server refused, rather than that another could not be reached.
pub fn telling(before: Option<ApiError>, now: ApiError) -> ApiError {
    match before {
        Some(before) if before.status.is_client_error() => before,
        _ => now,
    }
}

#[derive(Deserialize)]
struct Template {
    room_version: Option<String>,
    event: JsonObject,
}

/// The user's event, made from a server's template.
pub async fn sign(
    ctx: &Arc<Context>,
    server: &str,
    change: &Change,
    handshake: Handshake,
) -> Result<SignedEvent, NoHelp> {
    let name = match handshake {
        Handshake::Join => "v1/make_join/{roomId}/{userId}",
        Handshake::Knock => "v1/make_knock/{roomId}/{userId}",
        Handshake::Leave => "v1/make_leave/{roomId}/{userId}",
    };
    let mut target = path(name, &[&change.room_id, &change.user_id]);
    if handshake != Handshake::Leave {
        for (index, version) in ROOM_VERSIONS.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str("ver=");
            target.push_str(&escaped(version.id));
        }
    }
    let asked = timeout(TEMPLATE_TIME_MAX, Ask::get(server, target).read::<Template>(ctx)).await;
    let template = asked.unwrap_or_else(|_| Err(RemoteError::Unreachable("it took too long".to_owned())))?;
    let sign = SignTemplate {
        room_id: &change.room_id,
        user_id: &change.user_id,
        handshake,
        resident: server,
        room_version: template.room_version.as_deref(),
        template: &template.event,
        reason: change.reason.as_deref(),
    };
    Ok(ctx.engine.read(&sign)?)
}

/// Hands an event in where `name` says, and with the older version of the endpoint where the newer is not known. Answers
/// with the body of either; that of the older is in an array behind the status.
pub async fn hand_in(
    ctx: &Context,
    server: &str,
    name: &str,
    query: &str,
    change: &Change,
    event: &SignedEvent,
) -> Result<StateAnswer, RemoteError> {
    let ask = |version: &str| {
        let template = format!("{version}/{name}/{{roomId}}/{{eventId}}");
        let target = format!("{}{query}", path(&template, &[&change.room_id, &event.event_id]));
        Ask::put(server, target, &event.json)
    };
    match ask("v2").state(ctx, |_| {}).await {
        Err(failure) if failure.is_unknown_endpoint() => ask("v1").state(ctx, |_| {}).await,
        answer => answer,
    }
}
