//! Whether a user is in a room by what is known here: a join that was let in may be undone by what it is merged with.

use crate::{
    error::Result,
    store::{Reader, schema::Membership},
    view::View,
};

/// A user, and a room that may not be known.
pub struct IsJoined<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The user.
    pub user_id: &'a str,
}

impl View for IsJoined<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        match reader.user_num(self.user_id)?.zip(reader.room_num(self.room_id)?) {
            Some((user, room)) => Ok(reader.membership(user, room)? == Some(Membership::Join)),
            None => Ok(false),
        }
    }
}
