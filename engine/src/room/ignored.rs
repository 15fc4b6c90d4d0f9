//! Whom users ignore.
//!
//! Specification: client-server API, "Ignoring Users".

use std::{collections::HashSet, sync::Arc};

use serde_json::{Map, Value};

use crate::{
    account::account_data,
    core::num::{StreamPos, UserNum},
    error::{Invalid, Result},
    store::{Cache, InternedKind, Reader, StorageError},
};

/// The type of account data that lists them.
pub(crate) const IGNORED_USER_LIST: &str = "m.ignored_user_list";

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
    /// How many users had come to be known.
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
    let users_known = reader.shared.interner.settled(InternedKind::User);
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
    let content = account_data::get(reader, user, None, IGNORED_USER_LIST)?;
    for user_id in content.iter().flat_map(|content| named(content)).map(|(user_id, _)| user_id) {
        match reader.user_num(&user_id)? {
            // Lists from before that was refused.
            Some(known) if known == user => false,
            Some(known) => users.known.insert(known),
            None => users.others.insert(user_id.into()),
        };
    }
    Ok(users)
}

/// Whom a list names. Clients may store what they like: a list that cannot be read ignores nobody.
fn named(content: &[u8]) -> Map<String, Value> {
    let content = serde_json::from_slice::<Map<String, Value>>(content).ok();
    match content.and_then(|mut content| content.remove("ignored_users")) {
        Some(Value::Object(users)) => users,
        _ => Map::new(),
    }
}

/// Nobody ignores themselves: what they say would not reach their own devices.
pub(crate) fn check(user_id: &str, content: &[u8]) -> Result<()> {
    match named(content).contains_key(user_id) {
        true => {
            let why = "nobody can ignore themselves".to_owned();
            Err(Invalid::Parameter { what: "ignored_users", why }.into())
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{fixture::World, stream};

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:here.example";

    #[test]
    fn nobody_is_hidden_from_themselves() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.join(ROOM, BOB);
        let list = json!({"ignored_users": {ALICE: {}, BOB: {}}}).to_string();
        assert!(check(ALICE, list.as_bytes()).is_err());
        check("@carol:here.example", list.as_bytes()).unwrap();
        // One that was stored before.
        world
            .act(|tx| {
                let alice = tx.user_num(ALICE)?.unwrap();
                Ok(account_data::set(tx, alice, None, IGNORED_USER_LIST, &list.clone().into())?)
            })
            .unwrap();
        let ignored = world.ask(|reader| {
            let (alice, bob) = (reader.user_num(ALICE)?.unwrap(), reader.user_num(BOB)?.unwrap());
            let ignored = by(reader, alice)?;
            Ok((ignored.contains(alice), ignored.contains(bob)))
        });
        assert_eq!(ignored, (false, true));
    }

    #[test]
    fn who_comes_to_be_known_is_ignored_from_then_on() {
        const CAROL: &str = "@carol:here.example";
        let world = World::new();
        world.room(ROOM, ALICE, None);
        let list = json!({"ignored_users": {CAROL: {}}}).to_string();
        world
            .act(|tx| {
                let alice = tx.user_num(ALICE)?.unwrap();
                Ok(account_data::set(tx, alice, None, IGNORED_USER_LIST, &list.clone().into())?)
            })
            .unwrap();
        let is_ignored = || {
            world.ask(|reader| {
                let alice = reader.user_num(ALICE)?.unwrap();
                stream::activate(reader, alice)?;
                let ignored = by(reader, alice)?;
                Ok(reader.user_num(CAROL)?.map(|carol| ignored.contains(carol)))
            })
        };
        world
            .act(|tx| {
                tx.intern_user(CAROL)?;
                // Her number is not known to others yet, and the list is remembered without it.
                assert_eq!(is_ignored(), None);
                Ok(())
            })
            .unwrap();
        assert_eq!(is_ignored(), Some(true));
    }
}
