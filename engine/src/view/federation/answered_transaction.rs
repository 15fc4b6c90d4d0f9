//! Whether a server's transaction was answered before, and how; and whose devices are to be asked for.

use bytes::Bytes;

use crate::{
    core::num::UserNum,
    error::Result,
    store::{Direction, Reader, schema},
    view::View,
};

/// The answer to a transaction that has come before.
pub struct AnsweredTransaction<'a> {
    /// The server.
    pub origin: &'a str,
    /// The transaction's id.
    pub transaction_id: &'a str,
}

impl View for AnsweredTransaction<'_> {
    /// The body; `None` if it is new, or so old that it is forgotten.
    type Output = Option<Bytes>;

    fn read(&self, reader: &Reader) -> Result<Option<Bytes>> {
        let Some(origin) = reader.text_num(self.origin)? else { return Ok(None) };
        let row = reader.get(&schema::RECEIVED_TRANSACTIONS, &(origin, self.transaction_id.to_owned()))?;
        Ok(row.map(|row| row.answer.into()))
    }
}

/// Users of other servers who share a room with this one, and of whose devices something was missed. O(users followed).
pub struct StaleDeviceLists {
    /// How many at most.
    pub limit: usize,
}

impl View for StaleDeviceLists {
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        let mut stale: Vec<UserNum> = Vec::new();
        reader.scan(&schema::REMOTE_DEVICE_LISTS, &(), Direction::Forward, |user, list| {
            if list.is_stale {
                stale.push(user);
            }
            true
        })?;
        let mut users = Vec::new();
        for user in stale {
            if users.len() < self.limit && !reader.joined_rooms(user)?.is_empty() {
                users.push(reader.user_id(user)?.to_string());
            }
        }
        Ok(users)
    }
}
