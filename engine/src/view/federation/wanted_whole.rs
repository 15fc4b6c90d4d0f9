//! Which of the events that another server gave without their content others are to be asked for, who may have more of them.

use std::sync::Arc;

use crate::{
    error::Result,
    room::{RoomCtx, redactions},
    store::Reader,
    view::View,
};

/// Events that a server has told as a redaction would leave them.
pub struct WantedWhole<'a> {
    /// The id of the room that they are of.
    pub room_id: &'a str,
    /// Their ids and senders.
    pub events: &'a [(Arc<str>, Arc<str>)],
}

impl View for WantedWhole<'_> {
    /// The ids of those that are not here whole, though no redaction is known here that would leave no more of them; in their order. O(bytes
    /// of those that are here).
    type Output = Vec<Arc<str>>;

    fn read(&self, reader: &Reader) -> Result<Vec<Arc<str>>> {
        let Some(room) = RoomCtx::find(reader, self.room_id)? else { return Ok(Vec::new()) };
        let mut wanted = Vec::new();
        for (event_id, sender) in self.events {
            let is_wanted = match reader.event_num(event_id)? {
                Some(num) => reader.event(num)?.is_pruned()?,
                None => !redactions::is_awaited(reader, &room, event_id, sender)?,
            };
            if is_wanted {
                wanted.push(event_id.clone());
            }
        }
        Ok(wanted)
    }
}
