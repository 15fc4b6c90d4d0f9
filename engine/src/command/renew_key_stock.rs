//! A device comes with a token of a database that was lost: what others start encrypted sessions with is to be new.

use crate::{
    command::{Command, Lanes},
    core::num::StreamPos,
    device::one_time_keys,
    error::Result,
    store::Tx,
};

/// Forgets a device's one-time keys of before its token, which may have been given out since the copy was made that this database
/// was restored from, and would be given out again. The counts in its next sync let it make new ones.
pub struct RenewKeyStock {
    /// The user whose device it is.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The position of the token.
    pub before: StreamPos,
}

impl Command for RenewKeyStock {
    /// Whether there were any.
    type Output = bool;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<bool> {
        match (tx.user_num(&self.user_id)?, tx.text_num(&self.device_id)?) {
            (Some(user), Some(device)) => one_time_keys::renew(tx, user, device, self.before),
            _ => Ok(false),
        }
    }
}
