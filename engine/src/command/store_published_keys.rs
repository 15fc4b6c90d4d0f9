//! What a server publishes of its keys is stored.

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    error::Result,
    remote::{self, ServerKey},
    store::{Tx, schema, schema::StoredPublishedKeys},
};

/// Stores what a server publishes of its keys, once it has been verified to be by it: the keys, by which signatures are
/// checked, and the whole as it was signed, for who asks this server about the other one. Of its own, which others tell when it has lost
/// them, the keys alone: what it publishes it makes itself.
#[derive(Clone, Debug)]
pub struct StorePublishedKeys {
    /// The server.
    pub server_name: String,
    /// Its keys.
    pub keys: Vec<ServerKey>,
    /// What it published, in JSON.
    pub json: Bytes,
    /// When it was fetched, in milliseconds since the epoch.
    pub fetched_ts: u64,
}

impl Command for StorePublishedKeys {
    /// The ids of keys that are refused: they stand for another key already, or are none.
    type Output = Vec<String>;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.server_name)
    }

    fn run(&self, tx: &mut Tx) -> Result<Vec<String>> {
        let refused = remote::store(tx, &self.server_name, &self.keys)?;
        if *self.server_name == *tx.shared.server_name {
            return Ok(refused);
        }
        let server = tx.intern_text(&self.server_name)?;
        let stored = StoredPublishedKeys { json: self.json.to_vec(), fetched_ts: self.fetched_ts };
        tx.put(&schema::PUBLISHED_KEYS, &server, &stored);
        Ok(refused)
    }
}
