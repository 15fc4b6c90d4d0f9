//! `whoami.yaml`: whose the access token is.

use serde::Serialize;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/account/whoami" ["r0"] Guest Read Nothing get_whoami;
}

#[derive(Serialize)]
struct Whoami<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    is_guest: bool,
}

async fn get_whoami(call: Call) -> Outcome {
    let session = call.session()?;
    Answer::json(&Whoami {
        user_id: session.user_id.as_str(),
        device_id: session.device_id.as_deref().map(|device_id| device_id.as_str()),
        is_guest: session.is_guest,
    })
}
