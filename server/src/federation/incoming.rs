//! Whether a request really comes from the server that it says (server-server API, "Request Authentication").
//!
//! The signature is over the body too, but a body is only read for who may send one: the header is looked at first, and
//! its key found.

use http::header::AUTHORIZATION;
use ruma_common::{OwnedServerName, ServerName};
use warren_engine::core::checked::MissingKey;
use warren_engine::core::event::SignedRequest;
use warren_engine::core::identifiers::is_server_name;
use warren_engine::core::json::canonical_text;
use warren_engine::remote::KeyStanding;
use warren_engine::view::StandingOfKey;

use super::out::keys::{Cause, ensure_keys};
use super::x_matrix::{Header, XMatrix, parse as parse_header};
use crate::http::limits::{AUTHORIZATIONS_MAX, BLOCKING_BODY_BYTES, TRANSACTION_BODY_BYTES_MAX};
use crate::http::route::Rate;
use crate::http::{ApiError, Call};

/// What all key ids start with that there are.
const ALGORITHM: &str = "ed25519:";

/// A request that says by whom it is signed, with the keys to tell whether that is true.
pub struct Claim {
    origin: OwnedServerName,
    /// Public key and signature, one of which must hold.
    signatures: Vec<(Vec<u8>, String)>,
}

/// Reads the headers and finds the keys.
///
/// Errors: 401 if the request is not signed as it must be; 403 for a server that this one does not deal with; 429 for an
/// address that has sent too many whose signatures did not hold.
pub async fn claim(call: &Call) -> Result<Claim, ApiError> {
    let headers = headers(call)?;
    let origin = one_origin(call, &headers)?;
    if !call.ctx.config.federation_access.admits(origin.as_str()) {
        return Err(ApiError::forbidden("This server does not deal with yours").because("denied"));
    }
    let mut signatures = known_keys(call, &origin, &headers)?;
    if let KeysFound::Lacking(missing) = &signatures
        && !missing.is_empty()
    {
        call.ctx.rate_limits.take(Rate::Keys, None, call.client)?;
        ensure_keys(&call.ctx, &Cause::Request(call.client), missing).await;
        signatures = known_keys(call, &origin, &headers)?;
    }
    let KeysFound::Good(signatures) = signatures else {
        return Err(unauthorized(
            "no_good_key",
            "This request is signed with no key that is known, valid and trusted",
        ));
    };
    call.ctx.rate_limits.take(Rate::Unproven, None, call.client)?;
    Ok(Claim { origin, signatures })
}

impl Claim {
    /// The server that signed the request, now that its body is there.
    ///
    /// Errors: 401 if no signature holds; 400 for a body that is not JSON.
    pub async fn verify(self, call: &Call) -> Result<OwnedServerName, ApiError> {
        let verify = || {
            let content = content(call.body())?;
            let request = SignedRequest {
                method: call.method().as_str(),
                uri: call.raw_target(),
                origin: self.origin.as_str(),
                destination: call.ctx.config.server_name.as_str(),
                content: content.as_deref(),
            };
            let holds = |(key, signature): &(Vec<u8>, String)| request.verify(key, signature).is_ok();
            match self.signatures.iter().any(holds) {
                true => Ok(()),
                false => Err(unauthorized("wrong_signature", "The signature of this request is wrong")),
            }
        };
        let verified = match call.body().len() < BLOCKING_BODY_BYTES {
            true => verify(),
            false => {
                let _turn = call.ctx.federation.large_bodies.turn().await;
                tokio::task::block_in_place(verify)
            }
        };
        verified?;
        call.ctx.rate_limits.give_back(Rate::Unproven, call.client);
        Ok(self.origin)
    }
}

/// The headers that are for this place.
fn headers(call: &Call) -> Result<Vec<XMatrix>, ApiError> {
    let mut found = Vec::new();
    for value in call.headers().get_all(AUTHORIZATION) {
        match value.to_str().map_or(Header::Malformed, parse_header) {
            Header::XMatrix(header) => found.push(header),
            Header::OtherScheme => {}
            Header::Malformed => {
                return Err(unauthorized("malformed", "The Authorization header is malformed"));
            }
        }
    }
    match found.len() {
        0 => Err(unauthorized("unsigned", "This request must be signed by a server")),
        1..=AUTHORIZATIONS_MAX => Ok(found),
        _ => Err(unauthorized("malformed", "There are too many Authorization headers")),
    }
}

/// The one server that all headers name, which must mean this one.
fn one_origin(call: &Call, headers: &[XMatrix]) -> Result<OwnedServerName, ApiError> {
    let own = call.ctx.config.server_name.as_str();
    let mut origin: Option<&str> = None;
    for header in headers {
        if header.destination.as_deref().is_some_and(|destination| destination != own) {
            return Err(unauthorized("wrong_destination", "This request is for another server"));
        }
        if origin.is_some_and(|origin| origin != header.origin) {
            return Err(unauthorized("malformed", "The Authorization headers name several servers"));
        }
        origin = Some(&header.origin);
    }
    let origin = origin.filter(|origin| is_server_name(origin) && *origin != own);
    origin
        .and_then(|origin| ServerName::parse(origin).ok())
        .ok_or_else(|| unauthorized("malformed", "The Authorization header names no other server"))
}

/// What is there of the keys that a request is signed with.
enum KeysFound {
    /// Public keys and signatures, at least one.
    Good(Vec<(Vec<u8>, String)>),
    /// None that is good now; these may be, if they were fetched.
    Lacking(Vec<MissingKey>),
}

/// The keys that are good for a request now: not one that is out of use, and none that is not trusted.
fn known_keys(call: &Call, origin: &ServerName, headers: &[XMatrix]) -> Result<KeysFound, ApiError> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let now_ms = call.ctx.engine.now_ms();
    for header in headers {
        let view = StandingOfKey { server_name: origin.as_str(), key_id: &header.key_id };
        match call.ctx.engine.read(&view)? {
            KeyStanding::Known(key) if key.is_good_for_requests(now_ms) => {
                found.push((key.public_key, header.signature.clone()));
            }
            KeyStanding::Known(key) if key.is_old => {}
            KeyStanding::Known(_) | KeyStanding::Unknown if !header.key_id.starts_with(ALGORITHM) => {}
            KeyStanding::Known(_) | KeyStanding::Unknown => {
                let (server_name, key_id) = (origin.to_string(), header.key_id.clone());
                missing.push(MissingKey { server_name, key_id });
            }
            KeyStanding::NeverTrusted => {}
        }
    }
    Ok(if found.is_empty() { KeysFound::Lacking(missing) } else { KeysFound::Good(found) })
}

/// The body as it is signed. One user may have put into it what has no place here, as deep nesting or a huge number: that is
/// left to whoever takes the part with it, as the signature is over the whole.
fn content(body: &[u8]) -> Result<Option<Vec<u8>>, ApiError> {
    if body.is_empty() {
        return Ok(None);
    }
    let text = canonical_text(body, TRANSACTION_BODY_BYTES_MAX);
    text.map(Some).map_err(|error| ApiError::not_json(format!("The body: {error}")))
}

fn unauthorized(reason: &'static str, sentence: &'static str) -> ApiError {
    ApiError::unauthorized(sentence).because(reason)
}
