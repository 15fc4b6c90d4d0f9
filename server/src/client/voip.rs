//! `voip.yaml`: TURN servers for calls.

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/voip/turnServer" ["r0"] Guest Read Nothing get_turn_server;
}

/// `{}` says that there is none, which clients understand: they then call each other directly or use their own.
async fn get_turn_server(_call: Call) -> Outcome {
    Ok(Answer::empty())
}
