//! What a local user can answer in a room that this server is not in, or in which it has not heard of it, and who may help.

use super::way_into_room::WayIntoRoom;
use crate::{
    core::version::RoomVersion,
    error::Result,
    room::room_version,
    store::{Reader, schema::Membership},
    view::View,
};

/// A local user's invite to a room, or knock at one, that this server is not in, or in which it has not heard of it.
pub struct OutOfBandMembership {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
}

/// An invite or a knock.
#[derive(Clone, Debug)]
pub struct OpenMembership {
    /// Which.
    pub membership: Membership,
    /// The room's version, as the other server says.
    pub version: &'static RoomVersion,
    /// The event's id.
    pub event_id: String,
    /// The servers to ask, in this order: the one that told of it, and then who else may help into the room.
    pub servers: Vec<String>,
}

impl View for OutOfBandMembership {
    /// Errors: [`crate::What::Room`] not found when there is none.
    type Output = OpenMembership;

    fn read(&self, reader: &Reader) -> Result<OpenMembership> {
        let (_, _, membership, row) = reader.open_out_of_band(&self.user_id, &self.room_id)?;
        let version = room_version(row.version)?;
        let way = WayIntoRoom { room_id: &self.room_id, user_id: &self.user_id, named: &[] };
        let mut servers = row.servers;
        for server in way.read(reader)?.servers {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Ok(OpenMembership { membership, version, event_id: row.event_id, servers })
    }
}

/// A local user's invite to a room, or knock at one, that this server is not in, or no longer: another server may end it.
pub struct EndableMembership {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
}

impl View for EndableMembership {
    /// The room's version.
    ///
    /// Errors: [`crate::What::Room`] not found when there is none.
    type Output = &'static RoomVersion;

    fn read(&self, reader: &Reader) -> Result<&'static RoomVersion> {
        let (_, _, row) = reader.endable_out_of_band(&self.user_id, &self.room_id)?;
        Ok(room_version(row.version)?)
    }
}
