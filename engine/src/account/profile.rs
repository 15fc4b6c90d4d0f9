//! Profiles: a row for each field, its value as JSON. Specification: client-server API, "Profiles".

use bytes::Bytes;

use crate::{
    core::num::UserNum,
    error::Result,
    store::{Direction, Reader, StorageError, Tx, schema},
};

/// The field that names a user.
pub const DISPLAY_NAME: &str = "displayname";
/// The field with the address of a user's picture.
pub const AVATAR_URL: &str = "avatar_url";

/// Whether the field is also in the user's membership events.
pub fn is_shown_in_rooms(name: &str) -> bool {
    matches!(name, DISPLAY_NAME | AVATAR_URL)
}

/// All fields of a local user's profile with their values as JSON, by name.
pub fn get(reader: &Reader, user: UserNum) -> Result<Vec<(String, Bytes)>, StorageError> {
    let mut fields = Vec::new();
    reader.scan(
        &schema::PROFILE_FIELDS,
        &user,
        Direction::Forward,
        |(_, name): (UserNum, String), value| {
            fields.push((name, value));
            true
        },
    )?;
    Ok(fields)
}

/// One field's value as JSON.
pub fn field(reader: &Reader, user: UserNum, name: &str) -> Result<Option<Bytes>, StorageError> {
    reader.get(&schema::PROFILE_FIELDS, &(user, name.to_owned()))
}

/// A field that is a text, such as the display name; `None` also if it is something else.
pub fn text(reader: &Reader, user: UserNum, name: &str) -> Result<Option<String>, StorageError> {
    let value = field(reader, user, name)?;
    Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
}

/// Sets a field to a JSON value, or removes it.
pub(crate) fn set(tx: &mut Tx, user: UserNum, name: &str, value: Option<&Bytes>) {
    let key = (user, name.to_owned());
    match value {
        Some(value) => tx.put(&schema::PROFILE_FIELDS, &key, value),
        None => tx.delete(&schema::PROFILE_FIELDS, &key),
    }
}

/// Sets a field to a text.
pub(crate) fn set_text(tx: &mut Tx, user: UserNum, name: &str, text: &str) {
    let value = serde_json::Value::from(text).to_string();
    set(tx, user, name, Some(&value.into()));
}

/// Removes all fields.
pub(crate) fn clear(tx: &mut Tx, user: UserNum) -> Result<()> {
    tx.delete_prefix(&schema::PROFILE_FIELDS, &user);
    Ok(())
}
