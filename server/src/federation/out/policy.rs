//! Policy servers are asked to sign events: our own before they are sent, those of other servers that come without, as history too.
//!
//! Invariant: an event of ours goes out only with the signature, whatever keeps it from coming. What a policy server says of another
//! server's event is an [`Opinion`], and nothing else. What is sent now and not signed is soft-failed, unless the policy server was out, busy
//! or not asked at all: that stays parked, until it was asked in vain three times. It is soft-failed at once where the policy server fails
//! on the event alone, since what follows a parked one has to be told its state, and whoever finds such events would have everybody
//! ask for that. Of the past a refusal counts at once only if the policy server signs others in the same turn. All else counts if it
//! comes three times, a minute apart, while the policy server signs probes: refusals of turns in which it signed nothing, and
//! failures on the event when it is asked about once more. What does not count is asked for again when it is read. Where it is this server,
//! nobody is asked over HTTP, and it says what it would say to others.
//! Specification: server-server API, "Policy Servers".

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use metrics::counter;
use ruma_common::ServerName;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use warren_engine::command::WithSigned;
use warren_engine::core::event::JsonObject;
use warren_engine::intake::{Answer, Intake, Question};
use warren_engine::view::federation::{PolicyProbes, PolicySignature, SignedEvent};
use warren_engine::{Command, Error, PolicyServer, UnsignedEvent, WantedSignature};

use super::ask::is_of_the_client_itself;
use super::{Asker, RemoteError, Request};
use crate::context::Context;
use crate::federation::limits::{
    POLICY_ALONE_TIME_MAX, POLICY_BREATH, POLICY_BYTES_MAX, POLICY_PAST_TIME_MAX, POLICY_PROBE_TIME_MAX,
    POLICY_PROBES_MAX, POLICY_TIME_MAX, POLICY_WAIT_MAX, POLICY_WAITS_MAX, SIGNED_EVENTS_MAX,
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
    if !is_here(ctx, policy) {
        return ask(ctx, policy, event, Some(asker), POLICY_TIME_MAX).await.map_err(refusal);
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

/// Whether the policy server is this server, by whatever key.
fn is_here(ctx: &Context, policy: &PolicyServer) -> bool {
    policy.name == ctx.engine.server_name()
}

/// Whether the policy server is this one, with the key that the room names.
fn is_own(ctx: &Context, policy: &PolicyServer) -> bool {
    is_here(ctx, policy) && ctx.engine.policy_key().is_some_and(|key| policy.public_key == key.public_key())
}

/// What a policy server says of another server's event.
enum Opinion {
    /// It has signed it, or refuses to.
    Given(Option<JsonObject>),
    /// It has answered, but fails on this one.
    Failed,
    /// It has not answered about this one in time.
    Late {
        /// Whether it has meanwhile answered others, and did so a short time ago.
        answers_others: bool,
    },
    /// It has none now, whatever the event.
    None,
}

impl Opinion {
    fn is_given(&self) -> bool {
        matches!(self, Opinion::Given(_))
    }

    fn is_signature(&self) -> bool {
        matches!(self, Opinion::Given(Some(_)))
    }

    /// Whether it counts by itself of an event of the past. Where no others were signed in the same turn, a refusal may be a fault of the
    /// policy server's own: common ones have the signatures of what they have signed before, and give those all the same.
    fn counts(&self, has_signed: bool) -> bool {
        self.is_signature() || has_signed && self.is_given()
    }
}

/// What an answer says of the event. `answers_others` is whether the policy server has answered others since it was asked, the last a
/// short time ago.
fn opinion_of(answer: Result<JsonObject, RemoteError>, answers_others: bool) -> Opinion {
    match answer {
        Ok(answer) => Opinion::Given(Some(answer)),
        Err(RemoteError::Refused { status, errcode, .. }) if is_refusal(status, &errcode) => {
            Opinion::Given(None)
        }
        Err(RemoteError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }) => Opinion::None,
        Err(RemoteError::Timeout) => Opinion::Late { answers_others },
        Err(error) if error.is_outage() => Opinion::None,
        Err(RemoteError::Refused { .. } | RemoteError::BadAnswer(_)) => Opinion::Failed,
        Err(_) => Opinion::None,
    }
}

/// Whether an error says that an event is not recommended. It may be a fault of the policy server's own as well, for which common
/// ones answer the same.
fn is_refusal(status: StatusCode, errcode: &str) -> bool {
    status == StatusCode::BAD_REQUEST && errcode == "M_FORBIDDEN"
}

/// Asks for all signatures that an intake wants by now, side by side.
pub async fn ask_for(ctx: &Arc<Context>, intake: &mut Intake, wanted: WantedSignature) {
    let servers = &ctx.federation.policy_servers;
    let (mut asks, mut left_alone) = (Vec::new(), Vec::new());
    for wanted in std::iter::once(wanted).chain(intake.other_signatures()) {
        let Some(event) = intake.event(&wanted.event_id).cloned() else { continue };
        if intake.is_history() && servers.past.is_over(&wanted) {
            tell(intake, wanted, Opinion::Given(None));
        } else if servers.is_left_alone(&wanted.policy.name) {
            counter!("warren_policy_signatures_total", "outcome" => "left_alone").increment(1);
            left_alone.push((wanted, Opinion::None));
        } else {
            let (ctx, time) =
                (ctx.clone(), if intake.is_history() { POLICY_PAST_TIME_MAX } else { POLICY_TIME_MAX });
            asks.push(async move {
                let opinion = ask_about(&ctx, &wanted, &event, time).await;
                (wanted, opinion)
            });
        }
    }
    let mut unsigned = Vec::new();
    let mut signed = 0;
    for (wanted, opinion) in worker::side_by_side(ctx, asks).await {
        let opinion = checked(ctx, intake, &wanted, opinion);
        match opinion.is_signature() {
            true => {
                signed += 1;
                tell(intake, wanted, opinion);
            }
            false => unsigned.push((wanted, opinion)),
        }
    }
    match intake.is_history() {
        // One may be of what it has signed before, told without that.
        true => end_of_past(ctx, intake, unsigned, signed > 1).await,
        false => end_of_live(ctx, intake, unsigned).await,
    }
    for (wanted, opinion) in left_alone {
        tell(intake, wanted, opinion);
    }
}

fn tell(intake: &mut Intake, wanted: WantedSignature, opinion: Opinion) {
    let answer = match opinion {
        Opinion::Given(answer) => Answer::PolicySignature(answer),
        Opinion::Failed | Opinion::Late { .. } | Opinion::None => Answer::Nothing,
    };
    intake.answered(Question::PolicySignature(wanted), answer);
}

/// A signature that does not hold is a failure. This server would make the same again, as of an event for whose size it is too much.
fn checked(ctx: &Context, intake: &Intake, wanted: &WantedSignature, opinion: Opinion) -> Opinion {
    match opinion {
        Opinion::Given(Some(answer)) if !intake.is_signed(wanted, &answer) => {
            if is_own(ctx, &wanted.policy) {
                Opinion::Given(None)
            } else {
                Opinion::Failed
            }
        }
        opinion => opinion,
    }
}

/// What becomes of events that are sent now and were not signed. Where it was late, and nothing else was answered meanwhile, it is seen whether
/// it is there all the same: one event that it hangs on would else have it left alone for all rooms.
async fn end_of_live(ctx: &Context, intake: &mut Intake, unsigned: Vec<(WantedSignature, Opinion)>) {
    let mut late = unsigned.iter().filter(|(_, opinion)| matches!(opinion, Opinion::Late { .. }));
    if let Some((wanted, _)) = late.next()
        && ctx.federation.policy_servers.is_left_alone(&wanted.policy.name)
    {
        // An answer ends that.
        is_signing_any(ctx, &mut probes(ctx, intake, &wanted.policy)).await;
    }
    for (wanted, opinion) in unsigned {
        let is_without = match opinion {
            Opinion::Given(_) | Opinion::Failed | Opinion::Late { answers_others: true } => true,
            // A fault of this server's own passes.
            Opinion::Late { answers_others: false } | Opinion::None => {
                !is_here(ctx, &wanted.policy)
                    && ctx.federation.policy_servers.live.note(&wanted, Instant::now())
            }
        };
        tell(intake, wanted, if is_without { Opinion::Given(None) } else { Opinion::None });
    }
}

/// What becomes of events of the past that were not signed. `has_signed` is whether several others were in this turn.
async fn end_of_past(
    ctx: &Arc<Context>,
    intake: &mut Intake,
    unsigned: Vec<(WantedSignature, Opinion)>,
    has_signed: bool,
) {
    let Some(policy) = unsigned.first().map(|(wanted, _)| wanted.policy.clone()) else { return };
    if is_here(ctx, &policy) {
        unsigned.into_iter().for_each(|(wanted, opinion)| tell(intake, wanted, opinion));
        return;
    }
    let mut probes = probes(ctx, intake, &policy);
    if !has_signed && !is_signing_any(ctx, &mut probes).await {
        unsigned.into_iter().for_each(|(wanted, _)| tell(intake, wanted, Opinion::None));
        return;
    }
    let (refused, failed): (Vec<_>, Vec<_>) =
        unsigned.into_iter().partition(|(_, opinion)| opinion.is_given());
    for (wanted, opinion) in refused {
        let opinion = if opinion.counts(has_signed) { opinion } else { in_vain(ctx, &wanted) };
        tell(intake, wanted, opinion);
    }
    go_without(ctx, intake, failed, &mut probes, has_signed).await;
}

/// Notes that a policy server that signs was asked about an event of the past in vain. If that has happened time and again the event goes
/// without, and else it is asked about when it is read again.
fn in_vain(ctx: &Context, wanted: &WantedSignature) -> Opinion {
    match ctx.federation.policy_servers.past.note(wanted, Instant::now()) {
        true => Opinion::Given(None),
        false => Opinion::None,
    }
}

/// Events that the policy server gave nothing about, while it signs others, are asked about once more, each alone, since what makes it
/// fall takes along what it is asked beside. If it gives nothing then either, whatever that is, and signs again behind it, that is
/// about the event. Those that it was late with do not make it fall, and are asked about together.
async fn go_without(
    ctx: &Arc<Context>,
    intake: &mut Intake,
    failed: Vec<(WantedSignature, Opinion)>,
    probes: &mut [UnsignedEvent],
    has_signed: bool,
) {
    let past = &ctx.federation.policy_servers.past;
    // What does not count yet leaves the time to the others.
    let (due, early): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|(wanted, _)| past.is_due(wanted, Instant::now()));
    early.into_iter().for_each(|(wanted, _)| tell(intake, wanted, Opinion::None));
    if due.is_empty() {
        return;
    }
    let (late, failed): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|(_, opinion)| matches!(opinion, Opinion::Late { .. }));
    let (begun, mut is_signing) = (Instant::now(), true);
    for (wanted, _) in failed {
        let mut opinion = Opinion::None;
        let is_looked_into = is_signing && begun.elapsed() < POLICY_ALONE_TIME_MAX;
        if is_looked_into && let Some(event) = intake.event(&wanted.event_id).cloned() {
            sleep(POLICY_BREATH).await;
            opinion = ask_about(ctx, &wanted, &event, POLICY_PAST_TIME_MAX).await;
            opinion = checked(ctx, intake, &wanted, opinion);
            if !opinion.counts(has_signed) {
                // Whoever is busy signs nothing straight behind it.
                let is_busy = matches!(opinion, Opinion::None);
                let is_about_it = match probes.first() {
                    Some(probe) if is_busy => signs(ctx, probe).await,
                    _ => true,
                };
                is_signing = is_signing_any(ctx, probes).await;
                opinion = if is_signing && is_about_it { in_vain(ctx, &wanted) } else { Opinion::None };
            }
        }
        tell(intake, wanted, opinion);
    }
    if is_signing {
        go_without_late(ctx, intake, late, probes, has_signed).await;
    } else {
        late.into_iter().for_each(|(wanted, _)| tell(intake, wanted, Opinion::None));
    }
}

/// Events that the policy server was late with are asked about once more side by side, with one beside them that it signs: each alone would
/// take all the time there is.
async fn go_without_late(
    ctx: &Arc<Context>,
    intake: &mut Intake,
    late: Vec<(WantedSignature, Opinion)>,
    probes: &mut [UnsignedEvent],
    has_signed: bool,
) {
    let is_signing = !late.is_empty() && is_signing_any(ctx, probes).await;
    // The first is the one that it has just signed.
    let Some(probe) = probes.first().filter(|_| is_signing) else {
        late.into_iter().for_each(|(wanted, _)| tell(intake, wanted, Opinion::None));
        return;
    };
    let mut asks = Vec::new();
    for (wanted, _) in late {
        let Some(event) = intake.event(&wanted.event_id).cloned() else { continue };
        let ctx = ctx.clone();
        asks.push(async move {
            let opinion = ask_about(&ctx, &wanted, &event, POLICY_PAST_TIME_MAX).await;
            (wanted, opinion)
        });
    }
    let (opinions, is_signing) = tokio::join!(worker::side_by_side(ctx, asks), signs(ctx, probe));
    let opinions: Vec<_> = opinions
        .into_iter()
        .map(|(wanted, opinion)| {
            let opinion = checked(ctx, intake, &wanted, opinion);
            (wanted, opinion)
        })
        .collect();
    // One that is slow gets on with some each time.
    let gets_on = opinions.iter().any(|(_, opinion)| opinion.is_signature());
    for (wanted, mut opinion) in opinions {
        if !opinion.counts(has_signed) {
            opinion = if is_signing && !gets_on { in_vain(ctx, &wanted) } else { Opinion::None };
        }
        tell(intake, wanted, opinion);
    }
}

/// Events by which it can be seen whether a policy server signs, best first: one that it is to be asked about later, as only a signature on what
/// it has not seen shows that it judges; one at hand that it has signed, perhaps just now, and those that the room has; then another that it
/// is to be asked about later.
fn probes(ctx: &Context, intake: &Intake, policy: &PolicyServer) -> Vec<UnsignedEvent> {
    let mut later = intake.to_be_signed_later().into_iter();
    let mut probes: Vec<UnsignedEvent> = later.next().into_iter().chain(intake.signed_by(policy)).collect();
    let limit = POLICY_PROBES_MAX.saturating_sub(probes.len() + later.len());
    let view = PolicyProbes { room_id: intake.room_id(), policy, limit };
    let of_room = tokio::task::block_in_place(|| ctx.engine.read(&view)).unwrap_or_else(|error| {
        tracing::warn!(%error, "it cannot be told what a policy server has signed");
        Vec::new()
    });
    probes.extend(of_room);
    probes.extend(later);
    probes
}

/// Whether a policy server is there and signs one of the events by the key that the room says. That one is the first from then on.
async fn is_signing_any(ctx: &Context, probes: &mut [UnsignedEvent]) -> bool {
    let begun = Instant::now();
    for turn in 0..POLICY_PROBES_MAX {
        let Some(probe) = probes.first() else { return false };
        if turn > 0 {
            if begun.elapsed() >= POLICY_PAST_TIME_MAX {
                return false;
            }
            sleep(POLICY_BREATH).await;
        }
        if signs(ctx, probe).await {
            return true;
        }
        probes.rotate_left(1);
    }
    false
}

/// Whether a policy server signs an event by the key that the room says.
async fn signs(ctx: &Context, probe: &UnsignedEvent) -> bool {
    let answer = ask(ctx, &probe.policy, probe.json(), None, POLICY_PROBE_TIME_MAX).await;
    answer.is_ok_and(|answer| probe.signed(&answer).is_ok())
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

/// What the policy server says of an event that another server sent. All servers in the room ask for the same signature at the same time: if
/// it wants to be asked later it is, a few times. That takes twice the `time` for one answer at most.
async fn ask_about(ctx: &Context, wanted: &WantedSignature, event: &Bytes, time: Duration) -> Opinion {
    let policy = &wanted.policy;
    if is_own(ctx, policy) {
        return own_opinion(ctx, event);
    }
    if is_here(ctx, policy) {
        return Opinion::Failed;
    }
    timeout(2 * time, ask_until_told(ctx, wanted, event, time)).await.unwrap_or(Opinion::None)
}

/// The same of a policy server that is another server, which may want to be asked later time and again.
async fn ask_until_told(ctx: &Context, wanted: &WantedSignature, event: &Bytes, time: Duration) -> Opinion {
    let policy = &wanted.policy;
    let mut waits = 0;
    loop {
        let begun = Instant::now();
        let answer = ask(ctx, policy, event, None, time).await;
        if let Err(RemoteError::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. }) = &answer
            && let Some(wait) =
                retry_after.filter(|wait| waits < POLICY_WAITS_MAX && *wait <= POLICY_WAIT_MAX)
        {
            waits += 1;
            sleep(wait).await;
            continue;
        }
        if let Err(error) = &answer {
            tracing::debug!(policy_server = policy.name, event_id = %wanted.event_id, %error, "an event is not signed");
        }
        let servers = &ctx.federation.policy_servers;
        return opinion_of(answer, servers.answers_others(&policy.name, begun, Instant::now()));
    }
}

async fn ask(
    ctx: &Context,
    policy: &PolicyServer,
    event: &Bytes,
    asker: Option<&Asker>,
    time: Duration,
) -> Result<JsonObject, RemoteError> {
    let server =
        ServerName::parse(&policy.name).map_err(|error| RemoteError::Unreachable(error.to_string()))?;
    let content: &RawValue =
        serde_json::from_slice(event).map_err(|error| RemoteError::BadAnswer(error.to_string()))?;
    let request = Request::new(Method::POST, "/_matrix/policy/v1/sign").with_content(&content)?;
    let request = request.repeatable().with_time(time).with_bytes_max(POLICY_BYTES_MAX);
    let request = match asker {
        Some(asker) => request.asked_by(asker),
        None => request,
    };
    let begun = Instant::now();
    let answer = request.send(ctx, &server).await;
    let outcome = match &answer {
        Ok(_) => "answered",
        Err(RemoteError::Refused { .. }) => "refused",
        Err(_) => "unreachable",
    };
    counter!("warren_policy_signatures_total", "outcome" => outcome).increment(1);
    ctx.federation.policy_servers.note(&server, begun, answer.as_ref().err());
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn refused(status: u16, errcode: &str) -> RemoteError {
        let body = format!(r#"{{"errcode":"{errcode}","error":"no"}}"#);
        RemoteError::of_answer(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn only_one_answer_is_a_refusal_and_what_is_out_or_busy_has_no_opinion() {
        for answers_others in [true, false] {
            assert!(opinion_of(Ok(JsonObject::new()), answers_others).is_signature());
            let refusal = opinion_of(Err(refused(400, "M_FORBIDDEN")), answers_others);
            assert!(refusal.is_given() && !refusal.is_signature());
            for (status, errcode) in [
                (400, "M_BAD_JSON"),
                (401, "M_UNAUTHORIZED"),
                (403, "M_FORBIDDEN"),
                (404, "M_NOT_FOUND"),
                (408, "M_UNKNOWN"),
                (413, "M_TOO_LARGE"),
                (500, "M_UNKNOWN"),
            ] {
                let opinion = opinion_of(Err(refused(status, errcode)), answers_others);
                assert!(matches!(opinion, Opinion::Failed), "{status} {errcode}");
            }
            let bad = RemoteError::BadAnswer("not JSON".to_owned());
            assert!(matches!(opinion_of(Err(bad), answers_others), Opinion::Failed));
            for error in [
                refused(429, "M_LIMIT_EXCEEDED"),
                refused(502, "M_UNKNOWN"),
                refused(503, "M_UNKNOWN"),
                refused(504, "M_UNKNOWN"),
                RemoteError::Unreachable("nobody is there".to_owned()),
                RemoteError::NotAdmitted("policy.test".to_owned()),
            ] {
                let shown = error.to_string();
                assert!(matches!(opinion_of(Err(error), answers_others), Opinion::None), "{shown}");
            }
        }
        for answers in [true, false] {
            let late = opinion_of(Err(RemoteError::Timeout), answers);
            assert!(matches!(late, Opinion::Late { answers_others } if answers_others == answers));
        }
    }

    #[test]
    fn of_the_past_a_refusal_counts_by_itself_only_beside_a_signature() {
        let signature = || Opinion::Given(Some(JsonObject::new()));
        let refusal = || Opinion::Given(None);
        assert!(signature().counts(false) && signature().counts(true));
        assert!(refusal().counts(true) && !refusal().counts(false));
        for none in [Opinion::Failed, Opinion::Late { answers_others: true }, Opinion::None] {
            assert!(!none.counts(true) && !none.counts(false));
        }
    }
}
