//! `registration.yaml`: making an account, also of a guest's, and asking whether a name is free.

use serde::{Deserialize, Serialize};
use serde_json::json;
use warren_engine::account::{NewSession, Sighting, Tokens};
use warren_engine::command::{Register, UpgradeGuest};
use warren_engine::view::NameIsFree;
use warren_engine::{Denied, Error};

use crate::config::Registration;
use crate::http::limits::{DEVICE_ID_BYTES_MAX, DEVICE_NAME_BYTES_MAX};
use crate::http::uia::{self, Flow, Proof, Stage};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints, null_is_absent};
use crate::password::PASSWORD_BYTES_MAX;

endpoints! {
    POST "/_matrix/client/v3/register"           ["r0"] None Register Json    register;
    GET  "/_matrix/client/v3/register/available" ["r0"] None Read     Nothing get_available;
}

/// Random characters of a name that the server makes.
const NAME_CHARS: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Guest,
}

#[derive(Deserialize)]
struct Request {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    inhibit_login: bool,
    #[serde(default, deserialize_with = "null_is_absent")]
    refresh_token: bool,
    guest_access_token: Option<String>,
}

/// What a registration or login gives to the client.
#[derive(Serialize)]
pub struct LoggedIn {
    pub user_id: String,
    /// Deprecated, but clients of old need it.
    pub home_server: String,
    #[serde(flatten)]
    pub session: Option<SessionAnswer>,
}

/// Tokens as clients get them.
#[derive(Serialize)]
pub struct SessionAnswer {
    pub access_token: String,
    pub device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

impl From<Tokens> for SessionAnswer {
    fn from(tokens: Tokens) -> SessionAnswer {
        let Tokens { device_id, access_token, refresh_token, expires_in_ms } = tokens;
        SessionAnswer { access_token, device_id, refresh_token, expires_in_ms }
    }
}

async fn register(call: Call) -> Outcome {
    let kind = call.query_enum("kind", &[("user", Kind::User), ("guest", Kind::Guest)])?;
    if kind == Some(Kind::Guest) {
        return register_guest(call).await;
    }
    let flows: &[Flow] = match call.ctx.config.registration {
        Registration::Closed => return Err(ApiError::forbidden("Registration is closed on this server")),
        Registration::Token => &[&[Stage::RegistrationToken]],
        Registration::Open => &[&[Stage::Dummy]],
    };
    let call = uia::fill_in(call)?;
    let request: Request = call.json_or_empty()?;
    // Clients use capitals in names; they are the same names.
    let username = request.username.as_deref().map(str::to_ascii_lowercase);
    if let Err(error) = check_name(&call, username.as_deref(), request.guest_access_token.as_deref()).await {
        // Who sends a registration again whose answer was lost finds the name taken by it.
        return uia::answered(&call).await.unwrap_or(Err(error));
    }
    if let Some(password) = &request.password {
        check_password(password)?;
    }
    let session = match request.inhibit_login {
        true => None,
        false => {
            let name = request.initial_device_display_name;
            Some(new_session(&call, request.device_id, name, request.refresh_token)?)
        }
    };
    let wanted = Wanted {
        username,
        password: request.password,
        guest_access_token: request.guest_access_token,
        session,
    };
    uia::perform(call, flows, |call, proof| finish(call, wanted, proof)).await
}

/// Refuses a name that cannot be taken: by nobody, or by a guest who is not called so.
async fn check_name(call: &Call, name: Option<&str>, guest: Option<&str>) -> Result<(), ApiError> {
    match (name, guest) {
        (name, Some(access_token)) => check_guest(call, access_token, name).await,
        (Some(name), None) => Ok(call.ctx.engine.read(&NameIsFree(name))?),
        (None, None) => Ok(()),
    }
}

/// Refuses a guest who wants to become a user without having proven that they are the guest whom they name.
///
/// Specification: "Guest Access".
async fn check_guest(call: &Call, access_token: &str, localpart: Option<&str>) -> Result<(), ApiError> {
    let localpart = localpart
        .ok_or_else(|| ApiError::missing_param("username is missing: guests name themselves as they are"))?;
    let not_theirs = || ApiError::from(Error::from(Denied::NotThisGuest));
    // Who is answered with 401 is asked to prove who they are, which is about something else here.
    let session = match call.ctx.session(access_token).await {
        Err(error) if error.status == http::StatusCode::UNAUTHORIZED => return Err(not_theirs()),
        session => session?,
    };
    if session.is_locked {
        return Err(ApiError::user_locked());
    }
    match session.is_guest && session.user_id.localpart() == localpart {
        true => Ok(()),
        false => Err(not_theirs()),
    }
}

/// The account that somebody wants.
struct Wanted {
    username: Option<String>,
    password: Option<String>,
    guest_access_token: Option<String>,
    session: Option<NewSession>,
}

async fn finish(call: Call, wanted: Wanted, proof: Proof) -> Outcome {
    let Wanted { username, password, guest_access_token, session } = wanted;
    let password = password.ok_or_else(|| ApiError::missing_param("password is missing"))?;
    let localpart = username.unwrap_or_else(|| made_name(&call));
    let password_hash = hash_password(&call, password).await?;
    let registration_token = proof.registration_token;
    let registered = match guest_access_token {
        Some(access_token) => {
            let user_id = format!("@{localpart}:{}", call.ctx.config.server_name);
            let upgrade = UpgradeGuest { user_id, access_token, password_hash, registration_token, session };
            call.ctx.engine.write(upgrade).await?
        }
        None => {
            let password_hash = Some(password_hash);
            let register =
                Register { localpart, password_hash, registration_token, session, ..Register::default() };
            call.ctx.engine.write(register).await?
        }
    };
    if registered.is_admin {
        tracing::info!(user_id = %registered.user_id, "the first account is made; it administers the server");
    }
    Answer::json(&LoggedIn {
        user_id: registered.user_id,
        home_server: call.ctx.config.server_name.to_string(),
        session: registered.tokens.map(SessionAnswer::from),
    })
}

/// All of the body but the device's name is ignored, as the specification asks.
async fn register_guest(call: Call) -> Outcome {
    #[derive(Deserialize)]
    struct Request {
        initial_device_display_name: Option<String>,
    }
    if !call.ctx.config.guests {
        return Err(ApiError::forbidden("Guests are not allowed on this server"));
    }
    let request: Request = call.json_or_empty()?;
    let session = new_session(&call, None, request.initial_device_display_name, false)?;
    let localpart = made_name(&call);
    let register = Register { localpart, is_guest: true, session: Some(session), ..Register::default() };
    let registered = call.ctx.engine.write(register).await?;
    Answer::json(&LoggedIn {
        user_id: registered.user_id,
        home_server: call.ctx.config.server_name.to_string(),
        session: registered.tokens.map(SessionAnswer::from),
    })
}

/// A name for somebody who did not choose one.
fn made_name(call: &Call) -> String {
    let random = call.ctx.random_text().to_ascii_lowercase();
    random.chars().filter(char::is_ascii_alphanumeric).take(NAME_CHARS).collect()
}

/// What a client asks of its session, within the limits, and from where. An empty device id is none: the session gets one.
pub fn new_session(
    call: &Call,
    device_id: Option<String>,
    display_name: Option<String>,
    is_refreshable: bool,
) -> Result<NewSession, ApiError> {
    let device_id = device_id.filter(|id| !id.is_empty());
    if device_id.as_deref().is_some_and(|id| id.len() > DEVICE_ID_BYTES_MAX) {
        return Err(ApiError::invalid_param(format!(
            "device_id must be at most {DEVICE_ID_BYTES_MAX} bytes long"
        )));
    }
    check_device_name(display_name.as_deref())?;
    let ip = call.client.map(|address| address.to_string());
    let seen = Some(Sighting { ts: call.ctx.engine.now_ms(), ip });
    Ok(NewSession { device_id, display_name, is_refreshable, seen })
}

/// Refuses a device's name that is too long.
pub fn check_device_name(name: Option<&str>) -> Result<(), ApiError> {
    match name {
        Some(name) if name.len() > DEVICE_NAME_BYTES_MAX => Err(ApiError::invalid_param(format!(
            "The device's name is longer than {DEVICE_NAME_BYTES_MAX} bytes"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a password that cannot be taken.
pub fn check_password(password: &str) -> Result<(), ApiError> {
    if password.is_empty() {
        return Err(ApiError::weak_password("The password is empty"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(ApiError::invalid_param(format!(
            "The password is longer than {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// The hash to store for a password that a user has chosen.
pub async fn hash_password(call: &Call, password: String) -> Result<String, ApiError> {
    check_password(&password)?;
    call.ctx.passwords.hash(password).await.map_err(ApiError::internal)
}

async fn get_available(call: Call) -> Outcome {
    let name = call.query_required("username")?.to_ascii_lowercase();
    call.ctx.engine.read(&NameIsFree(&name))?;
    Answer::json(&json!({ "available": true }))
}
