//! A user signs devices of their own, their master key, or other users' master keys.

use std::collections::BTreeSet;

pub use crate::device::elsewhere::ToldMasterKey;
use crate::{
    command::{Command, Lanes},
    core::{event::JsonObject, num::UserNum},
    device::{
        cross_signing, elsewhere,
        lists::{self, ListChange},
    },
    error::{Error, Result, What},
    store::{Tx, schema},
};

/// `POST /keys/signatures/upload`.
pub struct UploadSignatures {
    /// Who signs.
    pub user_id: String,
    /// The signed keys: whose, the device id or public key, the key with its new signatures.
    pub signed: Vec<SignedKey>,
    /// Master keys among them that are not known here ([`crate::view::UnknownMasterKeys`]), as their users' servers have told
    /// them.
    pub told: Vec<ToldMasterKey>,
}

/// A key with new signatures.
pub struct SignedKey {
    /// Whose key.
    pub user_id: String,
    /// A device's id, or a master key's public key.
    pub key_id: String,
    /// The key itself.
    pub object: JsonObject,
}

/// A signature that was not accepted.
#[derive(Clone, Debug)]
pub struct SignatureFailure {
    /// Whose key.
    pub user_id: String,
    /// Which key.
    pub key_id: String,
    /// Why.
    pub error: Error,
}

impl Command for UploadSignatures {
    /// What was not accepted; all else was.
    type Output = Vec<SignatureFailure>;

    fn lanes(&self) -> Lanes {
        self.signed.iter().fold(Lanes::default().user(&self.user_id), |lanes, key| lanes.user(&key.user_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<Vec<SignatureFailure>> {
        let signer = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        let mut failures = Vec::new();
        let mut own_news = BTreeSet::new();
        for key in &self.signed {
            match self.add(tx, signer, key) {
                Ok((owner, true)) if owner == signer => {
                    own_news.insert(changed_key(tx, signer, &key.key_id)?);
                }
                // Whom the signer has verified is told to the signer's devices alone.
                Ok((owner, true)) => lists::changed_for(tx, signer, owner),
                Ok((_, false)) => {}
                Err(error @ Error::Storage(_)) => return Err(error),
                Err(error) => failures.push(SignatureFailure {
                    user_id: key.user_id.clone(),
                    key_id: key.key_id.clone(),
                    error,
                }),
            }
        }
        if !own_news.is_empty() {
            lists::changed(tx, signer, own_news)?;
        }
        Ok(failures)
    }
}

impl UploadSignatures {
    /// Adds the signatures on one key. Answers whose it is, and whether anything is new.
    fn add(&self, tx: &mut Tx, signer: UserNum, key: &SignedKey) -> Result<(UserNum, bool)> {
        let by = (signer, self.user_id.as_str());
        if let Some(told) = self.told.iter().find(|told| told.user_id == key.user_id) {
            elsewhere::put_signed_master_key(tx, by, told, &key.object)?;
        }
        let owner = tx.user_num(&key.user_id)?.ok_or(Error::NotFound(What::Key))?;
        let news = cross_signing::add_signatures(tx, by, owner, &key.key_id, &key.object)?;
        Ok((owner, news))
    }
}

/// What other servers are told of a signature on one's own key.
fn changed_key(tx: &Tx, user: UserNum, key_id: &str) -> Result<ListChange> {
    let device = match tx.text_num(key_id)? {
        Some(device) if tx.has(&schema::DEVICE_KEYS, &(user, device))? => Some(device),
        _ => None,
    };
    Ok(device.map_or(ListChange::SigningKeys, ListChange::Device))
}
