//! Reads of what users show and keep: profiles, account data, tags, filters, and the rooms that they are in.

use bytes::Bytes;

use crate::{
    account::{account_data, filters, profile, push_rules, users},
    core::num::UserNum,
    error::{Error, Result, What},
    store::{Reader, schema::Membership},
    view::View,
};

/// All fields of a user's profile, with their values as JSON. Errors: [`What::User`] not found.
pub struct Profile<'a>(
    /// The user's id.
    pub &'a str,
);

impl View for Profile<'_> {
    type Output = Vec<(String, Bytes)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        Ok(profile::get(reader, with_account(reader, self.0)?)?)
    }
}

/// One field of a user's profile as JSON. Errors: [`What::User`] or [`What::ProfileField`] not found.
pub struct ProfileField<'a> {
    /// The user's id.
    pub user_id: &'a str,
    /// The field's name.
    pub name: &'a str,
}

impl View for ProfileField<'_> {
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        let user = with_account(reader, self.user_id)?;
        profile::field(reader, user, self.name)?.ok_or(Error::NotFound(What::ProfileField))
    }
}

fn with_account(reader: &Reader, user_id: &str) -> Result<UserNum> {
    Ok(users::find(reader, user_id)?.ok_or(Error::NotFound(What::User))?.0)
}

/// A user's account data of one type. Errors: [`What::AccountData`] not found.
pub struct AccountData<'a> {
    /// The user.
    pub user: UserNum,
    /// The room that it is about; `None` for everywhere.
    pub room_id: Option<&'a str>,
    /// The type.
    pub kind: &'a str,
}

impl View for AccountData<'_> {
    /// The content as JSON.
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        if self.room_id.is_none() && self.kind == push_rules::ACCOUNT_DATA_TYPE {
            // Everybody has them, also who never changed any.
            return Ok(push_rules::content(reader, self.user)?);
        }
        let missing = Error::NotFound(What::AccountData);
        let room = match self.room_id {
            None => None,
            Some(room_id) => match reader.room_num(room_id)? {
                Some(room) => Some(room),
                None => return Err(missing),
            },
        };
        account_data::get(reader, self.user, room, self.kind)?.ok_or(missing)
    }
}

/// A filter that a user has stored. Errors: [`What::Filter`] not found.
pub struct StoredFilter<'a> {
    /// The user.
    pub user: UserNum,
    /// The filter's id.
    pub id: &'a str,
}

impl View for StoredFilter<'_> {
    /// The JSON as the client wrote it.
    type Output = Bytes;

    fn read(&self, reader: &Reader) -> Result<Bytes> {
        filters::get(reader, self.user, self.id)?.ok_or(Error::NotFound(What::Filter))
    }
}

/// The ids of the rooms in which a user has one of some memberships. O(the user's rooms).
pub struct RoomsOf<'a> {
    /// The user's id.
    pub user_id: &'a str,
    /// The memberships.
    pub memberships: &'a [Membership],
}

impl View for RoomsOf<'_> {
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let Some(user) = reader.user_num(self.user_id)? else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for (room, row) in reader.user_rooms(user)? {
            if self.memberships.contains(&row.value.membership) {
                ids.push(reader.room_id(room)?.to_string());
            }
        }
        Ok(ids)
    }
}
