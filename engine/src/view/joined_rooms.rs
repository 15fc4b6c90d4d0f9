//! The rooms that a user is joined to.

use std::sync::Arc;

use crate::{error::Result, store::Reader, view::View};

/// `GET /joined_rooms`.
pub struct JoinedRooms {
    /// Who asks.
    pub user_id: String,
}

impl View for JoinedRooms {
    /// The rooms' ids.
    type Output = Vec<Arc<str>>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let Some(user) = reader.user_num(&self.user_id)? else { return Ok(Vec::new()) };
        let rooms = reader.joined_rooms(user)?;
        Ok(rooms.into_iter().map(|room| reader.room_id(room)).collect::<Result<_, _>>()?)
    }
}
