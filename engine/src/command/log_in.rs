//! Devices come and go: log in, refresh, log out.

use crate::{
    account::{NewSession, Sighting, Tokens, devices, sessions, users},
    command::{Command, Lanes, forget_device::forget_device},
    core::num::UserNum,
    device,
    device::cross_signing,
    error::{Denied, Error, Result, What},
    store::Tx,
};

/// Logs a device in.
///
/// Errors: [`What::User`] not found, [`Denied::Deactivated`],
/// [`Denied::CredentialsChanged`], [`Denied::KeyIdInUse`].
pub struct LogIn {
    /// The user's id.
    pub user_id: String,
    /// The password hash that the password was found to fit, if it was one: it must still be the account's.
    pub proven_hash: Option<String>,
    /// The device.
    pub session: NewSession,
}

impl Command for LogIn {
    type Output = Tokens;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<Tokens> {
        let (user, account) = users::active(tx, &self.user_id)?;
        sessions::still_proven(account.password_hash.as_deref(), self.proven_hash.as_deref())?;
        open_device(tx, user, &self.session)
    }
}

/// Logs a device in, and tells other servers of it if it is new. The user's lane must be held.
///
/// Errors: [`Denied::KeyIdInUse`] for a device id that is the user's cross-signing key.
pub(super) fn open_device(tx: &mut Tx, user: UserNum, session: &NewSession) -> Result<Tokens> {
    if let Some(device_id) = &session.device_id
        && cross_signing::has_public_key(tx, user, device_id)?
    {
        return Err(Denied::KeyIdInUse.into());
    }
    let (tokens, is_new) = sessions::open(tx, user, session)?;
    if is_new {
        device::added(tx, user, &tokens.device_id)?;
    }
    Ok(tokens)
}

/// Gives out new tokens for a refresh token.
///
/// Errors: [`What::Token`] not found, [`Denied::Deactivated`].
pub struct RefreshTokens {
    /// Whose token it is.
    pub user_id: String,
    /// The refresh token.
    pub refresh_token: String,
}

impl Command for RefreshTokens {
    type Output = Tokens;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<Tokens> {
        let (user, _) = users::active(tx, &self.user_id)?;
        if sessions::refresh_token_owner(tx, &self.refresh_token)? != Some(user) {
            return Err(Error::NotFound(What::Token));
        }
        sessions::refresh(tx, &self.refresh_token)
    }
}

/// Ends the tokens that a refresh has replaced, because the new access token is used.
pub struct EndOlderTokens {
    /// Whose token it is.
    pub user_id: String,
    /// The access token.
    pub access_token: String,
}

impl Command for EndOlderTokens {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        sessions::end_older(tx, &sessions::token_hash(&self.access_token))
    }
}

/// Which of a user's devices.
#[derive(Clone, Debug)]
pub enum WhichDevices {
    /// All.
    All,
    /// All but one.
    AllBut(String),
    /// Those with these ids; unknown ones are passed over.
    These(Vec<String>),
}

/// Removes devices: logs them out and forgets all that is kept for them.
pub struct RemoveDevices {
    /// The user's id.
    pub user_id: String,
    /// Which devices.
    pub devices: WhichDevices,
}

impl Command for RemoveDevices {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        remove_devices(tx, user, &self.devices)
    }
}

/// Removes devices of a user whose lane is held.
pub(super) fn remove_devices(tx: &mut Tx, user: UserNum, which: &WhichDevices) -> Result<()> {
    let gone = match which {
        WhichDevices::These(device_ids) => device_ids.clone(),
        WhichDevices::All => devices::device_ids(tx, user)?,
        WhichDevices::AllBut(kept) => {
            devices::device_ids(tx, user)?.into_iter().filter(|device_id| device_id != kept).collect()
        }
    };
    for device_id in gone {
        forget_device(tx, user, &device_id)?;
    }
    Ok(())
}

/// Names a device.
///
/// Errors: [`What::Device`] not found.
pub struct RenameDevice {
    /// The user's id.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// Its new name, or none.
    pub display_name: Option<String>,
}

impl Command for RenameDevice {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        match devices::rename(tx, user, &self.device_id, self.display_name.as_deref())? {
            true => device::renamed(tx, user, &self.device_id),
            false => Err(Error::NotFound(What::Device)),
        }
    }
}

/// Notes when and from where a device was seen. To be sent seldom.
pub struct NoteSeen {
    /// The user.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// When and where.
    pub sighting: Sighting,
}

impl Command for NoteSeen {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // The device must not go away between the look and the note.
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        if devices::device(tx, user, &self.device_id)?.is_some() {
            devices::note_seen(tx, user, &self.device_id, &self.sighting);
        }
        Ok(())
    }
}
