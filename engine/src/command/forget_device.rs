//! A device goes away, whoever sends it away: this is the one list of what is kept for devices.

use crate::{account::devices, core::num::UserNum, device, error::Result, store::Tx};

/// Forgets something that is kept for a device.
type Forget = fn(&mut Tx, UserNum, &str) -> Result<()>;

/// Everything that is kept for a device beside its tokens.
const KEPT: &[Forget] = &[device::forget];

/// Removes a device, ends its tokens, and forgets all that is kept for it, also what is left of one that is gone. The user's
/// lane must be held.
pub(super) fn forget_device(tx: &mut Tx, user: UserNum, device_id: &str) -> Result<()> {
    if devices::remove(tx, user, device_id)? || device::has_keys(tx, user, device_id)? {
        for forget in KEPT {
            forget(tx, user, device_id)?;
        }
    }
    Ok(())
}
