//! Accounts by user. What may be done with one is decided by the commands.

use std::collections::BTreeSet;

use crate::{
    core::{identifiers, num::UserNum},
    error::{Denied, Error, Invalid, Result, What},
    store::{Direction, Reader, StorageError, Tx, schema, schema::Account},
    stream::Touch,
};

/// The account of a user; `None` for users of other servers.
pub fn account(reader: &Reader, user: UserNum) -> Result<Option<Account>, StorageError> {
    reader.get(&schema::ACCOUNTS, &user)
}

/// The account with this user id.
pub fn find(reader: &Reader, user_id: &str) -> Result<Option<(UserNum, Account)>, StorageError> {
    let Some(user) = reader.user_num(user_id)? else { return Ok(None) };
    Ok(account(reader, user)?.map(|account| (user, account)))
}

/// The account with this user id, if it has not been deactivated.
///
/// Errors: [`What::User`] not found, [`Denied::Deactivated`].
pub fn active(reader: &Reader, user_id: &str) -> Result<(UserNum, Account)> {
    let (user, account) = find(reader, user_id)?.ok_or(Error::NotFound(What::User))?;
    if account.is_deactivated {
        return Err(Denied::Deactivated.into());
    }
    Ok((user, account))
}

/// Whether a new user may have this name.
pub(crate) fn check_name(localpart: &str, user_id: &str) -> Result<(), Invalid> {
    if !identifiers::is_new_localpart(localpart) {
        return Err(Invalid::UserName("only a-z, 0-9 and . _ = - / + may stand in it"));
    }
    if !identifiers::is_new_user_id(user_id) {
        return Err(Invalid::UserName("with the server's name it is longer than 255 bytes"));
    }
    Ok(())
}

/// All accounts in the order in which they were first heard of. O(accounts).
pub fn all(reader: &Reader) -> Result<Vec<(UserNum, Account)>, StorageError> {
    let mut accounts = Vec::new();
    reader.scan(&schema::ACCOUNTS, &(), Direction::Forward, |user, account| {
        accounts.push((user, account));
        true
    })?;
    Ok(accounts)
}

/// What the stored passwords are hashed with: of each hash what stands before its salt. O(accounts).
pub fn hash_parameters(reader: &Reader) -> Result<BTreeSet<String>, StorageError> {
    let mut found = BTreeSet::new();
    reader.scan(&schema::ACCOUNTS, &(), Direction::Forward, |_: UserNum, account| {
        let hash = account.password_hash.as_deref().unwrap_or_default();
        // The salt and the hash itself come last in the PHC format.
        if let Some(parameters) = hash.rsplitn(3, '$').nth(2)
            && !found.contains(parameters)
        {
            found.insert(parameters.to_owned());
        }
        true
    })?;
    Ok(found)
}

/// Whether there is an account that is not a guest's. O(guests before the first user).
pub fn any(reader: &Reader) -> Result<bool, StorageError> {
    let mut found = false;
    reader.scan(&schema::ACCOUNTS, &(), Direction::Forward, |_: UserNum, account| {
        found = !account.is_guest;
        !found
    })?;
    Ok(found)
}

/// Writes an account; the user's sessions are looked at anew.
pub(crate) fn put(tx: &mut Tx, user: UserNum, account: &Account) {
    tx.put(&schema::ACCOUNTS, &user, account);
    sessions_changed(tx, user);
}

/// Notes that what the session cache holds of the user is out of date.
pub(crate) fn sessions_changed(tx: &mut Tx, user: UserNum) {
    // The position tells the cache which moments are too old to learn sessions from.
    tx.next_position();
    tx.touch(Touch::Sessions(user));
}
