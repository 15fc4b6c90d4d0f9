//! Who is asking: the session that an access token stands for.

use ruma_common::{OwnedDeviceId, OwnedUserId};

/// A logged-in device, or an application service acting as a user.
#[derive(Debug, Clone)]
pub struct Session {
    pub user_id: OwnedUserId,
    /// `None` for an application service that has not named a device.
    pub device_id: Option<OwnedDeviceId>,
    /// Guests may use the endpoints whose row says `Guest`.
    pub is_guest: bool,
    /// May use the server administration API.
    pub is_admin: bool,
    /// The account is locked: only logging out is possible.
    pub is_locked: bool,
    /// The account is suspended: handlers refuse what the section "Account suspension" lists.
    pub is_suspended: bool,
}
