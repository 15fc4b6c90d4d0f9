//! Whether a local user may replace a room: told before anybody waits for what an upgrade takes.

use crate::{error::Result, room::upgrade, store::Reader, view::View};

/// A user who wants to replace a room by one of another version.
pub struct MayUpgrade<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The user's id.
    pub user_id: &'a str,
    /// The new room's version.
    pub version: &'a str,
}

impl View for MayUpgrade<'_> {
    /// Errors: [`crate::Invalid::RoomVersion`]; [`crate::Denied::NotInRoom`]; [`crate::Denied::PowerLevel`].
    type Output = ();

    fn read(&self, reader: &Reader) -> Result<()> {
        upgrade::check_may_upgrade(reader, (self.room_id, self.user_id), self.version).map(drop)
    }
}
