//! What was begun in rooms and is taken up again: after a restart, and where it could not be done at once.

use std::sync::Arc;

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
/// neither them nor the room, nor are banned: so many as can be shown at once. By default the first; the answer has the view of those
/// behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverdueInvites {
    after: Option<(RoomNum, UserNum)>,
}

/// What [`OverdueInvites`] answers.
#[derive(Clone, Debug)]
pub struct SomeOverdueInvites {
    /// They.
    pub invites: Vec<OverdueInvite>,
    /// Those behind them, or the first again if these were the last.
    pub next: OverdueInvites,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct OverdueInvite {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
    /// Who invites them.
    pub sender: Arc<str>,
}

impl View for OverdueInvites {
    type Output = SomeOverdueInvites;

    fn read(&self, reader: &Reader) -> Result<SomeOverdueInvites> {
        let unseen = signed_invites::unseen(reader, self.after)?;
        let mut invites = Vec::new();
        for (room, user, sender) in unseen.invites {
            if let (Ok(room_id), Ok(user_id)) = (reader.room_id(room), reader.user_id(user)) {
                let (room_id, user_id) = (room_id.to_string(), user_id.to_string());
                invites.push(OverdueInvite { room_id, user_id, sender });
            }
        }
        Ok(SomeOverdueInvites { invites, next: OverdueInvites { after: unseen.last } })
    }
}
