//! Reads about accounts: sessions by token, accounts by name, devices.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    account::{
        Account, Session, devices, devices::Device, passing_tokens, passing_tokens::TokenPurpose,
        registration_tokens, sessions, users,
    },
    core::num::UserNum,
    error::{Conflict, Error, Result, What},
    store::{Direction, Reader, schema},
    view::View,
};

/// The session that an access token stands for, also one that has expired; from memory if it was used lately.
pub struct SessionOfToken<'a>(
    /// The access token.
    pub &'a str,
);

impl View for SessionOfToken<'_> {
    type Output = Option<Arc<Session>>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        sessions::find(reader, &sessions::token_hash(self.0))
    }
}

/// The id of the user whose refresh token this is.
pub struct OwnerOfRefreshToken<'a>(
    /// The refresh token.
    pub &'a str,
);

impl View for OwnerOfRefreshToken<'_> {
    type Output = Option<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let owner = sessions::refresh_token_owner(reader, self.0)?;
        Ok(owner.map(|user| reader.user_id(user)).transpose()?.map(|user_id| user_id.to_string()))
    }
}

/// The id of the user of a short-lived token that is still good; `None` also if the account has been closed.
pub struct OwnerOfPassingToken<'a> {
    /// What the token has to be for.
    pub purpose: TokenPurpose,
    /// The token.
    pub token: &'a str,
}

impl View for OwnerOfPassingToken<'_> {
    type Output = Option<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let now_ms = reader.shared.clock.now_ms();
        let Some(user) = passing_tokens::owner(reader, self.purpose, self.token, now_ms)? else {
            return Ok(None);
        };
        let closed = users::account(reader, user)?.is_none_or(|account| account.is_deactivated);
        Ok(if closed { None } else { Some(reader.user_id(user)?.to_string()) })
    }
}

/// The account of a user of this server.
pub struct AccountOf<'a>(
    /// The user's id.
    pub &'a str,
);

impl View for AccountOf<'_> {
    type Output = Option<Account>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        Ok(users::find(reader, self.0)?.map(|(_, account)| account))
    }
}

/// All accounts with their users' ids. O(accounts).
pub struct Accounts;

impl View for Accounts {
    type Output = Vec<(String, Account)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let with_id = |(user, account): (UserNum, Account)| Ok((reader.user_id(user)?.to_string(), account));
        users::all(reader)?.into_iter().map(with_id).collect()
    }
}

/// What the stored passwords are hashed with: of each hash what stands before its salt. O(accounts).
pub struct HashParameters;

impl View for HashParameters {
    type Output = BTreeSet<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        Ok(users::hash_parameters(reader)?)
    }
}

/// The ids of users whose accounts are closed, and whose rooms are still to be left. O(result).
pub struct Deactivations;

impl View for Deactivations {
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let mut marked = Vec::new();
        reader.scan(&schema::DEACTIVATIONS, &(), Direction::Forward, |user: UserNum, ()| {
            marked.push(user);
            true
        })?;
        let mut user_ids = Vec::new();
        for user in marked {
            // Nobody is taken out of their rooms by a mark alone.
            if users::account(reader, user)?.is_some_and(|account| account.is_deactivated) {
                user_ids.push(reader.user_id(user)?.to_string());
            }
        }
        Ok(user_ids)
    }
}

/// Whether a new user may have a name.
///
/// Errors: [`Conflict::UserInUse`], [`Invalid::UserName`](crate::Invalid::UserName).
pub struct NameIsFree<'a>(
    /// The name before the colon.
    pub &'a str,
);

impl View for NameIsFree<'_> {
    type Output = ();

    fn read(&self, reader: &Reader) -> Result<()> {
        let user_id = format!("@{}:{}", self.0, reader.shared.server_name);
        users::check_name(self.0, &user_id)?;
        match users::find(reader, &user_id)? {
            Some(_) => Err(Conflict::UserInUse.into()),
            None => Ok(()),
        }
    }
}

/// Whether somebody could register with a token.
pub struct RegistrationTokenIsValid<'a>(
    /// The token.
    pub &'a str,
);

impl View for RegistrationTokenIsValid<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        Ok(registration_tokens::is_valid(reader, self.0, reader.shared.clock.now_ms())?)
    }
}

/// The registration token of the first start, while it is good.
pub struct FirstToken;

impl View for FirstToken {
    type Output = Option<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        Ok(registration_tokens::first(reader)?)
    }
}

/// A user's devices by id.
pub struct Devices(
    /// The user.
    pub UserNum,
);

impl View for Devices {
    type Output = Vec<Device>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        Ok(devices::devices(reader, self.0)?)
    }
}

/// The devices of a user of this server by id. Errors: [`What::User`] not found.
pub struct DevicesOfUser<'a>(
    /// The user's id.
    pub &'a str,
);

impl View for DevicesOfUser<'_> {
    type Output = Vec<Device>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let (user, _) = users::find(reader, self.0)?.ok_or(Error::NotFound(What::User))?;
        Ok(devices::devices(reader, user)?)
    }
}

/// One device. Errors: [`What::Device`] not found.
pub struct DeviceOf<'a>(
    /// The user.
    pub UserNum,
    /// The device's id.
    pub &'a str,
);

impl View for DeviceOf<'_> {
    type Output = Device;

    fn read(&self, reader: &Reader) -> Result<Device> {
        devices::device(reader, self.0, self.1)?.ok_or(Error::NotFound(What::Device))
    }
}
