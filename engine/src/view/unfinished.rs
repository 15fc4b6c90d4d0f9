//! What was begun in rooms and is taken up again: after a restart, and where it could not be done at once.

use std::collections::BTreeMap;

use crate::{
    core::num::{RoomNum, UserNum},
    error::Result,
    store::{Direction, Reader, schema, schema::Keyspace},
    view::View,
};

/// The rooms that are still to be told of a profile that has changed, each with its users. O(result).
pub struct UnshownProfiles;

impl View for UnshownProfiles {
    /// By the ids of rooms, those of users.
    type Output = BTreeMap<String, Vec<String>>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        users_by_room(reader, &schema::UNSHOWN_PROFILES)
    }
}

/// The rooms into which users came by way of another server, each with those who are still to be given what they set for the room
/// that it replaces. O(result).
pub struct UncarriedSettings;

impl View for UncarriedSettings {
    /// By the ids of rooms, those of users.
    type Output = BTreeMap<String, Vec<String>>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        users_by_room(reader, &schema::UNCARRIED_SETTINGS)
    }
}

fn users_by_room(
    reader: &Reader,
    keyspace: &Keyspace<(RoomNum, UserNum), ()>,
) -> Result<BTreeMap<String, Vec<String>>> {
    let mut marked = Vec::new();
    reader.scan(keyspace, &(), Direction::Forward, |(room, user): (RoomNum, UserNum), ()| {
        marked.push((room, user));
        true
    })?;
    let mut rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (room, user) in marked {
        let (room_id, user_id) = (reader.room_id(room)?, reader.user_id(user)?);
        rooms.entry(room_id.to_string()).or_default().push(user_id.to_string());
    }
    Ok(rooms)
}

/// The rooms that guests of this server have to leave, as soon as their policy servers have signed that. O(result).
pub struct RoomsWithGuestsToRemove;

impl View for RoomsWithGuestsToRemove {
    /// Their ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let mut rooms = Vec::new();
        reader.scan(&schema::GUESTS_TO_REMOVE, &(), Direction::Forward, |room: RoomNum, ()| {
            rooms.push(room);
            true
        })?;
        rooms.into_iter().map(|room| Ok(reader.room_id(room)?.to_string())).collect()
    }
}
