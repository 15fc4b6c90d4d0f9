//! `version.yaml`: what this server is.

use serde_json::json;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/federation/v1/version" [] None Read Nothing get_version;
}

async fn get_version(_call: Call) -> Outcome {
    Answer::json(&json!({ "server": { "name": "Warren", "version": env!("CARGO_PKG_VERSION") } }))
}
