//! Writes to a user's key backups: five small commands on the same rows.

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    core::num::UserNum,
    device::key_backup::{self, Selection, Session},
    error::{Error, Result, What},
    store::{Tx, schema::KeyBackup},
};

/// The most bytes of sessions in one batch: larger uploads are several, each whole by itself. A session stands alone,
/// so that nothing is lost if only some of the batches are written; the client sends all of them again.
const BATCH_BYTES_MAX: usize = 2 << 20;

fn user_num(tx: &Tx, user_id: &str) -> Result<UserNum> {
    tx.user_num(user_id)?.ok_or(Error::NotFound(What::User))
}

/// `POST /room_keys/version`.
pub struct CreateKeyBackup {
    /// Whose backup.
    pub user_id: String,
    /// How keys will be encrypted.
    pub algorithm: String,
    /// What the algorithm needs: a JSON object.
    pub auth_data: Bytes,
}

impl Command for CreateKeyBackup {
    /// The version.
    type Output = u64;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<u64> {
        let user = user_num(tx, &self.user_id)?;
        key_backup::create(tx, user, &self.algorithm, &self.auth_data)
    }
}

/// `PUT /room_keys/version/{version}`.
pub struct UpdateKeyBackup {
    /// Whose backup.
    pub user_id: String,
    /// Which version.
    pub version: String,
    /// The algorithm, which must be the version's.
    pub algorithm: String,
    /// What replaces `auth_data`: a JSON object.
    pub auth_data: Bytes,
}

impl Command for UpdateKeyBackup {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = user_num(tx, &self.user_id)?;
        key_backup::update(tx, user, &self.version, &self.algorithm, &self.auth_data)
    }
}

/// `DELETE /room_keys/version/{version}`.
pub struct DeleteKeyBackup {
    /// Whose backup.
    pub user_id: String,
    /// Which version.
    pub version: String,
}

impl Command for DeleteKeyBackup {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = user_num(tx, &self.user_id)?;
        key_backup::delete(tx, user, &self.version)
    }
}

/// `PUT /room_keys/keys` and its variants for a room and a session.
pub struct PutBackupKeys {
    /// Whose backup.
    pub user_id: String,
    /// Which version; must be the newest.
    pub version: String,
    /// The sessions.
    pub sessions: Vec<Session>,
}

impl PutBackupKeys {
    /// The same upload as commands that each fit into a batch; at least one.
    ///
    /// `bytes` is the size of the request that the sessions came in, which is shared out evenly.
    pub fn in_batches(self, bytes: usize) -> Vec<PutBackupKeys> {
        let Self { user_id, version, mut sessions } = self;
        let batches = bytes.div_ceil(BATCH_BYTES_MAX).max(1);
        let per_batch = sessions.len().div_ceil(batches).max(1);
        let mut commands = Vec::with_capacity(batches);
        loop {
            let rest = sessions.split_off(per_batch.min(sessions.len()));
            commands.push(Self { user_id: user_id.clone(), version: version.clone(), sessions });
            if rest.is_empty() {
                return commands;
            }
            sessions = rest;
        }
    }
}

impl Command for PutBackupKeys {
    /// The backup afterwards.
    type Output = KeyBackup;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<KeyBackup> {
        let user = user_num(tx, &self.user_id)?;
        key_backup::put(tx, user, &self.version, &self.sessions)
    }
}

/// `DELETE /room_keys/keys` and its variants for a room and a session.
pub struct DeleteBackupKeys {
    /// Whose backup.
    pub user_id: String,
    /// Which version.
    pub version: String,
    /// Which sessions.
    pub selection: Selection,
}

impl Command for DeleteBackupKeys {
    /// The backup afterwards.
    type Output = KeyBackup;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<KeyBackup> {
        let user = user_num(tx, &self.user_id)?;
        key_backup::delete_sessions(tx, user, &self.version, &self.selection)
    }
}
