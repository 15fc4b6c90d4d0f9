//! Passwords and identifiers as clients send them to prove who they are: for logging in and for interactive auth.
//!
//! Invariant: whether an account exists cannot be told from the answer or from the time it takes.

use ruma_common::UserId;
use serde::Deserialize;
use warren_engine::account::Account;
use warren_engine::command::{ChangePassword, WhichDevices};
use warren_engine::view::AccountOf;
use warren_engine::{Denied, Error};

use super::{ApiError, Call};
use crate::context::Context;

/// A user as a client names one (section "Identifier types"), with the field of clients of old beside it.
#[derive(Debug, Default, Deserialize)]
pub struct NamedUser {
    identifier: Option<Identifier>,
    /// A localpart or user id. Deprecated since r0.4.0.
    user: Option<String>,
    /// Of an email address or phone number. Deprecated since r0.4.0.
    medium: Option<String>,
    /// An email address or phone number. Deprecated since r0.4.0.
    address: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: Option<String>,
    user: Option<String>,
    /// The specification's own example of an email address or phone number has this and no type.
    medium: Option<String>,
}

impl NamedUser {
    /// Whether nobody is named at all.
    pub fn is_absent(&self) -> bool {
        self.identifier.is_none() && self.user.is_none() && !self.is_third_party()
    }

    fn is_third_party(&self) -> bool {
        self.medium.is_some() || self.address.is_some()
    }

    /// The localpart or user id. Errors: 400 if none is named, or by something that this server does not know.
    pub fn name(&self) -> Result<&str, ApiError> {
        let Some(identifier) = &self.identifier else {
            return match &self.user {
                Some(user) => Ok(user),
                None if self.is_third_party() => Err(no_third_parties()),
                None => Err(ApiError::missing_param("identifier is missing")),
            };
        };
        let Some(kind) = identifier.kind.as_deref() else {
            return match &identifier.medium {
                Some(_) => Err(no_third_parties()),
                None => Err(ApiError::missing_param("identifier.type is missing")),
            };
        };
        match (kind, &identifier.user) {
            ("m.id.user", Some(user)) => Ok(user),
            ("m.id.user", None) => Err(ApiError::missing_param("identifier.user is missing")),
            ("m.id.thirdparty" | "m.id.phone", _) => Err(no_third_parties()),
            (kind, _) => Err(ApiError::unknown(format!("Identifiers of the type {kind} are not known here"))),
        }
    }
}

/// Specification: "In the case that the homeserver does not know about the supplied 3PID, the homeserver must respond with
/// 403 Forbidden."
fn no_third_parties() -> ApiError {
    ApiError::forbidden("Accounts here have no email addresses or phone numbers")
}

/// Somebody whose password was right.
pub struct Proven {
    pub user_id: String,
    /// The stored hash that the password fits.
    pub password_hash: String,
    pub is_locked: bool,
}

/// Checks a password. `name` is a localpart or user id; capitals in it are forgiven if no account has them.
///
/// Errors: 429 after too many tries for one account, from wherever they come.
pub async fn prove(call: &Call, name: &str, password: &str) -> Result<Option<Proven>, ApiError> {
    let ctx = &call.ctx;
    let (user_id, mut account) = account(call, name)?;
    ctx.rate_limits.take_for_account(&user_id)?;
    loop {
        let is_locked = account.as_ref().is_some_and(|account| account.is_locked);
        let stored = account.and_then(|account| account.password_hash);
        let fits = ctx.passwords.verify(password.to_owned(), stored.clone()).await;
        let fits = fits.map_err(ApiError::internal)?;
        let Some(stored) = stored.filter(|_| fits) else { return Ok(None) };
        if let Some(password_hash) = renewed(ctx, &user_id, password, stored).await? {
            return Ok(Some(Proven { user_id, password_hash, is_locked }));
        }
        // What is stored now was made today: it is not renewed again.
        account = ctx.engine.read(&AccountOf(&user_id))?;
    }
}

/// The hash that is stored for a password that fits `stored`: another one, if that was made with another cost than today's.
/// `None` if somebody else has replaced it meanwhile.
async fn renewed(
    ctx: &Context,
    user_id: &str,
    password: &str,
    stored: String,
) -> Result<Option<String>, ApiError> {
    if !ctx.passwords.is_outdated(&stored) {
        return Ok(Some(stored));
    }
    let password_hash = ctx.passwords.hash(password.to_owned()).await.map_err(ApiError::internal)?;
    let change = ChangePassword {
        user_id: user_id.to_owned(),
        proven_hash: Some(stored),
        password_hash: password_hash.clone(),
        // The password is the same, and nobody has to say it again.
        log_out: WhichDevices::These(Vec::new()),
    };
    match ctx.engine.write(change).await {
        Ok(()) => Ok(Some(password_hash)),
        Err(Error::Denied(Denied::CredentialsChanged)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The user id that is meant, and the account, if there is one.
fn account(call: &Call, name: &str) -> Result<(String, Option<Account>), ApiError> {
    let engine = &call.ctx.engine;
    let exact = user_id(call, name);
    if let Some(account) = engine.read(&AccountOf(&exact))? {
        return Ok((exact, Some(account)));
    }
    let lower = exact.to_ascii_lowercase();
    let account = engine.read(&AccountOf(&lower))?;
    Ok((lower, account))
}

fn user_id(call: &Call, name: &str) -> String {
    match UserId::parse(name) {
        Ok(user_id) => user_id.as_str().to_owned(),
        Err(_) => format!("@{name}:{}", call.ctx.config.server_name),
    }
}
