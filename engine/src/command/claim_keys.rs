//! Somebody takes one-time keys of devices, to start encrypted sessions with them.

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    device::one_time_keys,
    error::Result,
    store::Tx,
};

/// The most keys of one claim: it holds the lanes of all whose keys they are, and whoever writes in one of these waits for it.
pub const CLAIM_BATCH: usize = 200;

/// `POST /keys/claim`, for users of this server.
pub struct ClaimKeys {
    /// Of whom, of which of their devices, and of which algorithm a key is wanted.
    pub wanted: Vec<WantedKey>,
}

/// A key that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedKey {
    /// The user.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The algorithm.
    pub algorithm: String,
}

/// A key that was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedKey {
    /// Whose.
    pub user_id: String,
    /// Of which device.
    pub device_id: String,
    /// `algorithm:id`.
    pub name: String,
    /// The key as JSON.
    pub key: Bytes,
}

impl ClaimKeys {
    /// Claims of [`CLAIM_BATCH`] keys at most, to be made one after the other.
    pub fn in_batches(wanted: &[WantedKey]) -> impl Iterator<Item = ClaimKeys> {
        wanted.chunks(CLAIM_BATCH).map(|wanted| ClaimKeys { wanted: wanted.to_vec() })
    }
}

impl Command for ClaimKeys {
    /// The keys that there are, in the order in which they were wanted.
    type Output = Vec<ClaimedKey>;

    fn lanes(&self) -> Lanes {
        self.wanted.iter().fold(Lanes::default(), |lanes, wanted| lanes.user(&wanted.user_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<Vec<ClaimedKey>> {
        let mut claimed = Vec::new();
        for WantedKey { user_id, device_id, algorithm } in &self.wanted {
            let (Some(user), Some(device), Some(number)) =
                (tx.user_num(user_id)?, tx.text_num(device_id)?, tx.text_num(algorithm)?)
            else {
                continue;
            };
            if let Some((key_id, key)) = one_time_keys::claim(tx, user, device, number)? {
                claimed.push(ClaimedKey {
                    user_id: user_id.clone(),
                    device_id: device_id.clone(),
                    name: format!("{algorithm}:{key_id}"),
                    key,
                });
            }
        }
        Ok(claimed)
    }
}
