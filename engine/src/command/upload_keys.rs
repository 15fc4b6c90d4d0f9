//! A device publishes its identity, one-time and fallback keys.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    command::{Command, Lanes},
    core::event::JsonObject,
    device::{device_keys, one_time_keys},
    error::{Error, Result, What},
    store::{Tx, schema},
};

/// `POST /keys/upload`.
///
/// Errors: [`What::Device`] not found, which may have been logged out while its keys were on their way: nobody could remove them
/// then. Malformed or too many keys.
pub struct UploadKeys {
    /// Who uploads.
    pub user_id: String,
    /// Which device of theirs.
    pub device_id: String,
    /// The identity keys, if they are new.
    pub device_keys: Option<JsonObject>,
    /// One-time keys by `algorithm:id`.
    pub one_time_keys: Vec<(String, Value)>,
    /// Fallback keys by `algorithm:id`.
    pub fallback_keys: Vec<(String, Value)>,
}

impl Command for UploadKeys {
    /// The number of unclaimed one-time keys by algorithm.
    type Output = BTreeMap<String, u64>;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<BTreeMap<String, u64>> {
        let user = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        if !tx.has(&schema::DEVICES, &(user, self.device_id.clone()))? {
            return Err(Error::NotFound(What::Device));
        }
        if let Some(keys) = &self.device_keys {
            device_keys::upload(tx, user, &self.user_id, &self.device_id, keys)?;
        }
        let device = tx.intern_text(&self.device_id)?;
        one_time_keys::upload(tx, user, device, &self.one_time_keys)?;
        one_time_keys::upload_fallback(tx, user, device, &self.fallback_keys)?;
        one_time_keys::counts(tx, user, device)
    }
}
