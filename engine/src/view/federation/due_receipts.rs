//! Receipts that came before their events, when these have come.

use std::collections::BTreeSet;

use crate::{
    error::Result,
    room::{RoomCtx, early_receipts},
    store::Reader,
    view::View,
};

/// The users whose receipts wait in a room and need not any longer, for [`crate::command::SettleReceipts`]. To be asked
/// when events have come into the room, when its members have become known, and when a receipt was let wait. O(receipts that wait there).
pub struct DueReceipts<'a> {
    /// The room's id.
    pub room_id: &'a str,
}

impl View for DueReceipts<'_> {
    type Output = BTreeSet<String>;

    fn read(&self, reader: &Reader) -> Result<BTreeSet<String>> {
        let mut users = BTreeSet::new();
        let Some(room) = RoomCtx::find(reader, self.room_id)? else { return Ok(users) };
        for user in early_receipts::due(reader, &room)? {
            users.insert(reader.user_id(user)?.to_string());
        }
        Ok(users)
    }
}
