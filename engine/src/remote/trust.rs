//! Keys that are never trusted, whatever their server says: those that have leaked.

use std::collections::HashSet;

use super::ServerKey;

/// What a signing key of another server is to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// It has not been seen.
    Unknown,
    /// It is known to be the server's.
    Known(ServerKey),
    /// Nothing that it signed counts.
    NeverTrusted,
}

/// The keys that are never trusted: `server:ed25519:abc`, or for every server `ed25519:abc`.
#[derive(Debug, Default)]
pub(crate) struct NeverTrusted(HashSet<String>);

impl NeverTrusted {
    pub fn new(keys: impl IntoIterator<Item = String>) -> Self {
        Self(keys.into_iter().collect())
    }

    pub fn has(&self, server_name: &str, key_id: &str) -> bool {
        // The common case builds no text.
        !self.0.is_empty() && (self.0.contains(key_id) || self.0.contains(&format!("{server_name}:{key_id}")))
    }
}
