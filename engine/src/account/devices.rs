//! Devices as their user sees them: names, when they were last seen. Their keys are kept elsewhere.

use super::{sessions, users};
use crate::{
    core::num::UserNum,
    error::Result,
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{DeviceRow, Sighting},
    },
};

/// A device as its user is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub device_id: String,
    /// What the user calls it.
    pub display_name: Option<String>,
    /// When and from where it was last seen.
    pub seen: Option<Sighting>,
}

/// One device of a user.
pub fn device(reader: &Reader, user: UserNum, device_id: &str) -> Result<Option<Device>, StorageError> {
    let row = reader.get(&schema::DEVICES, &(user, device_id.to_owned()))?;
    row.map(|row| with_sighting(reader, user, device_id.to_owned(), row)).transpose()
}

/// All devices of a user, by id.
pub fn devices(reader: &Reader, user: UserNum) -> Result<Vec<Device>, StorageError> {
    let rows = rows(reader, user)?.into_iter();
    rows.map(|(device_id, row)| with_sighting(reader, user, device_id, row)).collect()
}

/// The ids of a user's devices.
pub fn device_ids(reader: &Reader, user: UserNum) -> Result<Vec<String>, StorageError> {
    Ok(rows(reader, user)?.into_iter().map(|(device_id, _)| device_id).collect())
}

fn rows(reader: &Reader, user: UserNum) -> Result<Vec<(String, DeviceRow)>, StorageError> {
    let mut rows = Vec::new();
    reader.scan(&schema::DEVICES, &user, Direction::Forward, |(_, device_id): (UserNum, String), row| {
        rows.push((device_id, row));
        true
    })?;
    Ok(rows)
}

fn with_sighting(
    reader: &Reader,
    user: UserNum,
    device_id: String,
    row: DeviceRow,
) -> Result<Device, StorageError> {
    let seen = reader.get(&schema::DEVICE_SIGHTINGS, &(user, device_id.clone()))?;
    Ok(Device { device_id, display_name: row.display_name, seen })
}

/// Names a device; whether there is such a device.
pub(crate) fn rename(tx: &mut Tx, user: UserNum, device_id: &str, name: Option<&str>) -> Result<bool> {
    let key = (user, device_id.to_owned());
    let Some(mut row) = tx.get(&schema::DEVICES, &key)? else { return Ok(false) };
    row.display_name = name.map(str::to_owned);
    tx.put(&schema::DEVICES, &key, &row);
    Ok(true)
}

/// Removes a device and ends its tokens; whether there was such a device.
pub(crate) fn remove(tx: &mut Tx, user: UserNum, device_id: &str) -> Result<bool> {
    let key = (user, device_id.to_owned());
    let Some(mut row) = tx.get(&schema::DEVICES, &key)? else { return Ok(false) };
    sessions::end_tokens(tx, user, &mut row);
    tx.delete(&schema::DEVICES, &key);
    tx.delete(&schema::DEVICE_SIGHTINGS, &key);
    users::sessions_changed(tx, user);
    Ok(true)
}

/// Notes when and from where a device was seen.
pub(crate) fn note_seen(tx: &mut Tx, user: UserNum, device_id: &str, sighting: &Sighting) {
    tx.put(&schema::DEVICE_SIGHTINGS, &(user, device_id.to_owned()), sighting);
}
