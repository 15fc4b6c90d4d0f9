//! The keys that other servers sign with are kept.

use crate::{
    command::{Command, Lanes},
    error::Result,
    remote::{self, ServerKey},
    store::Tx,
};

/// Stores the keys that a server signs with, once they have been verified to be its.
#[derive(Clone, Debug)]
pub struct StoreServerKeys {
    /// The server.
    pub server_name: String,
    /// Its keys.
    pub keys: Vec<ServerKey>,
}

impl Command for StoreServerKeys {
    /// The ids of keys that are refused: they stand for another key already, or are none.
    type Output = Vec<String>;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.server_name)
    }

    fn run(&self, tx: &mut Tx) -> Result<Vec<String>> {
        remote::store(tx, &self.server_name, &self.keys)
    }
}
