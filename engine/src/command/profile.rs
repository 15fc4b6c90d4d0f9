//! A user changes their profile, and the rooms that they are in learn of it one by one.
//!
//! Invariant: what the rooms show of a profile changes with a mark in each of them, which goes with what tells the room: what a
//! restart interrupts, or a room cannot be told at once, is taken up again.

use bytes::Bytes;

use crate::{
    account::{profile, users},
    command::{Command, Lanes},
    core::{
        event::JsonObject,
        num::{RoomNum, UserNum},
    },
    error::{Invalid, Result},
    room::{RoomCtx, append, membership},
    store::{StorageError, Tx, schema, schema::Membership},
};

/// Bytes of a whole profile as JSON. Specification: client-server API, "Profiles".
const PROFILE_BYTES_MAX: usize = 64 * 1024;
/// What a field adds to the JSON of a profile beside its name and value: quotes, colon and comma.
const FIELD_OVERHEAD_BYTES: usize = 4;

/// Sets or removes a field of a profile.
///
/// Errors: [`What::User`](crate::What::User) not found, [`Invalid::ProfileTooLarge`].
pub struct SetProfileField {
    /// The user's id.
    pub user_id: String,
    /// The field's name.
    pub name: String,
    /// Its value as JSON; `None` removes it.
    pub value: Option<Bytes>,
}

impl Command for SetProfileField {
    /// Whether anything changed.
    type Output = bool;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<bool> {
        let (user, _) = users::active(tx, &self.user_id)?;
        let fields = profile::get(tx, user)?;
        let before = fields.iter().find(|(name, _)| *name == self.name).map(|(_, value)| value);
        if before == self.value.as_ref() {
            return Ok(false);
        }
        let others = fields.iter().filter(|(name, _)| *name != self.name);
        let new = self.value.iter().map(|value| (&self.name, value));
        let size = |(name, value): (&String, &Bytes)| name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        let bytes: usize = others.map(|(name, value)| (name, value)).chain(new).map(size).sum();
        if self.value.is_some() && bytes > PROFILE_BYTES_MAX {
            return Err(Invalid::ProfileTooLarge.into());
        }
        profile::set(tx, user, &self.name, self.value.as_ref());
        if profile::is_shown_in_rooms(&self.name) {
            mark_rooms(tx, user)?;
        }
        Ok(true)
    }
}

/// The rooms that the user is in are to be told. O(those).
fn mark_rooms(tx: &mut Tx, user: UserNum) -> Result<(), StorageError> {
    for room in tx.joined_rooms(user)? {
        tx.put(&schema::UNSHOWN_PROFILES, &(room, user), &());
    }
    Ok(())
}

/// Brings a joined user's membership event in one room into agreement with the profile.
pub struct ShowProfile {
    /// The room's id.
    pub room_id: String,
    /// The user's id.
    pub user_id: String,
}

/// What a membership event says about how the user came in, which does not hold for a later one.
const OF_ENTERING: [&str; 3] = ["join_authorised_via_users_server", "third_party_invite", "reason"];

impl Command for ShowProfile {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // The mark is the user's: a change that comes meanwhile must not lose its own.
        Lanes::default().room(&self.room_id).user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let mut room = RoomCtx::load(tx, &self.room_id)?;
        remove_mark(tx, room.num, &self.user_id)?;
        let Some(current) = room.state(tx, "m.room.member", &self.user_id)? else { return Ok(()) };
        let current = current.pdu()?;
        // The user may have left meanwhile.
        if current.membership() != Some(Membership::Join.name()) {
            return Ok(());
        }
        let content = self.content(tx, &current.content)?;
        if content == current.content {
            return Ok(());
        }
        let origin_server_ts = membership::sent_ms(tx, &room, &self.user_id)?;
        let new = membership::member_event(&self.user_id, &self.user_id, content, origin_server_ts);
        append(tx, &mut room, new)?;
        room.save(tx);
        Ok(())
    }
}

/// A room does not show a user's profile, and is not to be told of it again: it is not among
/// [`crate::view::UnshownProfiles`] any more, unless the profile has changed since.
pub struct LeaveProfileUnshown {
    /// The room's id.
    pub room_id: String,
    /// The user's id.
    pub user_id: String,
    /// The fields that the room was to be told of, as [`crate::view::Profile`] has them; others may be among them.
    pub unshown: Vec<(String, Bytes)>,
}

impl Command for LeaveProfileUnshown {
    /// Whether the profile is still that one.
    type Output = bool;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<bool> {
        let (Some(room), Some(user)) = (tx.room_num(&self.room_id)?, tx.user_num(&self.user_id)?) else {
            return Ok(true);
        };
        let is_same = in_rooms(&profile::get(tx, user)?).eq(in_rooms(&self.unshown));
        if is_same {
            remove_mark(tx, room, &self.user_id)?;
        }
        Ok(is_same)
    }
}

/// What rooms show of a profile.
fn in_rooms(fields: &[(String, Bytes)]) -> impl Iterator<Item = &(String, Bytes)> {
    fields.iter().filter(|(name, _)| profile::is_shown_in_rooms(name))
}

fn remove_mark(tx: &mut Tx, room: RoomNum, user_id: &str) -> Result<()> {
    if let Some(user) = tx.user_num(user_id)?
        && tx.has(&schema::UNSHOWN_PROFILES, &(room, user))?
    {
        tx.delete(&schema::UNSHOWN_PROFILES, &(room, user));
    }
    Ok(())
}

impl ShowProfile {
    /// As it was, with the profile of now.
    fn content(&self, tx: &Tx, current: &JsonObject) -> Result<JsonObject> {
        let mut content = current.clone();
        for name in [profile::DISPLAY_NAME, profile::AVATAR_URL].iter().chain(&OF_ENTERING) {
            content.remove(*name);
        }
        content.extend(membership::content(tx, &self.user_id, Membership::Join, None)?);
        Ok(content)
    }
}
