//! A guest becomes a user, and keeps what they have: their id, their rooms, their devices.
//!
//! Specification: client-server API, "Guest Access".

use crate::{
    account::{NewSession, registration_tokens, sessions, users},
    command::{Command, Lanes, Registered, log_in::open_device},
    error::{Denied, Result},
    store::Tx,
};

/// Makes a guest's account one of a user, and logs a device in if asked to. The guest's own sessions go on as the user's.
///
/// Errors: [`Denied::NotThisGuest`] if the token is not of a guest with this id; [`Denied::RegistrationToken`].
pub struct UpgradeGuest {
    /// The guest's id.
    pub user_id: String,
    /// An access token of the guest's.
    pub access_token: String,
    /// The password's hash in the PHC format.
    pub password_hash: String,
    /// A registration token, which is used up by one.
    pub registration_token: Option<String>,
    /// The device to log in.
    pub session: Option<NewSession>,
}

impl Command for UpgradeGuest {
    type Output = Registered;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(registration_tokens::LANE).user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<Registered> {
        let owner = sessions::access_token_owner(tx, &self.access_token)?;
        let guest = users::find(tx, &self.user_id)?
            .filter(|(user, account)| account.is_guest && !account.is_deactivated && owner == Some(*user));
        let (user, mut account) = guest.ok_or(Denied::NotThisGuest)?;
        let is_first = match &self.registration_token {
            Some(token) => registration_tokens::spend(tx, token)?,
            None => false,
        };
        registration_tokens::end_first(tx)?;
        account.is_guest = false;
        account.is_admin |= is_first;
        account.password_hash = Some(self.password_hash.clone());
        users::put(tx, user, &account);
        let tokens = self.session.as_ref().map(|session| open_device(tx, user, session)).transpose()?;
        Ok(Registered { user_id: self.user_id.clone(), tokens, is_admin: account.is_admin })
    }
}
