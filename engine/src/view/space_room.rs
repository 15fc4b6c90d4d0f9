//! One room of a space, as a user of this server is shown it.
//!
//! Specification: client-server API, `GET /rooms/{roomId}/hierarchy`.

use std::sync::Arc;

use crate::{
    error::Result,
    room::{
        SpaceRoom,
        hierarchy::{Asker, is_shown, room_here, space_with_children},
    },
    store::{Reader, schema::Membership},
    view::View,
};

/// A room, for a user.
pub struct RoomOfSpace<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The user.
    pub user_id: &'a str,
    /// Whether only the suggested of its rooms are wanted.
    pub suggested_only: bool,
}

/// What is known of it here.
#[derive(Clone, Debug)]
pub enum KnownRoom {
    /// This is what the user is shown.
    Shown(Arc<SpaceRoom>),
    /// The user is not to know of it.
    Hidden,
    /// This server is not in it, so that others have to be asked.
    Elsewhere,
}

impl View for RoomOfSpace<'_> {
    type Output = KnownRoom;

    fn read(&self, reader: &Reader) -> Result<KnownRoom> {
        let Some(room) = room_here(reader, self.room_id)? else { return Ok(KnownRoom::Elsewhere) };
        if !is_shown(reader, &room, Asker::User(self.user_id))? {
            return Ok(KnownRoom::Hidden);
        }
        Ok(KnownRoom::Shown(Arc::new(space_with_children(reader, &room, self.suggested_only)?)))
    }
}

/// Whether a room that another server told of to this one may be shown to a user of it too.
pub struct IsShownElsewhere<'a> {
    /// The room, as it was told.
    pub room: &'a SpaceRoom,
    /// The user.
    pub user_id: &'a str,
}

impl View for IsShownElsewhere<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let summary = &self.room.summary;
        if summary.world_readable {
            return Ok(true);
        }
        // The version is told by few, so that nothing can be made of it.
        match summary.join_rule.as_deref() {
            Some("public" | "knock" | "knock_restricted") | None => return Ok(true),
            Some("restricted") => {
                let allowed = self.room.allowed_room_ids.iter().map(String::as_str);
                if Asker::User(self.user_id).is_in_any(reader, allowed)? {
                    return Ok(true);
                }
            }
            Some(_) => {}
        }
        let (user, room) = (reader.user_num(self.user_id)?, reader.room_num(&summary.room_id)?);
        let Some((user, room)) = user.zip(room) else { return Ok(false) };
        Ok(reader.membership(user, room)? == Some(Membership::Invite))
    }
}
