//! What a key backup is, and what is in it.

use bytes::Bytes;

use super::View;
use crate::{
    core::json::write_string,
    core::num::UserNum,
    device::key_backup::{self, Selection},
    error::{Error, Result, What},
    store::{Reader, schema::KeyBackup},
};

fn user_num(reader: &Reader, user_id: &str) -> Result<UserNum> {
    reader.user_num(user_id)?.ok_or(Error::NotFound(What::User))
}

/// `GET /room_keys/version` and `GET /room_keys/version/{version}`.
pub struct KeyBackupVersion {
    /// Whose backup.
    pub user_id: String,
    /// Which version; `None` for the newest.
    pub version: Option<String>,
}

impl View for KeyBackupVersion {
    /// The version, and what it is.
    type Output = (u64, KeyBackup);

    fn read(&self, reader: &Reader) -> Result<(u64, KeyBackup)> {
        let user = user_num(reader, &self.user_id)?;
        match &self.version {
            Some(version) => key_backup::version(reader, user, version),
            None => key_backup::latest(reader, user)?.ok_or(Error::NotFound(What::KeyBackup)),
        }
    }
}

/// `GET /room_keys/keys` and its variants for a room and a session.
pub struct BackupKeys {
    /// Whose backup.
    pub user_id: String,
    /// Which version.
    pub version: String,
    /// Which sessions.
    pub selection: Selection,
}

impl View for BackupKeys {
    /// The answer's body as JSON: in the form of all rooms, of a room, or of the one session.
    type Output = Bytes;

    /// Errors: no such version; the one session is not there.
    fn read(&self, reader: &Reader) -> Result<Bytes> {
        let user = user_num(reader, &self.user_id)?;
        let (version, _) = key_backup::version(reader, user, &self.version)?;
        let found = key_backup::select(reader, user, version, &self.selection)?;
        let mut out = Vec::with_capacity(64 + found.iter().map(|(.., data)| data.len() + 128).sum::<usize>());
        match self.selection {
            Selection::Session(..) => {
                let (.., data) = found.into_iter().next().ok_or(Error::NotFound(What::KeyBackup))?;
                return Ok(data);
            }
            Selection::Room(_) => write_sessions(&mut out, &found),
            Selection::All => {
                out.extend_from_slice(b"{\"rooms\":{");
                for (index, sessions) in found.chunk_by(|a, b| a.0 == b.0).enumerate() {
                    let Some((room_id, ..)) = sessions.first() else { continue };
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(&mut out, room_id);
                    out.push(b':');
                    write_sessions(&mut out, sessions);
                }
                out.extend_from_slice(b"}}");
            }
        }
        Ok(out.into())
    }
}

fn write_sessions(out: &mut Vec<u8>, sessions: &[(String, String, Bytes)]) {
    out.extend_from_slice(b"{\"sessions\":{");
    for (index, (_, session_id, data)) in sessions.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, session_id);
        out.push(b':');
        out.extend_from_slice(data);
    }
    out.extend_from_slice(b"}}");
}
