//! What is known of other servers. Ids 140 to 149.

use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{core::num::TextNum, store::record};

keyspaces! { TABLE:
    #[doc = "A server's signing key: server name, key id."]
    140 SERVER_KEYS: Meta, (TextNum, String) => StoredServerKey;
    #[doc = "What a server publishes of its keys, as it signed it: server name."]
    141 PUBLISHED_KEYS: Meta, TextNum => StoredPublishedKeys;
}

/// A signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredServerKey {
    /// The Ed25519 public key.
    pub public_key: Vec<u8>,
    /// Until when it counts, in milliseconds since the epoch.
    pub valid_until_ts: u64,
    /// Whether the server no longer uses it. Of this server's own keys, none of which here is in use: whether it put it out of use itself,
    /// and others did not tell it.
    pub is_old: bool,
}

/// A server's answer to who asks for its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPublishedKeys {
    /// The answer in JSON, with its signatures.
    pub json: Vec<u8>,
    /// When it was fetched, in milliseconds since the epoch.
    pub fetched_ts: u64,
}

record!(StoredServerKey, StoredPublishedKeys);
