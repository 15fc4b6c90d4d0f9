//! `/.well-known/matrix`: how clients, other servers and people find this server (sections "Server Discovery",
//! "Resolving server names"; `wellknown.yaml`, `support.yaml`, `policy_server.yaml`).

use serde_json::json;
use warren_engine::core::event::encode_base64;

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET "/.well-known/matrix/client"        [] None None Nothing get_client;
    GET "/.well-known/matrix/server"        [] None None Nothing get_server;
    GET "/.well-known/matrix/support"       [] None None Nothing get_support;
    GET "/.well-known/matrix/policy_server" [] None None Nothing get_policy_server;
}

/// Discovery documents change rarely, and clients ask at every login.
const CACHE: &str = "public, max-age=3600";

async fn get_client(call: Call) -> Outcome {
    let body = json!({ "m.homeserver": { "base_url": call.ctx.config.well_known_client } });
    Ok(Answer::json(&body)?.with_cache_control(CACHE))
}

async fn get_server(call: Call) -> Outcome {
    let name = call.ctx.config.well_known_server.as_ref();
    let name = name.ok_or_else(|| ApiError::not_found("This server is reached under its own name"))?;
    Ok(Answer::json(&json!({ "m.server": name }))?.with_cache_control(CACHE))
}

async fn get_support(call: Call) -> Outcome {
    let config = &call.ctx.config;
    let mut body = serde_json::Map::new();
    if let Some(email) = &config.support_email {
        body.insert("contacts".to_owned(), json!([{ "role": "m.role.admin", "email_address": email }]));
    }
    if let Some(page) = &config.support_page {
        body.insert("support_page".to_owned(), json!(page));
    }
    if body.is_empty() {
        return Err(ApiError::not_found("This server names no contact"));
    }
    Ok(Answer::json(&body)?.with_cache_control(CACHE))
}

/// What a room has to name for this server to be its policy server.
async fn get_policy_server(call: Call) -> Outcome {
    let key = call.ctx.engine.policy_key();
    let key = key.ok_or_else(|| ApiError::not_found("This server is no policy server"))?;
    let body = json!({ "public_keys": { "ed25519": encode_base64(key.public_key()) } });
    Ok(Answer::json(&body)?.with_cache_control(CACHE))
}
