//! Policy servers are asked to sign events: our own before they are sent, those of other servers that come without, as history too.
//!
//! Invariant: an event of ours goes out only with the signature, whatever keeps it from coming. An event of another server is
//! asked for once; what is not signed then is soft-failed. A policy server that is silent is left alone for a while, so that
//! no task waits for it for each event of its rooms; nothing is soft-failed that it was not asked about: that stays parked. Nor is
//! history that it has not answered about, which is asked for again when it is read. Where it is this server, nobody is asked over HTTP,
//! and it says what it would say to others.
//! Specification: server-server API, "Policy Servers".

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use metrics::counter;
use ruma_common::{OwnedServerName, ServerName};
use serde_json::value::RawValue;
use tokio::time::sleep;
use warren_engine::command::WithSigned;
use warren_engine::core::event::JsonObject;
use warren_engine::intake::{Answer, Intake, Question};
use warren_engine::view::federation::{PolicySignature, SignedEvent};
use warren_engine::{Command, Error, PolicyServer, UnsignedEvent, WantedSignature};

use super::ask::is_of_the_client_itself;
use super::{Asker, RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{
    POLICY_BREATH, POLICY_BYTES_MAX, POLICY_FAILURES_AT_ONCE, POLICY_TIME_MAX, POLICY_WAIT_MAX,
    POLICY_WAITS_MAX, SIGNED_EVENTS_MAX,
};
use crate::federation::room_policy::opinion;
use crate::http::ApiError;
use crate::worker;

/// Runs a command that sends events of our users. Where a room uses a policy server, that signs them before.
///
/// Errors: the command's; what the policy server refused with, in its words; 502 if it cannot be asked, 403 if it is to be this server,
/// which is none, or not by that key.
pub async fn write<C: Command + Sync>(ctx: &Context, command: C) -> Result<C::Output, ApiError> {
    let mut signed = Vec::new();
    loop {
        match ctx.engine.write(WithSigned { command: &command, signed: &signed }).await {
            Err(Error::Unsigned(unsigned)) if signed.len() < SIGNED_EVENTS_MAX => {
                let answer = ask_for_user(ctx, &unsigned).await?;
                signed.push(unsigned.signed(&answer).map_err(not_signed)?);
            }
            done => return Ok(done?),
        }
    }
}

/// An event of ours that another server is to sign before it comes into the room, signed by the room's policy server.
///
/// Errors: as [`write`].
pub async fn sign(ctx: &Context, room_id: &str, event: SignedEvent) -> Result<SignedEvent, ApiError> {
    let Some(unsigned) = ctx.engine.read(&PolicySignature { room_id, event: &event })? else {
        return Ok(event);
    };
    let answer = ask_for_user(ctx, &unsigned).await?;
    let json = unsigned.signed(&answer).map_err(not_signed)?.json.clone();
    Ok(SignedEvent { json, ..event })
}

/// The answer about an event that another server submits to this one, as `asker`: any server may, of rooms that name any other.
///
/// Errors: as [`write`].
pub async fn ask_for_peer(
    ctx: &Context,
    asker: &Asker,
    policy: &PolicyServer,
    event: &Bytes,
) -> Result<JsonObject, ApiError> {
    ask_at_once(ctx, asker, policy, event).await
}

/// The answer about an event of a user of ours, whose question it is.
async fn ask_for_user(ctx: &Context, unsigned: &UnsignedEvent) -> Result<JsonObject, ApiError> {
    let asker = Asker::User(unsigned.sender().to_owned());
    ask_at_once(ctx, &asker, &unsigned.policy, unsigned.json()).await
}

/// Errors: what the user is told. Where a room names this server, and it cannot sign for it, nobody can help but who changes that.
async fn ask_at_once(
    ctx: &Context,
    asker: &Asker,
    policy: &PolicyServer,
    event: &Bytes,
) -> Result<JsonObject, ApiError> {
    if policy.name != ctx.engine.server_name() {
        return ask(ctx, policy, event, Some(asker)).await.map_err(refusal);
    }
    if is_own(ctx, policy) {
        return opinion(ctx, event);
    }
    Err(ApiError::forbidden(match ctx.engine.policy_key() {
        None => "The room has its events signed by this server (m.room.policy), which is no policy server",
        Some(_) => {
            "The room has its events signed by this server with a key (m.room.policy) that is not the one which it has as a policy server"
        }
    }))
}

/// Whether the policy server is this one, with the key that the room names.
fn is_own(ctx: &Context, policy: &PolicyServer) -> bool {
    let key = ctx.engine.policy_key();
    policy.name == ctx.engine.server_name() && key.is_some_and(|key| policy.public_key == key.public_key())
}

/// The answer about an event that another server sent: none in it if the policy server refuses, or does not answer; nothing
/// at all if it is not asked now.
async fn ask_about(ctx: &Context, wanted: &WantedSignature, event: &Bytes) -> Answer {
    match answer_about(ctx, wanted, event, 1).await {
        Some(answer) => Answer::PolicySignature(answer.ok()),
        None => Answer::Nothing,
    }
}

/// What a policy server says of an event of the past.
enum Opinion {
    /// It has signed it, or will not.
    Given(Option<JsonObject>),
    /// It fails on this one.
    Failed,
    /// It has none now, whatever the event.
    None,
}

/// What the policy server says of an event of the past, for which there is time: what is not said of the event itself is no answer.
/// History that is refused stays so, and a server that is no policy server yet, or has another key than the room says, may come to be
/// put right.
async fn ask_about_past(ctx: &Context, wanted: &WantedSignature, event: &Bytes) -> Opinion {
    if is_own(ctx, &wanted.policy) {
        return own_opinion(ctx, event);
    }
    opinion_of(answer_about(ctx, wanted, event, POLICY_WAITS_MAX).await)
}

fn opinion_of(answer: Option<Result<JsonObject, RemoteError>>) -> Opinion {
    match answer {
        Some(Ok(answer)) => Opinion::Given(Some(answer)),
        Some(Err(RemoteError::Refused { status, errcode, .. })) => match status {
            status if is_refusal(status, &errcode) => Opinion::Given(None),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Opinion::None,
            _ => Opinion::Failed,
        },
        Some(Err(RemoteError::Timeout | RemoteError::Unreachable(_) | RemoteError::BadAnswer(_))) => {
            Opinion::Failed
        }
        _ => Opinion::None,
    }
}

/// Whether an error says that an event is not recommended, and nothing else.
fn is_refusal(status: StatusCode, errcode: &str) -> bool {
    status == StatusCode::BAD_REQUEST && errcode == "M_FORBIDDEN"
}

/// Asks for a signature that an intake wants; of the past for all that it wants by now, side by side.
pub async fn ask_for(ctx: &Arc<Context>, intake: &mut Intake, wanted: WantedSignature) {
    if intake.is_history() {
        return ask_for_past(ctx, intake, wanted).await;
    }
    let Some(event) = intake.event(&wanted.event_id).cloned() else { return };
    let answer = match is_own(ctx, &wanted.policy) {
        true => match own_opinion(ctx, &event) {
            Opinion::Given(answer) => Answer::PolicySignature(answer),
            Opinion::Failed | Opinion::None => Answer::Nothing,
        },
        false => ask_about(ctx, &wanted, &event).await,
    };
    intake.answered(Question::PolicySignature(wanted), answer);
}

async fn ask_for_past(ctx: &Arc<Context>, intake: &mut Intake, first: WantedSignature) {
    let mut asks = Vec::new();
    for wanted in std::iter::once(first).chain(intake.other_signatures()) {
        let Some(event) = intake.event(&wanted.event_id).cloned() else { continue };
        let ctx = ctx.clone();
        asks.push(async move {
            let opinion = ask_about_past(&ctx, &wanted, &event).await;
            (wanted, opinion)
        });
    }
    let mut opinions = worker::side_by_side(ctx, asks).await;
    for (wanted, opinion) in &mut opinions {
        check(intake, wanted, opinion);
    }
    go_without(ctx, intake, &mut opinions).await;
    for (wanted, opinion) in opinions {
        let answer = match opinion {
            Opinion::Given(answer) => Answer::PolicySignature(answer),
            Opinion::Failed | Opinion::None => Answer::Nothing,
        };
        intake.answered(Question::PolicySignature(wanted), answer);
    }
}

/// A signature that does not hold is a failure.
fn check(intake: &Intake, wanted: &WantedSignature, opinion: &mut Opinion) {
    if matches!(opinion, Opinion::Given(Some(answer)) if !intake.is_signed(wanted, answer)) {
        *opinion = Opinion::Failed;
    }
}

/// Of the events on which the policy server fails, while it signs others, the first, before which all that is further back waits, are asked
/// about once more, each alone, since what makes the server fall takes along what it is asked beside. If that happens time and again the
/// event goes without.
async fn go_without(ctx: &Context, intake: &Intake, opinions: &mut [(WantedSignature, Opinion)]) {
    let has_failed = opinions.iter().any(|(_, opinion)| matches!(opinion, Opinion::Failed));
    if !has_failed || !is_signing(ctx, intake, opinions).await {
        return;
    }
    let failed = opinions.iter_mut().filter(|(_, opinion)| matches!(opinion, Opinion::Failed));
    for (wanted, opinion) in failed.take(POLICY_FAILURES_AT_ONCE) {
        let Some(event) = intake.event(&wanted.event_id).cloned() else { continue };
        sleep(POLICY_BREATH).await;
        *opinion = opinion_of(Some(ask(ctx, &wanted.policy, &event, None).await));
        check(intake, wanted, opinion);
        if !matches!(opinion, Opinion::Failed) {
            continue;
        }
        // That is about this event; it is there for others.
        if let Ok(server) = ServerName::parse(&wanted.policy.name) {
            ctx.federation.silent_policy_servers.note(&server, false);
        }
        if ctx.federation.unanswered.is_over(wanted, Instant::now()) {
            *opinion = Opinion::Given(None);
        }
    }
}

/// Whether the policy server is there and signs by the key that the room says: another event that it was asked about just now, or else
/// one that it has signed before.
async fn is_signing(ctx: &Context, intake: &Intake, opinions: &[(WantedSignature, Opinion)]) -> bool {
    if opinions.iter().any(|(_, opinion)| matches!(opinion, Opinion::Given(Some(_)))) {
        return true;
    }
    let Some((failed, _)) = opinions.first() else { return false };
    let Some((wanted, event)) = intake.signed_before(&failed.policy) else { return false };
    let mut opinion = opinion_of(Some(ask(ctx, &wanted.policy, &event, None).await));
    check(intake, &wanted, &mut opinion);
    matches!(opinion, Opinion::Given(Some(_)))
}

/// What this server says of an event where it is the policy server.
fn own_opinion(ctx: &Context, event: &Bytes) -> Opinion {
    match opinion(ctx, event) {
        Ok(signatures) => Opinion::Given(Some(signatures)),
        // A fault of ours says nothing of the event.
        Err(error) if error.status.is_server_error() => Opinion::None,
        Err(_) => Opinion::Given(None),
    }
}

/// What comes of asking about an event that another server sent; nothing if it is not asked now.
async fn answer_about(
    ctx: &Context,
    wanted: &WantedSignature,
    event: &Bytes,
    waits_max: usize,
) -> Option<Result<JsonObject, RemoteError>> {
    let policy = &wanted.policy;
    let is_silent = |server: OwnedServerName| ctx.federation.silent_policy_servers.is_silent(&server);
    if ServerName::parse(&policy.name).is_ok_and(is_silent) {
        counter!("warren_policy_signatures_total", "outcome" => "left_alone").increment(1);
        return None;
    }
    let mut answer = ask(ctx, policy, event, None).await;
    for _ in 0..waits_max {
        // All servers in the room ask for the same signature at the same time.
        if let Err(RemoteError::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. }) = &answer
            && let Some(wait) = retry_after.filter(|wait| *wait <= POLICY_WAIT_MAX)
        {
            sleep(wait).await;
            answer = ask(ctx, policy, event, None).await;
        }
    }
    let refused = |error: &RemoteError| {
        tracing::debug!(policy_server = policy.name, event_id = %wanted.event_id, %error, "an event is not recommended");
    };
    Some(answer.inspect_err(refused))
}

async fn ask(
    ctx: &Context,
    policy: &PolicyServer,
    event: &Bytes,
    asker: Option<&Asker>,
) -> Result<JsonObject, RemoteError> {
    let server =
        ServerName::parse(&policy.name).map_err(|error| RemoteError::Unreachable(error.to_string()))?;
    let content: &RawValue =
        serde_json::from_slice(event).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let request = Request::new(Method::POST, "/_matrix/policy/v1/sign").with_content(&content)?;
    let request = request.repeatable().with_time(POLICY_TIME_MAX).with_bytes_max(POLICY_BYTES_MAX);
    let request = match asker {
        Some(asker) => request.asked_by(asker),
        None => request,
    };
    let answer = request.send(ctx, &server).await;
    let outcome = match &answer {
        Ok(_) => "answered",
        Err(RemoteError::Refused { .. }) => "refused",
        Err(_) => "unreachable",
    };
    counter!("warren_policy_signatures_total", "outcome" => outcome).increment(1);
    // What had no place says nothing of the server.
    if !matches!(answer, Err(RemoteError::NoPlace)) {
        let is_silent = matches!(answer, Err(RemoteError::Unreachable(_) | RemoteError::Timeout));
        ctx.federation.silent_policy_servers.note(&server, is_silent);
    }
    answer
}

/// What a user is told. Specification: "If the Policy Server returned an error, that error SHOULD be provided to the client
/// verbatim". What is about this server's own request is no answer to the user's, nor is a code that has the client take its own
/// session for ended, or its account for locked.
fn refusal(error: RemoteError) -> ApiError {
    match error {
        RemoteError::Refused { status, errcode, error, retry_after, .. } if is_about_event(status) => {
            // That the user is to wait is said with its own status alone.
            let is_to_wait = status == StatusCode::TOO_MANY_REQUESTS && errcode == "M_LIMIT_EXCEEDED";
            let misleads = is_of_the_client_itself(&errcode) && !is_to_wait;
            let refused = ApiError::verbatim(status, if misleads { "M_UNKNOWN" } else { &errcode }, error);
            match retry_after {
                Some(after) => refused.with("retry_after_ms", millis(after)),
                None => refused,
            }
        }
        error => error.into(),
    }
}

fn is_about_event(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS
    )
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn not_signed(error: Error) -> ApiError {
    match error {
        Error::Invalid(invalid) => ApiError::forbidden(invalid.to_string()),
        error => error.into(),
    }
}
