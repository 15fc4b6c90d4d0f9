//! `login.yaml`: logging in with a password or a token.

use serde::Deserialize;
use serde_json::json;
use warren_engine::account::passing_tokens::TokenPurpose;
use warren_engine::command::{LogIn, SpendPassingToken};
use warren_engine::view::AccountOf;

use super::registration::{LoggedIn, SessionAnswer, new_session};
use crate::http::credentials::{self, NamedUser};
use crate::http::{Answer, ApiError, Call, Outcome, endpoints, null_is_absent};

endpoints! {
    GET  "/_matrix/client/v3/login" ["r0", "api/v1", "v1"] None Read  Nothing get_login_flows;
    POST "/_matrix/client/v3/login" ["r0", "api/v1", "v1"] None Login Json    login;
}

const WRONG: &str = "The user name or the password is wrong";

async fn get_login_flows(_call: Call) -> Outcome {
    Answer::json(&json!({ "flows": [
        { "type": "m.login.password" },
        { "type": "m.login.token", "get_login_token": true },
    ] }))
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "type")]
    kind: String,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    refresh_token: bool,
}

async fn login(call: Call) -> Outcome {
    let request: Request = call.json()?;
    let name = request.initial_device_display_name;
    let session = new_session(&call, request.device_id, name, request.refresh_token)?;
    let (user_id, proven_hash) = match request.kind.as_str() {
        "m.login.password" => {
            let password = request.password.ok_or_else(|| ApiError::missing_param("password is missing"))?;
            // Read by itself, so that what is wrong with it is told of it.
            by_password(&call, &call.json()?, &password).await?
        }
        "m.login.token" => {
            let token = request.token.ok_or_else(|| ApiError::missing_param("token is missing"))?;
            (by_token(&call, token).await?, None)
        }
        kind => return Err(ApiError::unknown(format!("The login type {kind} is not known here"))),
    };
    let tokens = call.ctx.engine.write(LogIn { user_id: user_id.clone(), proven_hash, session }).await?;
    Answer::json(&LoggedIn {
        user_id,
        home_server: call.ctx.config.server_name.to_string(),
        session: Some(SessionAnswer::from(tokens)),
    })
}

async fn by_password(
    call: &Call,
    user: &NamedUser,
    password: &str,
) -> Result<(String, Option<String>), ApiError> {
    let proven = credentials::prove(call, user.name()?, password).await?;
    let proven = proven.ok_or_else(|| ApiError::forbidden(WRONG))?;
    match proven.is_locked {
        true => Err(ApiError::user_locked()),
        false => Ok((proven.user_id, Some(proven.password_hash))),
    }
}

async fn by_token(call: &Call, token: String) -> Result<String, ApiError> {
    let spend = SpendPassingToken { purpose: TokenPurpose::LogIn, token };
    let user_id = call.ctx.engine.write(spend).await;
    let user_id = user_id.map_err(|error| match error {
        warren_engine::Error::NotFound(_) => ApiError::forbidden("This login token is not valid"),
        error => error.into(),
    })?;
    match call.ctx.engine.read(&AccountOf(&user_id))? {
        Some(account) if account.is_locked => Err(ApiError::user_locked()),
        _ => Ok(user_id),
    }
}
