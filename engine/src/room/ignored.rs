//! Whom users ignore.
//!
//! Specification: client-server API, "Ignoring Users".

use std::{collections::HashSet, sync::Arc};

use crate::{
    account::account_data,
    core::num::{StreamPos, UserNum},
    store::{Cache, InternedKind, Reader, StorageError},
};

/// Bytes for what is remembered: some ten thousand users who sync. One shard of the cache, a sixteenth of it, has a place for
/// the longest list that fits into a request.
const BYTES_MAX: usize = 16 << 20;
/// What remembering one user's list costs, besides whom it names.
const LIST_BYTES: usize = 128;
/// And for each who has a number.
const USER_BYTES: usize = 16;

/// What is remembered between reads.
pub(crate) struct Memo(Cache<UserNum, Remembered>);

impl Default for Memo {
    fn default() -> Self {
        Self(Cache::new(BYTES_MAX))
    }
}

struct Remembered {
    as_of: StreamPos,
    /// How many users had a number.
    users_known: u64,
    users: Arc<IgnoredUsers>,
}

/// The users of whom another wants to see nothing.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct IgnoredUsers {
    known: HashSet<UserNum>,
    /// Of whom nothing is known here yet: they may still be invited by them.
    others: HashSet<Box<str>>,
}

impl IgnoredUsers {
    /// Whether nobody is ignored of whom there could be events here.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether a user who is known here is ignored.
    pub fn contains(&self, user: UserNum) -> bool {
        self.known.contains(&user)
    }

    /// Whether anybody is.
    pub fn contains_id(&self, reader: &Reader, user_id: &str) -> Result<bool, StorageError> {
        let known = match self.known.is_empty() {
            true => None,
            false => reader.user_num(user_id)?,
        };
        Ok(known.is_some_and(|user| self.contains(user)) || self.others.contains(user_id))
    }

    /// What remembering them costs, in bytes.
    fn weight(&self) -> usize {
        let others: usize = self.others.iter().map(|user_id| user_id.len() + USER_BYTES).sum();
        LIST_BYTES + USER_BYTES * self.known.len() + others
    }
}

/// The users whom `user` ignores. O(1) unless there is news of the user.
pub(crate) fn by(reader: &Reader, user: UserNum) -> Result<Arc<IgnoredUsers>, StorageError> {
    let memo = &reader.shared.memo.ignored.0;
    // What is only staged is nobody's news yet.
    let is_published = reader.pos < StreamPos::MAX;
    // Before the names are looked for: who comes meanwhile is looked for again.
    let users_known = reader.shared.interner.given(InternedKind::User);
    if is_published
        && let Some(remembered) = memo.get(&user)
        && reader.shared.watch.is_current(user, remembered.as_of.min(reader.pos))
        && (remembered.users.others.is_empty() || remembered.users_known == users_known)
    {
        return Ok(remembered.users.clone());
    }
    let mut users = Arc::new(read(reader, user)?);
    // The same list is there once: counts of unread messages hold on to it.
    if let Some(remembered) = memo.get(&user).filter(|remembered| remembered.users == users) {
        users = remembered.users.clone();
    }
    if is_published {
        let remembered = Remembered { as_of: reader.pos, users_known, users: users.clone() };
        memo.replace(user, Arc::new(remembered), users.weight());
    }
    Ok(users)
}

fn read(reader: &Reader, user: UserNum) -> Result<IgnoredUsers, StorageError> {
    let mut users = IgnoredUsers::default();
    if let Some(content) = account_data::get(reader, user, None, "m.ignored_user_list")?
        // Clients may store what they like: a list that cannot be read ignores nobody.
        && let Ok(list) = serde_json::from_slice::<serde_json::Value>(&content)
        && let Some(list) = list.get("ignored_users").and_then(serde_json::Value::as_object)
    {
        for user_id in list.keys() {
            match reader.user_num(user_id)? {
                Some(known) => users.known.insert(known),
                None => users.others.insert(user_id.as_str().into()),
            };
        }
    }
    Ok(users)
}
