//! Who is asking: the session that an access token stands for, and whether the endpoint admits it.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use warren_engine::account::Sighting;
use warren_engine::command::NoteSeen;

pub use warren_engine::account::Session;

use super::limits::SEEN_INTERVAL;
use super::route::Auth;
use super::{ApiError, Call};

/// The session of a request, checked against the endpoint's row.
///
/// Errors: 401 without a good token where one is needed, 403 where the session is of the wrong kind.
pub async fn authenticate(call: &Call) -> Result<Option<Arc<Session>>, ApiError> {
    let auth = call.endpoint.auth;
    if matches!(auth, Auth::None | Auth::Server) {
        return Ok(None);
    }
    let Some(token) = token(call)? else {
        return match auth {
            Auth::Optional => Ok(None),
            _ => Err(ApiError::missing_token("This request needs an access token")),
        };
    };
    let session = call.ctx.session(&token).await?;
    admits(auth, &session)?;
    note_seen(call, &session);
    Ok(Some(session))
}

/// Notes now and then when and from where the device was seen. Nobody waits for the note.
fn note_seen(call: &Call, session: &Session) {
    let Some(device_id) = &session.device_id else { return };
    let now_ms = call.ctx.engine.now_ms();
    if session.seen.is_due(now_ms, SEEN_INTERVAL.as_millis() as u64) {
        let sighting = Sighting { ts: now_ms, ip: call.client.map(|address| address.to_string()) };
        let (user_id, device_id) = (session.user_id.to_string(), device_id.to_string());
        drop(call.ctx.engine.write(NoteSeen { user_id, device_id, sighting }));
    }
}

fn admits(auth: Auth, session: &Session) -> Result<(), ApiError> {
    if session.is_locked && auth != Auth::Locked {
        return Err(ApiError::user_locked());
    }
    if session.is_guest && matches!(auth, Auth::Required | Auth::Admin) {
        return Err(ApiError::guest_access_forbidden("Guests cannot do this"));
    }
    if auth == Auth::Admin && !session.is_admin {
        return Err(ApiError::forbidden("Only administrators of this server can do this"));
    }
    Ok(())
}

/// The access token of a request: the `Authorization` header or, as clients of old do it, the query (section "Using
/// access tokens"). An empty one counts as given: it is unknown, not absent.
fn token(call: &Call) -> Result<Option<String>, ApiError> {
    if let Some(value) = call.headers().get(AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let scheme = text.get(..7).unwrap_or_default();
        return match scheme.eq_ignore_ascii_case("bearer ") {
            true => Ok(Some(text.get(7..).unwrap_or_default().trim().to_owned())),
            false => {
                Err(ApiError::missing_token("The Authorization header must be `Bearer` and an access token"))
            }
        };
    }
    Ok(call.query("access_token")?.map(std::borrow::Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_admitted_where() {
        let plain = Session {
            user: Default::default(),
            user_id: "@a:b".try_into().expect("a user id"),
            device_id: None,
            is_guest: false,
            is_admin: false,
            is_locked: false,
            is_suspended: false,
            expires_ms: None,
            ends_older: false,
            seen: Default::default(),
        };
        let guest = Session { is_guest: true, ..plain.clone() };
        let admin = Session { is_admin: true, ..plain.clone() };
        let locked = Session { is_locked: true, ..plain.clone() };
        let refusal = |auth, session| admits(auth, session).err().map(|error| error.errcode);
        assert_eq!(refusal(Auth::Required, &plain), None);
        assert_eq!(refusal(Auth::Admin, &plain), Some("M_FORBIDDEN"));
        assert_eq!(refusal(Auth::Admin, &admin), None);
        assert_eq!(refusal(Auth::Required, &guest), Some("M_GUEST_ACCESS_FORBIDDEN"));
        assert_eq!(refusal(Auth::Guest, &guest), None);
        assert_eq!(refusal(Auth::Optional, &locked), Some("M_USER_LOCKED"));
        assert_eq!(refusal(Auth::Locked, &locked), None);
    }
}
