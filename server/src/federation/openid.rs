//! `openid.yaml`: who a user is, told to whom they gave a token.

use serde_json::json;
use warren_engine::account::passing_tokens::TokenPurpose;
use warren_engine::view::OwnerOfPassingToken;

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/openid/userinfo" [] None Read Nothing exchange_openid_token;
}

async fn exchange_openid_token(call: Call) -> Outcome {
    let missing = || ApiError::missing_token("The query parameter access_token is missing");
    let token = call.query("access_token")?.ok_or_else(missing)?;
    let view = OwnerOfPassingToken { purpose: TokenPurpose::OpenId, token: &token };
    match call.ctx.engine.read(&view)? {
        Some(user_id) => Answer::json(&json!({ "sub": user_id })),
        None => Err(ApiError::unknown_token("This token is unknown or has expired")),
    }
}
