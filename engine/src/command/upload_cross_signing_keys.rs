//! A user publishes the keys that stand for them, beyond any one device.

use crate::{
    command::{Command, Lanes},
    core::event::JsonObject,
    device::{
        cross_signing::{self, CrossSigningUsage},
        lists::{self, ListChange},
    },
    error::{Error, Result, What},
    store::Tx,
};

/// `POST /keys/device_signing/upload`.
pub struct UploadCrossSigningKeys {
    /// Who uploads.
    pub user_id: String,
    /// The master key.
    pub master: Option<JsonObject>,
    /// The self-signing key.
    pub self_signing: Option<JsonObject>,
    /// The user-signing key.
    pub user_signing: Option<JsonObject>,
    /// Whether the user has proved anew who they are.
    pub authenticated: bool,
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSigningUpload {
    /// The keys are stored.
    Stored,
    /// Nothing is stored: keys of the user would be changed, which they have to prove themselves for.
    NeedsAuthentication,
}

impl Command for UploadCrossSigningKeys {
    type Output = CrossSigningUpload;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    /// The first keys, and the same keys again, need no authentication.
    fn run(&self, tx: &mut Tx) -> Result<CrossSigningUpload> {
        let user = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        let given = [
            (CrossSigningUsage::Master, self.master.as_ref()),
            (CrossSigningUsage::SelfSigning, self.self_signing.as_ref()),
            (CrossSigningUsage::UserSigning, self.user_signing.as_ref()),
        ];
        let given: Vec<_> = given.into_iter().filter_map(|(usage, key)| Some((usage, key?))).collect();
        let has_master = cross_signing::stored(tx, user, CrossSigningUsage::Master)?.is_some();
        let keys = cross_signing::check(tx, user, &self.user_id, &given)?;
        if has_master && !self.authenticated && keys.iter().any(|key| key.is_new) {
            return Ok(CrossSigningUpload::NeedsAuthentication);
        }
        if cross_signing::store(tx, user, &self.user_id, &keys)? {
            lists::changed(tx, user, [ListChange::SigningKeys])?;
        }
        Ok(CrossSigningUpload::Stored)
    }
}
