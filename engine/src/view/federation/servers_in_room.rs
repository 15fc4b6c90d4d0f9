//! The servers in a room: to whom its events go.

use std::sync::Arc;

use crate::{
    error::{Error, Result, What},
    store::Reader,
    view::View,
};

/// The servers that have joined members in a room, ours among them. O(servers).
pub struct ServersInRoom {
    /// The room's id.
    pub room_id: String,
}

impl View for ServersInRoom {
    /// Each server's name and how many joined members it has.
    ///
    /// Errors: [`What::Room`] not found.
    type Output = Vec<(Arc<str>, u64)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let room = reader.room_num(&self.room_id)?.ok_or(Error::NotFound(What::Room))?;
        Ok(reader.servers_in_room(room)?)
    }
}
