//! Who asked that what they sent be forgotten, and when. In memory, as it is looked up for each event that somebody is shown.
//!
//! Invariant: once an erasure is published, whoever reads finds it here. None ever ends.
//! Not here: what others are shown then (`room::visibility` for users, `room::peer` for servers).
//! Specification: client-server API, `POST /_matrix/client/v3/account/deactivate`, `erase`.

use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;

use crate::{
    core::num::{StreamPos, UserNum},
    store::{Direction, NumberHash, Reader, StorageError, Tx, schema},
    stream::Touch,
};

/// All erasures: sixteen bytes each, of accounts that are closed for ever.
#[derive(Default)]
pub(crate) struct Erasures {
    /// Where nobody ever asked for one, nothing else is looked at.
    any: AtomicBool,
    users: DashMap<UserNum, StreamPos, NumberHash>,
}

impl Erasures {
    /// Behind which position lies what happened after the user had asked to be forgotten; nothing for who has not.
    pub fn of(&self, user: UserNum) -> Option<StreamPos> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.users.get(&user).map(|pos| *pos)
    }

    /// Takes in what is stored. To be called before anybody is shown anything. O(erasures).
    pub fn load(&self, reader: &Reader) -> Result<(), StorageError> {
        reader.scan(&schema::ERASURES, &(), Direction::Forward, |user: UserNum, pos| {
            self.insert(user, pos);
            true
        })
    }

    /// Takes in those of a batch; `pos` is its last position. To be called before it is published.
    pub fn note(&self, pos: StreamPos, touches: &[Touch]) {
        for touch in touches {
            if let Touch::Erased(user) = touch {
                self.insert(*user, pos);
            }
        }
    }

    fn insert(&self, user: UserNum, pos: StreamPos) {
        self.users.insert(user, pos);
        self.any.store(true, Ordering::Release);
    }
}

/// Notes that the user asks now for what they sent to be forgotten, unless they have before.
pub(crate) fn add(tx: &mut Tx, user: UserNum) -> Result<(), StorageError> {
    if !tx.has(&schema::ERASURES, &user)? {
        let pos = tx.next_position();
        tx.put(&schema::ERASURES, &user, &pos);
        tx.touch(Touch::Erased(user));
    }
    Ok(())
}
