//! `GET /hierarchy/{roomId}` of the server-server API: a space and its rooms, as far as users of the asking server could
//! come into them.
//!
//! Specification: server-server API, "Spaces"; client-server API, `GET /rooms/{roomId}/hierarchy`.

use serde::Serialize;

use crate::{
    error::{Error, Result, What},
    room::{
        SpaceRoom,
        hierarchy::{Asker, is_shown, room_here, space_room, space_with_children},
    },
    store::Reader,
    view::View,
};

/// About the bytes of an answer, which must not be of any size because names and topics may be long: a thousand rooms as they
/// usually are, and their lists. Other servers read some megabytes.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A space, for a peer.
pub struct PeerHierarchy {
    /// The space's id.
    pub room_id: String,
    /// Whether only suggested rooms are wanted.
    pub suggested_only: bool,
    /// The server that asks.
    pub server: String,
}

/// A space and its rooms.
#[derive(Clone, Debug, Serialize)]
pub struct Hierarchy {
    /// The space.
    pub room: SpaceRoom,
    /// Its rooms, as far as they are known here and users of the asking server could come in.
    pub children: Vec<SpaceRoom>,
    /// The ids of those that are known and into which they could not.
    pub inaccessible_children: Vec<String>,
}

impl View for PeerHierarchy {
    /// Errors: [`What::Room`] not found for what this server is not in or users of the server could not come into.
    type Output = Hierarchy;

    fn read(&self, reader: &Reader) -> Result<Hierarchy> {
        let asker = Asker::Server(&self.server);
        let space = room_here(reader, &self.room_id)?.ok_or(Error::NotFound(What::Room))?;
        if !is_shown(reader, &space, asker)? {
            return Err(Error::NotFound(What::Room));
        }
        let room = space_with_children(reader, &space, self.suggested_only)?;
        let (mut children, mut inaccessible_children) = (Vec::new(), Vec::new());
        let mut bytes = room.size();
        for listed in room.children_state.iter().flatten() {
            let Some(child) = room_here(reader, &listed.room_id)? else { continue };
            if !is_shown(reader, &child, asker)? {
                inaccessible_children.push(listed.room_id.to_string());
                continue;
            }
            let child = space_room(reader, &child)?;
            bytes += child.size();
            if bytes > ANSWER_BYTES_MAX {
                // What is left out can be asked for by itself.
                break;
            }
            children.push(child);
        }
        Ok(Hierarchy { room, children, inaccessible_children })
    }
}
