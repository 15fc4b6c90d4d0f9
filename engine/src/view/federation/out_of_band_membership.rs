//! What a local user can answer in a room that this server is not in, and who may help.

use bytes::Bytes;

use crate::{
    core::{
        event::{JsonObject, Pdu},
        version::RoomVersion,
    },
    error::{Error, Result},
    room::{out_of_band::turned_away, room_version},
    store::{Reader, schema::Membership},
    view::View,
};

/// A local user's invite to a room, or knock at one, that this server is not in.
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
    /// The servers to ask first.
    pub servers: Vec<String>,
}

impl View for OutOfBandMembership {
    /// Errors: [`crate::What::Room`] not found when there is none.
    type Output = OpenMembership;

    fn read(&self, reader: &Reader) -> Result<OpenMembership> {
        let (_, _, membership, row) = reader.open_out_of_band(&self.user_id, &self.room_id)?;
        let version = room_version(row.version)?;
        Ok(OpenMembership { membership, version, event_id: row.event_id, servers: row.servers })
    }
}

/// What of a transaction's events turns local users away from a room that this server is not in.
pub struct TurnedAway<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The events, of which nothing is believed yet.
    pub pdus: &'a [Bytes],
}

impl View for TurnedAway<'_> {
    /// With the version by which each is to be checked.
    type Output = Vec<(&'static RoomVersion, Bytes)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let mut found = Vec::new();
        for pdu in self.pdus {
            let Ok(object) = serde_json::from_slice::<JsonObject>(pdu) else { continue };
            let Some(user_id) = object.get("state_key").and_then(serde_json::Value::as_str) else { continue };
            let known = match reader.open_out_of_band(user_id, self.room_id) {
                Ok((_, _, _, known)) => known,
                Err(Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            let version = room_version(known.version)?;
            if Pdu::parse(version, pdu).is_ok_and(|event| turned_away(&known, &event).is_some()) {
                found.push((version, pdu.clone()));
            }
        }
        Ok(found)
    }
}
