//! A device has received messages: a sync with a later token says so.

use crate::{
    command::{Command, Lanes},
    core::num::StreamPos,
    device::to_device,
    error::Result,
    store::Tx,
};

/// Removes the messages to a device up to and with a position.
pub struct DeleteToDevice {
    /// Whose device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The token that the device had from the sync that delivered them.
    pub up_to: StreamPos,
}

impl Command for DeleteToDevice {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (Some(user), Some(device)) = (tx.user_num(&self.user_id)?, tx.text_num(&self.device_id)?) else {
            return Ok(());
        };
        to_device::acknowledge(tx, user, device, self.up_to)
    }
}
