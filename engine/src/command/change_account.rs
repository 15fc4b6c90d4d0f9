//! What happens to an account after it is made: a new password, a lock, its end.

use crate::{
    account::{Account, account_data, erasures, filters, presence, profile, sessions, users},
    command::{
        Command, Lanes,
        log_in::{WhichDevices, remove_devices},
    },
    core::num::UserNum,
    device::key_backup,
    error::{Error, Result, What},
    store::{Tx, schema},
};

/// Gives an account a new password.
///
/// Errors: [`What::User`] not found, [`Denied::Deactivated`](crate::Denied::Deactivated),
/// [`Denied::CredentialsChanged`](crate::Denied::CredentialsChanged).
pub struct ChangePassword {
    /// The user's id.
    pub user_id: String,
    /// The password hash that the old password was found to fit, if one was asked for: it must still be the account's.
    pub proven_hash: Option<String>,
    /// The new password's hash in the PHC format.
    pub password_hash: String,
    /// The devices that have to log in again.
    pub log_out: WhichDevices,
}

impl Command for ChangePassword {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, mut account) = users::active(tx, &self.user_id)?;
        sessions::still_proven(account.password_hash.as_deref(), self.proven_hash.as_deref())?;
        account.password_hash = Some(self.password_hash.clone());
        users::put(tx, user, &account);
        remove_devices(tx, user, &self.log_out)
    }
}

/// Closes an account for ever: no token or password opens it any more. Its rooms are left one by one afterwards, until
/// [`EndDeactivation`].
///
/// Errors: [`What::User`] not found.
pub struct Deactivate {
    /// The user's id.
    pub user_id: String,
    /// Whether also the profile goes, with account data and tags, filters, key backups and the status message, and what the
    /// user sent is shown no more than redacted to those who could not see it until then.
    pub erase: bool,
}

impl Command for Deactivate {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, account) = users::find(tx, &self.user_id)?.ok_or(Error::NotFound(What::User))?;
        let account = Account {
            password_hash: None,
            is_deactivated: true,
            is_erased: account.is_erased || self.erase,
            is_admin: false,
            ..account
        };
        users::put(tx, user, &account);
        tx.put(&schema::DEACTIVATIONS, &user, &());
        if self.erase {
            erase(tx, user)?;
        }
        remove_devices(tx, user, &WhichDevices::All)
    }
}

/// The rooms of a closed account are left: it is not among [`crate::view::Deactivations`] any more.
///
/// Errors: [`What::User`] not found.
pub struct EndDeactivation {
    /// The user's id.
    pub user_id: String,
}

impl Command for EndDeactivation {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, _) = users::find(tx, &self.user_id)?.ok_or(Error::NotFound(What::User))?;
        tx.delete(&schema::DEACTIVATIONS, &user);
        Ok(())
    }
}

/// Removes what a user has beside the events that they sent, and notes that these are to be forgotten.
fn erase(tx: &mut Tx, user: UserNum) -> Result<()> {
    profile::clear(tx, user)?;
    account_data::clear(tx, user)?;
    filters::clear(tx, user);
    presence::clear(tx, user);
    key_backup::clear(tx, user);
    Ok(erasures::add(tx, user)?)
}

/// What an administrator changes of an account; `None` leaves it.
///
/// Errors: [`What::User`] not found.
#[derive(Default)]
pub struct SetAccount {
    /// The user's id.
    pub user_id: String,
    /// Nothing but logging out is possible.
    pub is_locked: Option<bool>,
    /// Hardly any writing is possible.
    pub is_suspended: Option<bool>,
    /// May administer the server.
    pub is_admin: Option<bool>,
}

impl Command for SetAccount {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, mut account) = users::find(tx, &self.user_id)?.ok_or(Error::NotFound(What::User))?;
        account.is_locked = self.is_locked.unwrap_or(account.is_locked);
        account.is_suspended = self.is_suspended.unwrap_or(account.is_suspended);
        account.is_admin = self.is_admin.unwrap_or(account.is_admin);
        users::put(tx, user, &account);
        Ok(())
    }
}
