//! User-interactive authentication: a request is answered only after its sender has gone through the stages of a flow.
//! Specification: client-server API, "User-Interactive Authentication API".
//!
//! Invariant: a session is good for one request only: the same user, method, path and body. What was proven in it opens
//! nothing else, and nothing twice. While registering there is no user yet whom another body could harm, and clients ask
//! for the flows with an empty one: there the body may change.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use http::StatusCode;
use parking_lot::Mutex;
use ring::digest::{Context as Sha256, SHA256};
use ruma_common::UserId;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warren_engine::view::RegistrationTokenIsValid;

use super::credentials::{self, NamedUser};
use super::limits::{UIA_SESSIONS_MAX, UIA_TIME_MAX};
use super::{Answer, ApiError, Call};

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
pub enum Progress {
    /// A flow is complete: the handler goes on.
    Done(Proof),
    /// Something is still wanted: the handler answers with this.
    Wanted(Answer),
}

type RequestHash = [u8; 32];

struct Session {
    request: RequestHash,
    completed: Vec<Stage>,
    proof: Proof,
    begun: Instant,
}

/// The sessions of all requests that are under way.
#[derive(Default)]
pub struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    sessions: HashMap<String, Session>,
    /// The sessions' ids, oldest first; also of some that are gone.
    order: VecDeque<(Instant, String)>,
}

impl Table {
    fn insert(&mut self, id: String, session: Session) {
        while let Some((begun, oldest)) = self.order.front() {
            if begun.elapsed() <= UIA_TIME_MAX && self.order.len() < UIA_SESSIONS_MAX {
                break;
            }
            self.sessions.remove(oldest);
            self.order.pop_front();
        }
        self.order.push_back((session.begun, id.clone()));
        self.sessions.insert(id, session);
    }
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

/// Takes the request one stage further. `user` is who has to be proven by a password; `None` while registering.
///
/// Errors: 403 if the session was begun for another request; 400 for malformed `auth`.
pub async fn check(call: &Call, flows: &[Flow], user: Option<&UserId>) -> Result<Progress, ApiError> {
    let body: Body<'_> = call.json_or_empty()?;
    let request = request_hash(call, user)?;
    let Some(auth) = body.auth else {
        let session = Session::new(request);
        return Ok(Progress::Wanted(want(call, flows, None, session, None)?));
    };
    let auth: Auth = serde_json::from_str(auth.get())
        .map_err(|error| ApiError::bad_json(format!("auth has the wrong shape: {error}")))?;
    let mut session = match &auth.session {
        Some(id) => resume(call, id, request)?,
        None => Session::new(request),
    };
    let failure = match &auth.kind {
        None => None,
        Some(kind) => attempt(call, flows, user, &auth, kind, &mut session).await?,
    };
    let done = |flow: &&Flow| flow.iter().all(|stage| session.completed.contains(stage));
    if failure.is_none() && flows.iter().any(|flow| done(&flow)) {
        if let Some(id) = &auth.session {
            call.ctx.uia.0.lock().sessions.remove(id);
        }
        return Ok(Progress::Done(session.proof));
    }
    Ok(Progress::Wanted(want(call, flows, auth.session, session, failure)?))
}

impl Session {
    fn new(request: RequestHash) -> Session {
        Session { request, completed: Vec::new(), proof: Proof::default(), begun: Instant::now() }
    }
}

/// What has been proven in the session so far.
///
/// Errors: 400 for an unknown or expired session, 403 for one of another request.
fn resume(call: &Call, id: &str, request: RequestHash) -> Result<Session, ApiError> {
    let table = call.ctx.uia.0.lock();
    let Some(found) = table.sessions.get(id).filter(|found| found.begun.elapsed() <= UIA_TIME_MAX) else {
        return Err(ApiError::unknown("This authentication session is not known; begin anew without one"));
    };
    if found.request != request {
        return Err(ApiError::forbidden("This authentication session was begun for another request"));
    }
    Ok(Session {
        request,
        completed: found.completed.clone(),
        proof: found.proof.clone(),
        begun: found.begun,
    })
}

/// Tries one stage; the error that the client is told of, if it failed.
async fn attempt(
    call: &Call,
    flows: &[Flow],
    user: Option<&UserId>,
    auth: &Auth,
    kind: &str,
    session: &mut Session,
) -> Result<Option<ApiError>, ApiError> {
    let stage = flows.iter().copied().flatten().copied().find(|stage| stage.name() == kind);
    let Some(stage) = stage else {
        return Ok(Some(ApiError::unrecognized("This stage is in none of the flows")));
    };
    if session.completed.contains(&stage) {
        return Ok(None);
    }
    let failure = match stage {
        Stage::Dummy => None,
        Stage::Password => attempt_password(call, user, auth, &mut session.proof).await?,
        Stage::RegistrationToken => attempt_token(call, auth, &mut session.proof)?,
    };
    if failure.is_none() {
        session.completed.push(stage);
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
    session: Session,
    failure: Option<ApiError>,
) -> Result<Answer, ApiError> {
    let stages = |stages: &[Stage]| stages.iter().map(|stage| stage.name()).collect::<Vec<_>>();
    let mut body = json!({
        "flows": flows.iter().map(|flow| json!({ "stages": stages(flow) })).collect::<Vec<_>>(),
        "params": {},
    });
    if !session.completed.is_empty() {
        body["completed"] = stages(&session.completed).into();
    }
    if let Some(failure) = failure {
        body["errcode"] = failure.errcode.into();
        body["error"] = failure.error.into();
    }
    let mut table = call.ctx.uia.0.lock();
    let id = match id {
        Some(id) => {
            if let Some(known) = table.sessions.get_mut(&id) {
                *known = session;
            }
            id
        }
        None => {
            let id = call.ctx.random_text();
            table.insert(id.clone(), session);
            id
        }
    };
    body["session"] = id.into();
    drop(table);
    Ok(Answer::json(&body)?.with_status(StatusCode::UNAUTHORIZED))
}

/// What a session is bound to: user, method, path and, once there is a user, all of the body but `auth`.
fn request_hash(call: &Call, user: Option<&UserId>) -> Result<RequestHash, ApiError> {
    let body = match user {
        None => String::new(),
        Some(_) => {
            let mut body: BTreeMap<String, Value> = call.json_or_empty()?;
            body.remove("auth");
            serde_json::to_string(&body).map_err(ApiError::internal)?
        }
    };
    let mut hash = Sha256::new(&SHA256);
    for part in [user.map_or("", UserId::as_str), call.method().as_str(), call.raw_path(), &body] {
        // With its length before it, so that parts cannot run into each other.
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut request = RequestHash::default();
    // SHA-256 is exactly as long as its place.
    request.copy_from_slice(hash.finish().as_ref());
    Ok(request)
}
