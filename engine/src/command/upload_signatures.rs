//! A user signs devices of their own, their master key, or other users' master keys.

use std::collections::BTreeSet;

use crate::{
    command::{Command, Lanes},
    core::{event::JsonObject, num::UserNum},
    device::{
        cross_signing,
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
        for SignedKey { user_id, key_id, object } in &self.signed {
            let added = match tx.user_num(user_id)? {
                None => Err(Error::NotFound(What::Key)),
                Some(owner) => {
                    cross_signing::add_signatures(tx, (signer, &self.user_id), owner, key_id, object)
                        .map(|news| (owner, news))
                }
            };
            match added {
                Ok((owner, true)) if owner == signer => {
                    own_news.insert(changed_key(tx, signer, key_id)?);
                }
                // Whom the signer has verified is told to the signer's devices alone.
                Ok((owner, true)) => lists::changed_for(tx, signer, owner),
                Ok((_, false)) => {}
                Err(error @ Error::Storage(_)) => return Err(error),
                Err(error) => failures.push(SignatureFailure {
                    user_id: user_id.clone(),
                    key_id: key_id.clone(),
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

/// What other servers are told of a signature on one's own key.
fn changed_key(tx: &Tx, user: UserNum, key_id: &str) -> Result<ListChange> {
    let device = match tx.text_num(key_id)? {
        Some(device) if tx.has(&schema::DEVICE_KEYS, &(user, device))? => Some(device),
        _ => None,
    };
    Ok(device.map_or(ListChange::SigningKeys, ListChange::Device))
}
