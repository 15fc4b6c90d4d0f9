//! What joining, knocking and leaving by way of another server have in common: its template becomes our user's event, and
//! is handed in. Which server is asked next, and what is signed, the engine says ([`warren_engine::approach`]). Where this server
//! takes part in the room, the event comes into it here, too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::timeout;
use warren_engine::approach::{Approach, Change, Failure, Next, Tells, Template};
use warren_engine::command::{ParkPdus, Parked};
use warren_engine::core::event::EventError;
use warren_engine::core::version::ROOM_VERSIONS;
use warren_engine::intake::Intake;
use warren_engine::view::federation::{Handshake, IncomingRoom, IsAccepted, SignedEvent};
use warren_engine::{Error, Invalid, Outcome};

use super::ask::{Ask, escaped, path};
use super::fetch::{follow_up_on, take_in};
use super::state_answer::StateAnswer;
use super::{Asker, RemoteError};
use crate::context::Context;
use crate::federation::refusals;
use crate::http::ApiError;

/// How long one server may take to give a template: its part is to read some twenty rows.
const TEMPLATE_TIME_MAX: Duration = Duration::from_secs(20);

/// How long one server may take for each part of a leave while others are left to be asked, for whom some of the time has to be left for
/// which the user waits.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(4);

/// How long a user who comes in waits until what a server has let in can be judged here.
pub const JUDGED_TIME_MAX: Duration = Duration::from_secs(30);

/// Why a server was of no help, and whether another may be.
pub enum NoHelp {
    /// Another one may help.
    TryAnother(ApiError),
    /// The same, and it was not asked at all: the operator excludes it, which says less than what any other says.
    NotAsked(ApiError),
    /// The same, but what it told of the room cannot be believed here, which says more than that another is silent.
    Unbelieved(ApiError),
    /// Nobody else is to be asked: the room itself says no, as another server would, or what was let in waits here.
    Refused(ApiError),
}

impl Failure for NoHelp {
    fn is_final(&self) -> bool {
        matches!(self, NoHelp::Refused(_))
    }

    fn tells(&self) -> Tells {
        match self {
            NoHelp::Refused(error) | NoHelp::TryAnother(error) => match error.status {
                // Also of who is in the room, and lacks members itself.
                StatusCode::NOT_FOUND => Tells::Unknown,
                status if status.is_client_error() => Tells::Refusal,
                _ => Tells::Nothing,
            },
            NoHelp::Unbelieved(_) => Tells::Refusal,
            NoHelp::NotAsked(_) => Tells::Nothing,
        }
    }
}

impl NoHelp {
    fn error(&self) -> &ApiError {
        match self {
            NoHelp::TryAnother(error)
            | NoHelp::NotAsked(error)
            | NoHelp::Unbelieved(error)
            | NoHelp::Refused(error) => error,
        }
    }

    fn into_error(self) -> ApiError {
        match self {
            NoHelp::TryAnother(error)
            | NoHelp::NotAsked(error)
            | NoHelp::Unbelieved(error)
            | NoHelp::Refused(error) => error,
        }
    }
}

impl From<RemoteError> for NoHelp {
    fn from(failure: RemoteError) -> NoHelp {
        if matches!(&failure, RemoteError::Refused { errcode, .. } if errcode == "M_INCOMPATIBLE_ROOM_VERSION")
        {
            return NoHelp::Refused(failure.into());
        }
        match failure {
            RemoteError::NotAdmitted(_) => NoHelp::NotAsked(failure.into()),
            failure => NoHelp::TryAnother(failure.into()),
        }
    }
}

impl From<Error> for NoHelp {
    fn from(error: Error) -> NoHelp {
        let sentence = error.to_string();
        NoHelp::TryAnother(match error {
            // Of a template: a server that compares the room's version with those that it is told says the same.
            Error::Invalid(Invalid::RoomVersion(version)) => {
                ApiError::incompatible_room_version(sentence).with("room_version", version)
            }
            // What is too large is what the user says. All else that is no part of an event comes from the template.
            Error::Invalid(Invalid::Event(ref bad)) if !matches!(bad, EventError::TooLarge { .. }) => {
                ApiError::unknown(sentence).with_status(StatusCode::BAD_GATEWAY)
            }
            error => error.into(),
        })
    }
}

impl From<ApiError> for NoHelp {
    fn from(error: ApiError) -> NoHelp {
        NoHelp::TryAnother(error)
    }
}

/// The next event that is to be handed in, and to which server; `None` when none is of help.
pub async fn next_event(
    ctx: &Arc<Context>,
    approach: &mut Approach<NoHelp>,
) -> Option<(String, SignedEvent)> {
    loop {
        match approach.next_step() {
            Next::Ask(server) => match ask_for_template(ctx, &server, approach).await {
                Ok(template) => {
                    if let Err(error) = approach.templated(&ctx.engine, &template) {
                        refusals::template(&error);
                        no_help(approach, &server, error.into());
                    }
                }
                Err(failure) => no_help(approach, &server, failure.into()),
            },
            Next::HandIn(server, event) => return Some((server, event)),
            Next::Nobody => return None,
        }
    }
}

/// A server was of no help.
pub fn no_help(approach: &mut Approach<NoHelp>, server: &str, why: NoHelp) {
    let error = why.error();
    let (change, handshake) = approach.change();
    tracing::info!(room_id = change.room_id, server, ?handshake, error = %error.error, "a server is of no help");
    approach.failed(why);
}

/// What the user is told when none was.
pub fn told(approach: Approach<NoHelp>) -> ApiError {
    match approach.into_failure() {
        Some(why) => why.into_error(),
        None => ApiError::not_found("No server is known that could help with this room"),
    }
}

async fn ask_for_template(
    ctx: &Arc<Context>,
    server: &str,
    approach: &Approach<NoHelp>,
) -> Result<Template, RemoteError> {
    let (change, handshake) = approach.change();
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
    let asker = Asker::User(change.user_id.clone());
    let asked = Ask::get(server, target).asked_by(&asker).for_event().read::<Template>(ctx);
    within(part_time_max(approach), asked).await
}

/// How long the server that is being asked may take for one part.
fn part_time_max(approach: &Approach<NoHelp>) -> Duration {
    let (_, handshake) = approach.change();
    if handshake == Handshake::Leave && !approach.is_last() { LEAVE_TIME_MAX } else { TEMPLATE_TIME_MAX }
}

async fn within<T>(
    time_max: Duration,
    asked: impl Future<Output = Result<T, RemoteError>>,
) -> Result<T, RemoteError> {
    let answer = timeout(time_max, asked).await;
    answer.unwrap_or_else(|_| Err(RemoteError::Unreachable("it took too long".to_owned())))
}

/// Hands a leave in, as [`hand_in`] does. One that takes too long may have let the user go all the same, as any other that lets them
/// go once more.
pub async fn hand_in_leave(
    ctx: &Context,
    server: &str,
    approach: &Approach<NoHelp>,
    event: &SignedEvent,
) -> Result<StateAnswer, RemoteError> {
    let (change, _) = approach.change();
    within(part_time_max(approach), hand_in(ctx, server, "send_leave", "", change, event)).await
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
    let asker = Asker::User(change.user_id.clone());
    let ask = |version: &str| {
        let template = format!("{version}/{name}/{{roomId}}/{{eventId}}");
        let target = format!("{}{query}", path(&template, &[&change.room_id, &event.event_id]));
        Ask::put(server, target, &event.json).asked_by(&asker)
    };
    match ask("v2").state(ctx, |_| {}).await {
        Err(failure) if failure.is_unknown_endpoint() => ask("v1").state(ctx, |_| {}).await,
        answer => answer,
    }
}

/// Whether this server takes part in the room.
pub fn takes_part(ctx: &Context, room_id: &str) -> bool {
    ctx.engine.read(&IncomingRoom { room_id, server: ctx.engine.server_name() }).is_ok()
}

/// Takes our event, `own` as it is signed by now, into a room that this server takes part in, and into which `server` has let it.
/// If it cannot be judged in that time it waits, like any other event, and no other server is asked to let the user in once more.
pub async fn take_in_own(
    ctx: &Arc<Context>,
    change: &Change,
    server: &str,
    event: &SignedEvent,
    own: Bytes,
    time_max: Duration,
) -> Result<(), NoHelp> {
    let mut intake = Intake::new(change.room_id.clone(), event.version, vec![own.clone()]);
    let servers = [server.to_owned()];
    if let Ok(taken) = timeout(time_max, take_in(ctx, &mut intake, &servers)).await {
        taken?;
    }
    let outcome = intake.outcomes.get(&event.event_id);
    let is_in_room = match outcome {
        // What this server came in behind is told by the state that it came in with.
        Some(Outcome::Accepted | Outcome::Past) => true,
        Some(Outcome::Known) => ctx.engine.read(&IsAccepted { event_id: &event.event_id })?,
        _ => false,
    };
    if is_in_room {
        return Ok(());
    }
    let room_id = &change.room_id;
    tracing::warn!(
        room_id,
        server,
        ?outcome,
        "what was let in elsewhere of a user's own membership is not here"
    );
    if matches!(outcome, None | Some(Outcome::Waiting)) {
        return Err(wait_for_what_is_missing(ctx, room_id, server, own).await);
    }
    let why = "This change of your membership is not allowed by what this server knows of the room";
    Err(ApiError::forbidden(why).into())
}

/// Lets our event wait, if there is a place for it. Answers what the user is told.
async fn wait_for_what_is_missing(ctx: &Arc<Context>, room_id: &str, server: &str, own: Bytes) -> NoHelp {
    let park = ParkPdus { room_id: room_id.to_owned(), origin: server.to_owned(), pdus: vec![own] };
    let parked = match ctx.engine.write(park).await {
        Ok(parked) => parked,
        Err(error) => return error.into(),
    };
    follow_up_on(ctx, room_id, server);
    NoHelp::Refused(ApiError::unknown(told_of_waiting(&parked)).with_status(StatusCode::SERVICE_UNAVAILABLE))
}

/// What is said of an event that cannot be judged yet. One for which there is no place is let in once more when the user asks again.
fn told_of_waiting(parked: &Parked) -> &'static str {
    match parked.refused.is_empty() {
        true => "This change of your membership waits for what this server does not know of the room yet",
        false => {
            "This server does not know enough of the room yet, and too much waits for that: try again later"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_wait_is_waited_for() {
        let event_id: Arc<str> = "$join".into();
        let kept = Parked { kept: vec![event_id.clone()], ..Parked::default() };
        assert!(told_of_waiting(&kept).contains("waits for what"));
        let refused = Parked { refused: vec![event_id], ..Parked::default() };
        assert!(told_of_waiting(&refused).contains("try again"));
    }
}
