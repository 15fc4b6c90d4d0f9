//! Registration by tools that know a shared secret, as Synapse documents it ("Shared-Secret Registration").

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;
use warren_engine::account::NewSession;
use warren_engine::command::Register;

use crate::client::registration;
use crate::config::Secret;
use crate::http::limits::{NONCE_TIME_MAX, NONCES_MAX};
use crate::http::route::Rate;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    GET  "/_synapse/admin/v1/register" [] None Read Nothing get_nonce;
    POST "/_synapse/admin/v1/register" [] None Read Json    post_register;
}

/// Nonces that were given out, each good for one request.
#[derive(Default)]
pub struct Nonces(Mutex<HashMap<String, Instant>>);

impl Nonces {
    fn add(&self, nonce: String) {
        let mut nonces = self.0.lock();
        nonces.retain(|_, made| made.elapsed() <= NONCE_TIME_MAX);
        // Whoever takes many makes those give way that should have been used by now.
        if nonces.len() >= NONCES_MAX
            && let Some(oldest) = nonces.iter().min_by_key(|(_, made)| **made).map(|(nonce, _)| nonce.clone())
        {
            nonces.remove(&oldest);
        }
        nonces.insert(nonce, Instant::now());
    }

    fn take(&self, nonce: &str) -> bool {
        self.0.lock().remove(nonce).is_some_and(|made| made.elapsed() <= NONCE_TIME_MAX)
    }
}

#[derive(Deserialize)]
struct Request {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    displayname: Option<String>,
    mac: String,
}

#[derive(Serialize)]
struct Registered {
    user_id: String,
    home_server: String,
    access_token: String,
    device_id: String,
}

fn secret(call: &Call) -> Result<&Secret, ApiError> {
    let secret = call.ctx.config.registration_shared_secret.as_ref();
    secret.ok_or_else(|| ApiError::unknown("Shared secret registration is not enabled"))
}

async fn get_nonce(call: Call) -> Outcome {
    secret(&call)?;
    let nonce = call.ctx.random_text();
    call.ctx.nonces.add(nonce.clone());
    Answer::json(&json!({ "nonce": nonce }))
}

async fn post_register(call: Call) -> Outcome {
    let secret = secret(&call)?;
    let request: Request = call.json()?;
    if !call.ctx.nonces.take(&request.nonce) {
        return Err(ApiError::unknown("This nonce is not known; it may have been used or be too old"));
    }
    prove(&call, secret, &request)?;
    let localpart = request.username.to_ascii_lowercase();
    call.ctx.engine.read(&warren_engine::view::NameIsFree(&localpart))?;
    let password_hash = registration::hash_password(&call, request.password).await?;
    let register = Register {
        localpart,
        password_hash: Some(password_hash),
        is_admin: request.admin,
        display_name: request.displayname,
        session: Some(NewSession::default()),
        ..Register::default()
    };
    let registered = call.ctx.engine.write(register).await?;
    let tokens = registered.tokens.ok_or_else(|| ApiError::internal("a registration made no session"))?;
    Answer::json(&Registered {
        user_id: registered.user_id,
        home_server: call.ctx.config.server_name.to_string(),
        access_token: tokens.access_token,
        device_id: tokens.device_id,
    })
}

/// Checks that who asks knows the secret. Who does may make any number of accounts, and who guesses is slowed down.
///
/// Errors: 403 for a wrong mac, and 429 after some of these, whatever the mac: else the answer would tell.
fn prove(call: &Call, secret: &Secret, request: &Request) -> Result<(), ApiError> {
    call.ctx.rate_limits.take(Rate::Register, None, call.client)?;
    if !is_signed(secret, request) {
        return Err(ApiError::forbidden("The mac is wrong"));
    }
    call.ctx.rate_limits.give_back(Rate::Register, call.client);
    Ok(())
}

/// HMAC-SHA1, in hexadecimal, of the parts with NULs between them.
fn is_signed(secret: &Secret, request: &Request) -> bool {
    // Exposed to the one computation that it is for.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    let admin = if request.admin { "admin" } else { "notadmin" };
    let mut parts = vec![request.nonce.as_str(), &request.username, &request.password, admin];
    parts.extend(request.user_type.as_deref());
    let mac = hex(&request.mac);
    mac.is_some_and(|mac| hmac::verify(&key, parts.join("\0").as_bytes(), &mac).is_ok())
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_covers_every_part() {
        // printf 'thisisanonce\0pepper_roni\0pizza\0admin' | openssl dgst -sha1 -hmac shared_secret
        let request = |admin| Request {
            nonce: "thisisanonce".into(),
            username: "pepper_roni".into(),
            password: "pizza".into(),
            admin,
            user_type: None,
            displayname: None,
            mac: "48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7".into(),
        };
        let secret = Secret::new("shared_secret".into());
        assert!(is_signed(&secret, &request(true)));
        assert!(!is_signed(&secret, &request(false)));
        assert!(!is_signed(&Secret::new("other".into()), &request(true)));
    }

    #[test]
    fn a_nonce_is_good_once() {
        let nonces = Nonces::default();
        nonces.add("a".to_owned());
        assert!(nonces.take("a"));
        assert!(!nonces.take("a"));
        assert!(!nonces.take("b"));
    }
}
