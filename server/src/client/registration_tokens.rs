//! `registration_tokens.yaml`: whether a registration token is good.

use serde_json::json;
use warren_engine::view::RegistrationTokenIsValid;

use crate::config::Registration;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v1/register/m.login.registration_token/validity" ["unstable/org.matrix.msc3231"] None Register Nothing get_validity;
}

async fn get_validity(call: Call) -> Outcome {
    let token = call.query_required("token")?;
    if call.ctx.config.registration == Registration::Closed {
        return Err(ApiError::forbidden("Registration is closed on this server"));
    }
    let valid = call.ctx.engine.read(&RegistrationTokenIsValid(&token))?;
    Answer::json(&json!({ "valid": valid }))
}
