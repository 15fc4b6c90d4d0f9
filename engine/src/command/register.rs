//! An account is made: by its user, by a tool that knows the shared secret, or by an administrator.

use crate::{
    account::{NewSession, Tokens, profile, registration_tokens, sessions, users},
    command::{Command, Lanes},
    error::{Conflict, Result},
    store::{Tx, schema::Account},
};

/// Makes an account, and logs it in if asked to.
///
/// Errors: [`Conflict::UserInUse`], also if the account is deactivated; [`Invalid::UserName`](crate::Invalid::UserName);
/// [`Denied::RegistrationToken`](crate::Denied::RegistrationToken).
#[derive(Default)]
pub struct Register {
    /// The name before the colon.
    pub localpart: String,
    /// The password's hash in the PHC format; `None` if no password opens the account.
    pub password_hash: Option<String>,
    /// Made without any proof, for looking around.
    pub is_guest: bool,
    /// May administer the server.
    pub is_admin: bool,
    /// The display name to begin with.
    pub display_name: Option<String>,
    /// A registration token, which is used up by one.
    pub registration_token: Option<String>,
    /// The device to log in.
    pub session: Option<NewSession>,
}

/// A new account.
#[non_exhaustive]
pub struct Registered {
    /// The user's id.
    pub user_id: String,
    /// The device's tokens, if one was logged in.
    pub tokens: Option<Tokens>,
    /// Whether the account may administer the server.
    pub is_admin: bool,
}

impl Command for Register {
    type Output = Registered;

    fn lanes(&self) -> Lanes {
        // All registrations in one lane: it is held for microseconds, and it keeps user names unique.
        Lanes::default().name(registration_tokens::LANE)
    }

    fn run(&self, tx: &mut Tx) -> Result<Registered> {
        let user_id = format!("@{}:{}", self.localpart, tx.shared.server_name);
        users::check_name(&self.localpart, &user_id)?;
        if users::find(tx, &user_id)?.is_some() {
            return Err(Conflict::UserInUse.into());
        }
        let is_first = match &self.registration_token {
            Some(token) => registration_tokens::spend(tx, token)?,
            None => false,
        };
        if !self.is_guest {
            registration_tokens::end_first(tx)?;
        }
        let is_admin = self.is_admin || is_first;
        let user = tx.intern_user(&user_id)?;
        let account = Account {
            password_hash: self.password_hash.clone(),
            created_ms: tx.shared.clock.now_ms(),
            is_guest: self.is_guest,
            is_admin,
            ..Account::default()
        };
        users::put(tx, user, &account);
        if let Some(name) = &self.display_name {
            profile::set_text(tx, user, profile::DISPLAY_NAME, name);
        }
        // Nobody is to be told of the device: its user is in no room yet.
        let opened = self.session.as_ref().map(|session| sessions::open(tx, user, session)).transpose()?;
        let tokens = opened.map(|(tokens, _)| tokens);
        Ok(Registered { user_id, tokens, is_admin })
    }
}

/// Makes the registration token of the first start, unless somebody has an account.
pub struct MakeFirstToken;

impl Command for MakeFirstToken {
    /// The token, if there is one.
    type Output = Option<String>;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(registration_tokens::LANE)
    }

    fn run(&self, tx: &mut Tx) -> Result<Option<String>> {
        first_token(tx)
    }
}

/// The token of the first start, made if there is none; `None` if somebody has an account.
fn first_token(tx: &mut Tx) -> Result<Option<String>> {
    if let Some(token) = registration_tokens::first(tx)? {
        return Ok(Some(token));
    }
    if users::any(tx)? {
        return Ok(None);
    }
    Ok(Some(registration_tokens::make(tx, true)))
}

/// Makes a registration token for one account. As long as nobody has one, that is the token of the first start: a server
/// whose first user came with another would have no administrator.
pub struct MakeRegistrationToken;

/// A registration token.
#[non_exhaustive]
pub struct NewRegistrationToken {
    /// The token.
    pub token: String,
    /// Whether it is that of the first start: who registers with it administers the server.
    pub is_first: bool,
}

impl Command for MakeRegistrationToken {
    type Output = NewRegistrationToken;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(registration_tokens::LANE)
    }

    fn run(&self, tx: &mut Tx) -> Result<NewRegistrationToken> {
        let first = first_token(tx)?;
        let is_first = first.is_some();
        let token = first.unwrap_or_else(|| registration_tokens::make(tx, false));
        Ok(NewRegistrationToken { token, is_first })
    }
}
