//! `openid.yaml`: a token by which a user proves to others who they are.

use serde_json::json;
use warren_engine::account::passing_tokens::TokenPurpose;
use warren_engine::command::MakePassingToken;

use crate::http::limits::OPENID_TOKEN_TIME;
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/user/{userId}/openid/request_token" ["r0"] Guest Write Json request_token;
}

async fn request_token(call: Call) -> Outcome {
    let user_id = call.own_user("userId")?.to_string();
    let life_ms = OPENID_TOKEN_TIME.as_millis() as u64;
    let token = call.ctx.engine.write(MakePassingToken { user_id, purpose: TokenPurpose::OpenId, life_ms });
    let token = token.await?;
    Answer::json(&json!({
        "access_token": token,
        "token_type": "Bearer",
        "matrix_server_name": call.ctx.config.server_name,
        "expires_in": OPENID_TOKEN_TIME.as_secs(),
    }))
}
