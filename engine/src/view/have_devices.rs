//! Whose devices this server can know at all.

use super::View;
use crate::{
    error::Result,
    store::{Reader, schema},
};

/// Which of some users can have devices that are known here: those who have an account, and those of other servers who share a
/// room with this one. It costs nobody but who asks, so that a write need not hold the lanes of users that are made up.
pub struct HaveDevices<'a>(
    /// The users, by their ids.
    pub Vec<&'a str>,
);

impl View for HaveDevices<'_> {
    /// For each of them, in their order.
    type Output = Vec<bool>;

    fn read(&self, reader: &Reader) -> Result<Vec<bool>> {
        self.0
            .iter()
            .map(|user_id| {
                let Some(user) = reader.user_num(user_id)? else { return Ok(false) };
                Ok(reader.has(&schema::ACCOUNTS, &user)? || reader.is_neighbour(user, None)?)
            })
            .collect()
    }
}
