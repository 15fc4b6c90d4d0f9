//! What is known of other servers. Ids 140 to 149.

use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{core::num::TextNum, store::record};

keyspaces! { TABLE:
    #[doc = "A server's signing key: server name, key id."]
    140 SERVER_KEYS: Meta, (TextNum, String) => StoredServerKey;
}

/// A signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredServerKey {
    /// The Ed25519 public key.
    pub public_key: Vec<u8>,
    /// Until when it counts, in milliseconds since the epoch.
    pub valid_until_ts: u64,
    /// Whether the server no longer uses it.
    pub is_old: bool,
}

record!(StoredServerKey);
