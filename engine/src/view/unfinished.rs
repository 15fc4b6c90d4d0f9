//! What was begun in rooms and is taken up again: after a restart, and where it could not be done at once.

use crate::{
    core::num::{RoomNum, UserNum},
    error::Result,
    room::signed_invites,
    store::{Direction, Reader, schema, schema::Keyspace},
    view::View,
};

/// The rooms that are still to be told of a profile that has changed. O(marks).
pub struct UnshownProfiles;

impl View for UnshownProfiles {
    /// Their ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        rooms_in(reader, &schema::UNSHOWN_PROFILES)
    }
}

/// The users of whose profile one room is still to be told. O(result).
pub struct UnshownProfilesIn<'a>(
    /// The room's id.
    pub &'a str,
);

impl View for UnshownProfilesIn<'_> {
    /// Their ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        users_in(reader, &schema::UNSHOWN_PROFILES, self.0)
    }
}

/// The rooms into which users came by way of another server, who are still to be given what they set for the room that it
/// replaces. O(marks).
pub struct UncarriedSettings;

impl View for UncarriedSettings {
    /// Their ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        rooms_in(reader, &schema::UNCARRIED_SETTINGS)
    }
}

/// The users whom [`UncarriedSettings`] means in one room. O(result).
pub struct UncarriedSettingsIn<'a>(
    /// The room's id.
    pub &'a str,
);

impl View for UncarriedSettingsIn<'_> {
    /// Their ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        users_in(reader, &schema::UNCARRIED_SETTINGS, self.0)
    }
}

fn rooms_in(reader: &Reader, keyspace: &Keyspace<(RoomNum, UserNum), ()>) -> Result<Vec<String>> {
    let mut rooms = Vec::new();
    reader.scan(keyspace, &(), Direction::Forward, |(room, _): (RoomNum, UserNum), ()| {
        // Those of one room stand together.
        if rooms.last() != Some(&room) {
            rooms.push(room);
        }
        true
    })?;
    rooms.into_iter().map(|room| Ok(reader.room_id(room)?.to_string())).collect()
}

fn users_in(
    reader: &Reader,
    keyspace: &Keyspace<(RoomNum, UserNum), ()>,
    room_id: &str,
) -> Result<Vec<String>> {
    let Some(room) = reader.room_num(room_id)? else { return Ok(Vec::new()) };
    let mut users = Vec::new();
    reader.scan(keyspace, &room, Direction::Forward, |(_, user): (RoomNum, UserNum), ()| {
        users.push(user);
        true
    })?;
    users.into_iter().map(|user| Ok(reader.user_id(user)?.to_string())).collect()
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

/// The invites that this server has signed as one that is in the room, whose events should have come by now, and whose users see
/// neither them nor the room. O(invites whose events have not come).
pub struct OverdueInvites;

impl View for OverdueInvites {
    /// The ids of the room and of the user of each.
    type Output = Vec<(String, String)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let unseen = signed_invites::unseen(reader)?.into_iter();
        unseen
            .map(|(room, user)| Ok((reader.room_id(room)?.to_string(), reader.user_id(user)?.to_string())))
            .collect()
    }
}
