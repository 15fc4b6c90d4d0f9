//! `refresh.yaml`: new tokens for a refresh token.
//!
//! What is counted depends on the token, which is looked at first: one that is known is its user's request, and who guesses from
//! the same address must not keep him from it.

use serde::{Deserialize, Serialize};
use warren_engine::command::RefreshTokens;
use warren_engine::view::{AccountOf, OwnerOfRefreshToken};
use warren_engine::{Denied, Error};

use crate::http::route::Rate;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/refresh" ["v1", "unstable/org.matrix.msc2918.refresh"] None None Json post_refresh;
}

#[derive(Deserialize)]
struct Request {
    refresh_token: String,
}

#[derive(Serialize)]
struct Refreshed {
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

async fn post_refresh(call: Call) -> Outcome {
    let Request { refresh_token } = call.json()?;
    let unknown = || ApiError::unknown_token("This refresh token is not known, or has been used");
    let Some(user_id) = call.ctx.engine.read(&OwnerOfRefreshToken(&refresh_token))? else {
        call.ctx.rate_limits.take(Rate::UnknownToken, None, call.client)?;
        return Err(unknown());
    };
    call.ctx.rate_limits.take_for_user(Rate::Write, &user_id)?;
    if call.ctx.engine.read(&AccountOf(&user_id))?.is_some_and(|account| account.is_locked) {
        return Err(ApiError::user_locked());
    }
    let tokens = call.ctx.engine.write(RefreshTokens { user_id, refresh_token }).await;
    let tokens = tokens.map_err(|error| match error {
        Error::NotFound(_) | Error::Denied(Denied::Deactivated) => unknown(),
        error => error.into(),
    })?;
    Answer::json(&Refreshed {
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
        expires_in_ms: tokens.expires_in_ms,
    })
}
