//! Devices, tested through the commands and views that the server uses.

use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

use crate::{
    Error,
    command::UploadKeys,
    core::event::encode_base64,
    core::json,
    error::Result,
    fixture::{SERVER, World},
    store::{
        schema,
        schema::{Account, DeviceRow},
    },
    view::QueryKeys,
};

mod backup;
mod keys;
mod lists;
mod messages;
mod signed_elsewhere;
mod told;

pub(crate) fn user_id(name: &str) -> String {
    format!("@{name}:{SERVER}")
}

/// Gives a user an account, and devices by id.
pub(crate) fn register(world: &World, name: &str, device_ids: &[&str]) -> String {
    let id = user_id(name);
    world
        .act(|tx| {
            let user = tx.intern_user(&id)?;
            tx.put(&schema::ACCOUNTS, &user, &Account::default());
            for device_id in device_ids {
                let row =
                    DeviceRow { display_name: Some(format!("{device_id}'s name")), ..DeviceRow::default() };
                tx.put(&schema::DEVICES, &(user, (*device_id).to_owned()), &row);
            }
            Ok(())
        })
        .unwrap();
    id
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// A signing key of a client.
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    pub fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub fn public(&self) -> String {
        encode_base64(self.0.public_key().as_ref())
    }

    /// Signs under the key id `ed25519:name`.
    pub fn sign(&self, object: &mut Map<String, Value>, user_id: &str, name: &str) {
        let mut bytes = Vec::new();
        json::write_members_without(&mut bytes, object, &["signatures", "unsigned"]);
        let signature = encode_base64(self.0.sign(&bytes).as_ref());
        let all = object.entry("signatures").or_insert_with(|| json!({}));
        all[user_id][format!("ed25519:{name}")] = json!(signature);
    }

    /// A cross-signing key, unsigned.
    pub fn cross_signing(&self, user_id: &str, usage: &str) -> Map<String, Value> {
        let public = self.public();
        object(json!({"user_id": user_id, "usage": [usage], "keys": {format!("ed25519:{public}"): public}}))
    }

    /// Identity keys of a device whose Ed25519 key this is.
    pub fn device(&self, user_id: &str, device_id: &str) -> Map<String, Value> {
        let mut keys = object(json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {format!("ed25519:{device_id}"): self.public(), format!("curve25519:{device_id}"): "c"},
        }));
        self.sign(&mut keys, user_id, device_id);
        keys
    }
}

pub(crate) fn upload_device(
    world: &World,
    user: &str,
    device_id: &str,
    keys: Map<String, Value>,
) -> Result<()> {
    let command = UploadKeys {
        user_id: user.to_owned(),
        device_id: device_id.to_owned(),
        device_keys: Some(keys),
        one_time_keys: Vec::new(),
        fallback_keys: Vec::new(),
    };
    world.engine.write(command).wait().map(drop)
}

pub(crate) fn query(world: &World, asker: &str, users: &[&str]) -> Value {
    let users = users.iter().map(|user| ((*user).to_owned(), Vec::new())).collect();
    let body = world.engine.read(&QueryKeys { asker: asker.to_owned(), users }).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// What kind of error it is, for comparison.
pub(super) fn kind<T>(result: Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::Denied(crate::Denied::KeyIdInUse)) => "key id in use",
        Err(Error::Invalid(crate::Invalid::Signature { .. })) => "signature",
        Err(Error::Invalid(crate::Invalid::NoMasterKey)) => "no master key",
        Err(Error::Invalid(crate::Invalid::TooLarge { .. })) => "too large",
        Err(Error::Invalid(_)) => "invalid",
        Err(Error::NotFound(_)) => "not found",
        Err(Error::Conflict(_)) => "conflict",
        Err(_) => "other",
    }
}
