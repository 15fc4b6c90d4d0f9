//! The room that another replaces.

use crate::{
    error::Result,
    room::{RoomCtx, upgrade},
    store::{Reader, schema},
    view::View,
};

/// The room that the one with this id replaces, as long as this server has an alias or an entry in its directory for it: they are to be
/// moved ([`crate::command::MoveNames`]).
pub struct ReplacedRoom<'a>(
    /// The room's id.
    pub &'a str,
);

impl View for ReplacedRoom<'_> {
    /// Its id; nothing unless both rooms say so.
    type Output = Option<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let Some(room) = RoomCtx::find(reader, self.0)? else { return Ok(None) };
        let Some((old_id, old)) = upgrade::predecessor(reader, &room)? else { return Ok(None) };
        let has_names = reader.has(&schema::PUBLIC_ROOMS, &old)? || !reader.room_aliases(old)?.is_empty();
        Ok(has_names.then_some(old_id))
    }
}
