//! User-interactive authentication: a request is answered only after its sender has gone through the stages of a flow.
//! Specification: client-server API, "User-Interactive Authentication API".
//!
//! Invariant: a session is good for one request only: the same user, method, path and body. What was proven in it opens
//! nothing else, and nothing twice: the same request again is answered as it was, for its answer may have been lost. Clients
//! ask for the flows with an empty body: the first other one that comes is the session's. While registering there is no user
//! yet whom another body could harm: there it may change until the stages are complete. A request that has nothing but `auth`
//! has the body that came before.

mod sessions;

use std::collections::BTreeMap;

use http::StatusCode;
use ring::digest::{Context as Sha256, SHA256};
use ruma_common::UserId;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warren_engine::view::RegistrationTokenIsValid;

pub use self::sessions::Sessions;
use self::sessions::{Asked, Closed, Open, RequestHash, Serving, State, Turn};
use super::credentials::{self, NamedUser};
use super::{Answer, ApiError, Call, Outcome};
use crate::worker;

/// A step that proves something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is proven.
    Dummy,
    /// The password of the user who asks.
    Password,
    /// A registration token.
    RegistrationToken,
}

impl Stage {
    /// Its name in the specification.
    fn name(self) -> &'static str {
        match self {
            Stage::Dummy => "m.login.dummy",
            Stage::Password => "m.login.password",
            Stage::RegistrationToken => "m.login.registration_token",
        }
    }
}

/// Stages of which all have to be gone through.
pub type Flow = &'static [Stage];

/// What was proven on the way.
#[derive(Debug, Default, Clone)]
pub struct Proof {
    /// The registration token, which is not used up yet.
    pub registration_token: Option<String>,
    /// The stored hash of the user's password, which must still be the account's when it counts.
    pub password_hash: Option<String>,
}

/// Where a request stands.
enum Step {
    /// It is answered: something is still wanted, or it was sent again.
    Answered(Outcome),
    /// A flow is complete: it is to be done, in the session that it names.
    Passed(Proof, Option<Serving>),
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(rename = "type")]
    kind: Option<String>,
    session: Option<String>,
    password: Option<String>,
    token: Option<String>,
    #[serde(flatten)]
    user: NamedUser,
}

/// Answers a request when its sender has gone through the stages of one of the flows: with what `work` comes to, which is
/// done once in a session, and then to its end. Who asks has to be proven by a password; while registering that is nobody.
///
/// Errors: those of the work; 403 if the session was begun for another request; 400 if it is unknown or served another
/// request, or for malformed `auth`.
pub async fn perform<W: Future<Output = Outcome> + Send + 'static>(
    call: Call,
    flows: &[Flow],
    work: impl FnOnce(Call, Proof) -> W,
) -> Outcome {
    match advance(&call, flows).await? {
        Step::Answered(outcome) => outcome,
        Step::Passed(proof, None) => work(call, proof).await,
        Step::Passed(proof, Some(serving)) => {
            let (ctx, settling) = (call.ctx.clone(), call.ctx.clone());
            let work = work(call, proof);
            // A client that goes away meanwhile may come back for the answer.
            worker::finish(&ctx, async move {
                let outcome = work.await;
                settling.uia.settle(serving, &outcome);
                outcome
            })
            .await
        }
    }
}

/// Puts the body that the session has had so far into a request that has nothing but `auth`, as clients send it that only
/// tell of a stage. To be done before anything else is read in it.
///
/// Errors: 400 for a body that is no JSON object.
pub fn fill_in(mut call: Call) -> Result<Call, ApiError> {
    let mut sent: BTreeMap<String, Value> = call.json_or_empty()?;
    let session = sent.get("auth").filter(|_| sent.len() == 1).and_then(|auth| auth.get("session")?.as_str());
    let Some(session) = session else { return Ok(call) };
    let asked = asked(&call, call.user().ok())?;
    let Some(body) = call.ctx.uia.body(session, &asked) else { return Ok(call) };
    let mut whole: BTreeMap<String, Value> = serde_json::from_str(&body).map_err(ApiError::internal)?;
    whole.append(&mut sent);
    call.body = serde_json::to_vec(&whole).map_err(ApiError::internal)?.into();
    Ok(call)
}

/// What the request was answered with in the session that it names, if it is sent again; waits for it while it is under way.
pub async fn answered(call: &Call) -> Option<Outcome> {
    let body: Body<'_> = call.json_or_empty().ok()?;
    let auth: Auth = serde_json::from_str(body.auth?.get()).ok()?;
    let asked = asked(call, call.user().ok()).ok()?;
    match call.ctx.uia.state(&auth.session?, &asked) {
        Ok(State::Closed(closed)) if closed.serves(&asked) => Some(closed.answer().await),
        _ => None,
    }
}

/// The stage of this name that a session waits for, and for what.
///
/// Errors: 400 for an unknown session; 404 for a stage that is in none of its flows.
pub fn waiting(call: &Call, stage: &str, session: &str) -> Result<Stage, ApiError> {
    apart(offered(&call.ctx.uia.open(session)?.stages, stage)?)
}

/// A stage that may be completed apart from its request. A password may not: whoever has come by somebody's access token could
/// begin a session, and send them to the page of their own server.
fn apart(stage: Stage) -> Result<Stage, ApiError> {
    match stage {
        Stage::Dummy | Stage::RegistrationToken => Ok(stage),
        Stage::Password => Err(ApiError::unrecognized("Passwords are for the client to ask for")),
    }
}

/// Completes a stage apart from the request that the session is for.
///
/// Errors: those of [`waiting`]; what the stage wants is missing or wrong.
pub async fn complete(call: &Call, stage: &str, session: &str) -> Result<(), ApiError> {
    let mut open = call.ctx.uia.open(session)?;
    let auth: Auth = call.json_or_empty()?;
    let stages = open.stages.clone();
    let stage = apart(offered(&stages, stage)?)?;
    match attempt(call, &stages, None, &auth, stage.name(), &mut open).await? {
        Some(failure) => Err(failure),
        None => {
            call.ctx.uia.prove(session, open);
            Ok(())
        }
    }
}

fn offered(stages: &[Stage], name: &str) -> Result<Stage, ApiError> {
    let stage = stages.iter().copied().find(|stage| stage.name() == name);
    stage.ok_or_else(|| ApiError::unrecognized("This stage is in none of the flows"))
}

/// Takes the request one stage further.
async fn advance(call: &Call, flows: &[Flow]) -> Result<Step, ApiError> {
    let user = call.user().ok();
    let body: Body<'_> = call.json_or_empty()?;
    let asked = asked(call, user)?;
    let Some(auth) = body.auth else {
        return want(call, flows, None, &asked, Open::default(), None);
    };
    let auth: Auth = serde_json::from_str(auth.get())
        .map_err(|error| ApiError::bad_json(format!("auth has the wrong shape: {error}")))?;
    let mut open = match &auth.session {
        Some(id) => match call.ctx.uia.state(id, &asked)? {
            State::Open(open) => open,
            State::Closed(closed) => return Ok(Step::Answered(again(closed, &asked).await)),
        },
        None => Open::default(),
    };
    let failure = match &auth.kind {
        None => None,
        Some(kind) => attempt(call, &flows.concat(), user, &auth, kind, &mut open).await?,
    };
    let done = |flow: &&Flow| flow.iter().all(|stage| open.completed.contains(stage));
    if failure.is_some() || !flows.iter().any(|flow| done(&flow)) {
        return want(call, flows, auth.session, &asked, open, failure);
    }
    let Some(id) = auth.session else { return Ok(Step::Passed(open.proof, None)) };
    match call.ctx.uia.close(&id, &asked, &open)? {
        Turn::Serve(serving) => Ok(Step::Passed(open.proof, Some(serving))),
        Turn::Wait(closed) => Ok(Step::Answered(again(closed, &asked).await)),
    }
}

/// What a request is answered with in a session that is closed.
async fn again(closed: Closed, asked: &Asked) -> Outcome {
    match closed.serves(asked) {
        true => closed.answer().await,
        false => Err(ApiError::unknown(
            "This authentication session has served another request; begin anew without one",
        )),
    }
}

/// Tries one stage; the error that the client is told of, if it failed.
async fn attempt(
    call: &Call,
    stages: &[Stage],
    user: Option<&UserId>,
    auth: &Auth,
    kind: &str,
    open: &mut Open,
) -> Result<Option<ApiError>, ApiError> {
    let stage = match offered(stages, kind) {
        Ok(stage) => stage,
        Err(error) => return Ok(Some(error)),
    };
    if open.completed.contains(&stage) {
        return Ok(None);
    }
    let failure = match stage {
        Stage::Dummy => None,
        Stage::Password => attempt_password(call, user, auth, &mut open.proof).await?,
        Stage::RegistrationToken => attempt_token(call, auth, &mut open.proof)?,
    };
    if failure.is_none() {
        open.completed.push(stage);
    }
    Ok(failure)
}

async fn attempt_password(
    call: &Call,
    user: Option<&UserId>,
    auth: &Auth,
    proof: &mut Proof,
) -> Result<Option<ApiError>, ApiError> {
    let Some(password) = &auth.password else {
        return Ok(Some(ApiError::missing_param("auth.password is missing")));
    };
    // Clients of old leave the user out, who is known anyway.
    let name = match auth.user.name() {
        Ok(name) => name,
        Err(_) if auth.user.is_absent() => user.map(UserId::as_str).unwrap_or_default(),
        Err(error) => return Ok(Some(error)),
    };
    let proven = credentials::prove(call, name, password).await?;
    let proven = proven.filter(|proven| user.is_some_and(|user| user.as_str() == proven.user_id));
    proof.password_hash = proven.map(|proven| proven.password_hash);
    let failed = proof.password_hash.is_none();
    Ok(failed.then(|| ApiError::forbidden("The user name or the password is wrong")))
}

fn attempt_token(call: &Call, auth: &Auth, proof: &mut Proof) -> Result<Option<ApiError>, ApiError> {
    let Some(token) = &auth.token else {
        return Ok(Some(ApiError::missing_param("auth.token is missing")));
    };
    if !call.ctx.engine.read(&RegistrationTokenIsValid(token))? {
        return Ok(Some(ApiError::unauthorized("This registration token is not valid")));
    }
    proof.registration_token = Some(token.clone());
    Ok(None)
}

/// Remembers the session, and tells the client what it has to do.
fn want(
    call: &Call,
    flows: &[Flow],
    id: Option<String>,
    asked: &Asked,
    mut open: Open,
    failure: Option<ApiError>,
) -> Result<Step, ApiError> {
    open.stages = flows.concat();
    let stages = |stages: &[Stage]| stages.iter().map(|stage| stage.name()).collect::<Vec<_>>();
    let mut body = json!({
        "flows": flows.iter().map(|flow| json!({ "stages": stages(flow) })).collect::<Vec<_>>(),
        "params": {},
    });
    if !open.completed.is_empty() {
        body["completed"] = stages(&open.completed).into();
    }
    if let Some(failure) = failure {
        body["errcode"] = failure.errcode.into();
        body["error"] = failure.error.into();
    }
    let id = match id {
        Some(id) => {
            call.ctx.uia.remember(&id, asked, open);
            id
        }
        None => {
            let id = call.ctx.random_text();
            call.ctx.uia.begin(id.clone(), asked, open);
            id
        }
    };
    body["session"] = id.into();
    Ok(Step::Answered(Ok(Answer::json(&body)?.with_status(StatusCode::UNAUTHORIZED))))
}

/// The request as sessions are bound to it: user, method, path and body, which counts on the way through the stages only if
/// there is a user.
fn asked(call: &Call, user: Option<&UserId>) -> Result<Asked, ApiError> {
    let mut body: BTreeMap<String, Value> = call.json_or_empty()?;
    body.remove("auth");
    let body = serde_json::to_string(&body).map_err(ApiError::internal)?;
    Ok(Asked {
        operation: request_hash(call, user, ""),
        whole: request_hash(call, user, &body),
        body,
        has_user: user.is_some(),
    })
}

fn request_hash(call: &Call, user: Option<&UserId>, body: &str) -> RequestHash {
    let mut hash = Sha256::new(&SHA256);
    for part in [user.map_or("", UserId::as_str), call.method().as_str(), call.raw_path(), body] {
        // With its length before it, so that parts cannot run into each other.
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut request = RequestHash::default();
    // SHA-256 is exactly as long as its place.
    request.copy_from_slice(hash.finish().as_ref());
    request
}
