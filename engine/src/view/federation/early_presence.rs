//! Whose presence was told before it was known that they share a room with this server, once it is.

use crate::{error::Result, store::Reader, stream::EarlyPresence, view::View};

/// Takes what other servers told of users who share a room with this one by now, for [`crate::command::SettlePresence`]. To be
/// asked every few seconds. O(users of whom something is kept, and their rooms).
pub struct TakeEarlyPresence;

impl View for TakeEarlyPresence {
    type Output = Vec<EarlyPresence>;

    fn read(&self, reader: &Reader) -> Result<Vec<EarlyPresence>> {
        let early = &reader.shared.watch.early_presences;
        let mut due = Vec::new();
        for (server, user_id) in early.kept(reader.shared.clock.now_ms()) {
            let Some(user) = reader.user_num(&user_id)? else { continue };
            if reader.is_neighbour(user, None)? {
                due.push((server, user_id));
            }
        }
        // Only now, when no look into the store can fail any more: what is taken is kept nowhere else.
        Ok(due.iter().filter_map(|(server, user_id)| early.take(server, user_id)).collect())
    }
}
