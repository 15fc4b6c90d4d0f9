//! Key backups: versions, and the encrypted sessions in them.
//!
//! Invariant: only the newest version that is not deleted takes sessions; `count` is the number of its rows, `etag`
//! grows with every change of them. All writes happen under the user's lane.
//! Specification: "Server-side key backups".

use bytes::Bytes;
use serde::Deserialize;

use super::{KEY_NAME_BYTES_MAX, parameter};
use crate::{
    core::{
        event::JsonObject,
        identifiers,
        json::{self, Strictness},
        num::UserNum,
    },
    error::{Conflict, Error, Invalid, Result, What},
    store::{Direction, Reader, StorageError, Tx, schema, schema::KeyBackup},
};

/// The most bytes of one session's key data; about 800 are used today.
pub const SESSION_BYTES_MAX: usize = 32 * 1024;

/// The most bytes of `auth_data`: a public key, and signatures by the user's devices.
pub const AUTH_DATA_BYTES_MAX: usize = 64 * 1024;

/// Starts a new version, to which all sessions go from now on. `auth_data` is a JSON object, kept as it is.
pub fn create(tx: &mut Tx, user: UserNum, algorithm: &str, auth_data: &[u8]) -> Result<u64> {
    if algorithm.len() > KEY_NAME_BYTES_MAX {
        return Err(parameter("algorithm", "the name is too long"));
    }
    let mut last = 0;
    tx.scan(&schema::KEY_BACKUPS, &user, Direction::Backward, |(_, version), _| {
        last = version;
        false
    })?;
    let backup = KeyBackup {
        algorithm: algorithm.to_owned(),
        auth_data: within("auth_data", auth_data.to_vec(), AUTH_DATA_BYTES_MAX)?,
        count: 0,
        etag: 0,
        deleted: false,
    };
    tx.put(&schema::KEY_BACKUPS, &(user, last + 1), &backup);
    Ok(last + 1)
}

/// Refuses what is too large.
fn within(what: &'static str, bytes: Vec<u8>, max: usize) -> Result<Vec<u8>> {
    if bytes.len() > max { Err(Invalid::TooLarge { what, max }.into()) } else { Ok(bytes) }
}

/// A session's key data as it is stored. It is signed by nobody, so that any number may stand in it.
fn written(data: &JsonObject) -> Result<Bytes> {
    for value in data.values() {
        json::check(value, Strictness::Lenient, 1)
            .map_err(|error| parameter("sessions", error.to_string()))?;
    }
    let mut bytes = Vec::with_capacity(1024);
    json::write_object(&mut bytes, data);
    Ok(within("bytes of a session", bytes, SESSION_BYTES_MAX)?.into())
}

/// The newest version that is not deleted.
pub fn latest(reader: &Reader, user: UserNum) -> Result<Option<(u64, KeyBackup)>, StorageError> {
    let mut found = None;
    reader.scan(&schema::KEY_BACKUPS, &user, Direction::Backward, |(_, version), backup| {
        found = (!backup.deleted).then_some((version, backup));
        found.is_none()
    })?;
    Ok(found)
}

/// A version by its number as clients write it.
///
/// Errors: [`What::KeyBackup`] if it never was or is deleted.
pub fn version(reader: &Reader, user: UserNum, version: &str) -> Result<(u64, KeyBackup)> {
    let (version, backup) = even_deleted(reader, user, version)?;
    if backup.deleted { Err(Error::NotFound(What::KeyBackup)) } else { Ok((version, backup)) }
}

fn even_deleted(reader: &Reader, user: UserNum, version: &str) -> Result<(u64, KeyBackup)> {
    let missing = Error::NotFound(What::KeyBackup);
    let Ok(version) = version.parse() else { return Err(missing) };
    reader.get(&schema::KEY_BACKUPS, &(user, version))?.map(|backup| (version, backup)).ok_or(missing)
}

/// Replaces `auth_data`.
///
/// Errors: no such version, another algorithm.
pub fn update(tx: &mut Tx, user: UserNum, given: &str, algorithm: &str, auth_data: &[u8]) -> Result<()> {
    let (version, mut backup) = version(tx, user, given)?;
    if backup.algorithm != algorithm {
        return Err(parameter("algorithm", "does not match that of the backup"));
    }
    backup.auth_data = within("auth_data", auth_data.to_vec(), AUTH_DATA_BYTES_MAX)?;
    tx.put(&schema::KEY_BACKUPS, &(user, version), &backup);
    Ok(())
}

/// Deletes a version with all its sessions. No error if it is deleted already.
pub fn delete(tx: &mut Tx, user: UserNum, given: &str) -> Result<()> {
    let (version, backup) = even_deleted(tx, user, given)?;
    if backup.deleted {
        return Ok(());
    }
    let gone = KeyBackup { auth_data: Vec::new(), count: 0, deleted: true, ..backup };
    tx.put(&schema::KEY_BACKUPS, &(user, version), &gone);
    tx.delete_prefix(&schema::BACKED_UP_KEYS, &(user, version));
    Ok(())
}

/// Removes all versions with all their sessions, and that there ever were any: of an account that makes none any more.
pub fn clear(tx: &mut Tx, user: UserNum) {
    tx.delete_prefix(&schema::KEY_BACKUPS, &user);
    tx.delete_prefix(&schema::BACKED_UP_KEYS, &user);
}

/// What decides between two keys of one session.
#[derive(Deserialize)]
struct Quality {
    is_verified: bool,
    first_message_index: u64,
    forwarded_count: u64,
}

impl Quality {
    /// Whether a key of this quality takes the place of one of that quality.
    fn replaces(&self, old: &Quality) -> bool {
        if self.is_verified != old.is_verified {
            return self.is_verified;
        }
        if self.first_message_index != old.first_message_index {
            return self.first_message_index < old.first_message_index;
        }
        self.forwarded_count < old.forwarded_count
    }
}

/// A session to store: the room's id, the session's id, the key data.
pub type Session = (String, String, JsonObject);

fn session_key(room_id: &str, session_id: &str) -> String {
    format!("{room_id}\0{session_id}")
}

/// Stores sessions in the newest version, which `given` must be. Of two keys of one session the better one is kept.
///
/// Errors: [`Conflict::BackupVersion`] if another version is the newest; no such version; malformed or too large data.
/// Nothing is stored then.
pub fn put(tx: &mut Tx, user: UserNum, given: &str, sessions: &[Session]) -> Result<KeyBackup> {
    let (newest, mut backup) = latest(tx, user)?.ok_or(Error::NotFound(What::KeyBackup))?;
    let (asked, _) = version(tx, user, given)?;
    if asked != newest {
        return Err(Conflict::BackupVersion { current: newest.to_string() }.into());
    }
    let mut news = false;
    for (room_id, session_id, data) in sessions {
        if !identifiers::is_room_id(room_id) {
            return Err(parameter("rooms", format!("{room_id} is not a room id")));
        }
        if session_id.is_empty() || session_id.len() > KEY_NAME_BYTES_MAX {
            return Err(parameter("sessions", "a session id is empty or too long"));
        }
        if !data.get("session_data").is_some_and(|data| data.is_object()) {
            return Err(parameter("sessions", "session_data must be an object"));
        }
        let bytes = written(data)?;
        let quality: Quality =
            serde_json::from_slice(&bytes).map_err(|error| parameter("sessions", error.to_string()))?;
        let row = (user, newest, session_key(room_id, session_id));
        match tx.get(&schema::BACKED_UP_KEYS, &row)? {
            Some(known) => {
                let known: Quality = serde_json::from_slice(&known)
                    .map_err(|error| StorageError::Corrupt(format!("a backed-up session: {error}")))?;
                if !quality.replaces(&known) {
                    continue;
                }
            }
            None => backup.count += 1,
        }
        tx.put(&schema::BACKED_UP_KEYS, &row, &bytes);
        news = true;
    }
    if news {
        backup.etag += 1;
        tx.put(&schema::KEY_BACKUPS, &(user, newest), &backup);
    }
    Ok(backup)
}

/// Which sessions of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those of a room.
    Room(String),
    /// One, by room and session id.
    Session(String, String),
}

impl Selection {
    /// What the rows' last key part begins with.
    fn prefix(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Room(room_id) => session_key(room_id, ""),
            Self::Session(room_id, session_id) => session_key(room_id, session_id),
        }
    }
}

/// Sessions of a version: room id, session id, key data; those of one room together. O(result).
pub fn select(
    reader: &Reader,
    user: UserNum,
    version: u64,
    selection: &Selection,
) -> Result<Vec<(String, String, Bytes)>, StorageError> {
    let mut found = Vec::new();
    if let Selection::Session(room_id, session_id) = selection {
        let data = reader.get(&schema::BACKED_UP_KEYS, &(user, version, selection.prefix()))?;
        found.extend(data.map(|data| (room_id.clone(), session_id.clone(), data)));
        return Ok(found);
    }
    let prefix = (user, version, selection.prefix());
    reader.scan(&schema::BACKED_UP_KEYS, &prefix, Direction::Forward, |(_, _, name), data| {
        if let Some((room_id, session_id)) = name.split_once('\0') {
            found.push((room_id.to_owned(), session_id.to_owned(), data));
        }
        true
    })?;
    Ok(found)
}

/// Removes sessions from a version. O(sessions removed).
pub fn delete_sessions(tx: &mut Tx, user: UserNum, given: &str, selection: &Selection) -> Result<KeyBackup> {
    let (version, mut backup) = version(tx, user, given)?;
    let removed = match selection {
        Selection::All => backup.count,
        _ => select(tx, user, version, selection)?.len() as u64,
    };
    if removed == 0 {
        return Ok(backup);
    }
    match selection {
        Selection::Session(..) => tx.delete(&schema::BACKED_UP_KEYS, &(user, version, selection.prefix())),
        _ => tx.delete_prefix(&schema::BACKED_UP_KEYS, &(user, version, selection.prefix())),
    }
    backup.count = backup.count.saturating_sub(removed);
    backup.etag += 1;
    tx.put(&schema::KEY_BACKUPS, &(user, version), &backup);
    Ok(backup)
}
