//! With whom a server is in rooms, at the moment at which it is told something beside events: what was to be told may have
//! waited, and says how things are now.
//!
//! Invariant: what is read is read once, however much there is to tell.

use std::collections::HashMap;

use super::servers::is_in_or_supposed;
use crate::{
    core::num::{RoomNum, TextNum, UserNum},
    store::{Reader, StorageError, schema::Membership},
};

/// The company of another server.
pub(crate) struct Company<'r> {
    reader: &'r Reader,
    server: TextNum,
    rooms: HashMap<RoomNum, bool>,
    users: HashMap<UserNum, bool>,
}

impl<'r> Company<'r> {
    /// Nothing is read until it is asked for.
    pub fn new(reader: &'r Reader, server: TextNum) -> Self {
        Self { reader, server, rooms: HashMap::new(), users: HashMap::new() }
    }

    /// Whether the server is in the room, or may be. O(1).
    pub fn is_in(&mut self, room: RoomNum) -> Result<bool, StorageError> {
        if let Some(known) = self.rooms.get(&room) {
            return Ok(*known);
        }
        let is_in = is_in_or_supposed(self.reader, self.server, room)?;
        self.rooms.insert(room, is_in);
        Ok(is_in)
    }

    /// Whether the server is in a room with the user. O(1) if `likely` is one, else O(the user's rooms).
    pub fn has(&mut self, user: UserNum, likely: Option<RoomNum>) -> Result<bool, StorageError> {
        if let Some(known) = self.users.get(&user) {
            return Ok(*known);
        }
        let has = self.is_with(user, likely)?;
        self.users.insert(user, has);
        Ok(has)
    }

    fn is_with(&mut self, user: UserNum, likely: Option<RoomNum>) -> Result<bool, StorageError> {
        if let Some(room) = likely
            && self.reader.membership(user, room)? == Some(Membership::Join)
            && self.is_in(room)?
        {
            return Ok(true);
        }
        for room in self.reader.joined_rooms(user)? {
            if self.is_in(room)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
