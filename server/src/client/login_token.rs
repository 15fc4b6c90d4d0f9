//! `login_token.yaml`: a token with which another device of the user can log in.

use serde_json::json;
use warren_engine::account::passing_tokens::TokenPurpose;
use warren_engine::command::MakePassingToken;

use crate::http::limits::LOGIN_TOKEN_TIME;
use crate::http::uia::{self, Stage};
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v1/login/get_token" ["unstable/org.matrix.msc3882", "/_matrix/client/unstable/org.matrix.msc3882/login/token"] Required Login Json get_token;
}

async fn get_token(call: Call) -> Outcome {
    let call = uia::fill_in(call)?;
    uia::perform(call, &[&[Stage::Password]], |call, _| make_token(call)).await
}

async fn make_token(call: Call) -> Outcome {
    let life_ms = LOGIN_TOKEN_TIME.as_millis() as u64;
    let user_id = call.user()?.to_string();
    let token = call.ctx.engine.write(MakePassingToken { user_id, purpose: TokenPurpose::LogIn, life_ms });
    let token = token.await?;
    Answer::json(&json!({ "login_token": token, "expires_in_ms": life_ms }))
}
