//! Whether a local user's membership of a room is this server's to change, or another server has to help, and which may.

use crate::{
    error::Result,
    room::{
        RoomCtx,
        restricted_join::{Admission, admission},
    },
    store::Reader,
    view::View,
};

/// A local user at the door of a room.
pub struct WayIntoRoom<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// Our user.
    pub user_id: &'a str,
}

/// Who can help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Whether this server takes part in the room, or nobody else does any more.
    pub is_here: bool,
    /// Whether it takes part, and only another server's user can vouch for a join.
    pub needs_vouching: bool,
    /// The servers that invited the user, or let a knock in, while this server is not in the room.
    pub invited_by: Vec<String>,
    /// Other servers that are in the room, as far as is known, those with the most members first.
    pub servers: Vec<String>,
}

impl View for WayIntoRoom<'_> {
    type Output = Way;

    fn read(&self, reader: &Reader) -> Result<Way> {
        let own_name = &*reader.shared.server_name;
        let mut way = Way::default();
        if let Ok((_, _, _, row)) = reader.open_out_of_band(self.user_id, self.room_id) {
            way.invited_by = row.servers;
        }
        let Some(room) = RoomCtx::find(reader, self.room_id)? else { return Ok(way) };
        let mut there = reader.servers_in_room(room.num)?;
        there.sort_by_key(|(_, joined)| std::cmp::Reverse(*joined));
        let takes_part = there.iter().any(|(server, _)| **server == *own_name);
        for (server, _) in there {
            if *server != *own_name {
                way.servers.push(server.to_string());
            }
        }
        way.is_here = takes_part || (way.servers.is_empty() && !room.head.extremities.is_empty());
        if takes_part && !way.servers.is_empty() {
            let admission = admission(reader, &room, self.user_id)?;
            way.needs_vouching = matches!(admission, Admission::NobodyMayVouch | Admission::CannotBeTold);
        }
        Ok(way)
    }
}
