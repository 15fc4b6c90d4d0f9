//! Who is asking: the session that an access token stands for, and whether the endpoint admits it.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use ruma_common::{OwnedDeviceId, OwnedUserId};

use super::route::Auth;
use super::{ApiError, Call};

/// A logged-in device, or an application service acting as a user.
#[derive(Debug, Clone)]
pub struct Session {
    pub user_id: OwnedUserId,
    /// `None` for an application service that has not named a device.
    pub device_id: Option<OwnedDeviceId>,
    /// Guests may use the endpoints whose row says `Guest`.
    pub is_guest: bool,
    /// May use the server administration API.
    pub is_admin: bool,
    /// The account is locked: only logging out is possible.
    pub is_locked: bool,
    /// The account is suspended: handlers refuse what the section "Account suspension" lists.
    pub is_suspended: bool,
}

/// The session of a request, checked against the endpoint's row.
///
/// Errors: 401 without a good token where one is needed, 403 where the session is of the wrong kind.
pub async fn authenticate(call: &Call) -> Result<Option<Arc<Session>>, ApiError> {
    let auth = call.endpoint.auth;
    if auth == Auth::None {
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
    Ok(Some(session))
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
            user_id: OwnedUserId::try_from("@a:b").expect("a user id"),
            device_id: None,
            is_guest: false,
            is_admin: false,
            is_locked: false,
            is_suspended: false,
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
