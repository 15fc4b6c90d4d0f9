//! What other servers say of users who share no room with this one, and may be about to: whoever lets this server into a room
//! tells it at once who is there, before it has entered; and while a room's members are not known, nobody knows that they are
//! in it.
//!
//! Invariant: of a user there is what was said last; only in memory, so much of each server and so much in all, for a while.
//! Specification: server-server API, "Presence".

use std::collections::HashMap;

use parking_lot::Mutex;

use super::presence::{Activity, Claim};
use crate::core::deadline::has_come;

/// Users of one server: as many as it is worth while to tell of at once.
const EARLY_PER_SERVER_MAX: usize = 200;
/// Users in all: some 300 bytes each, or four KiB for who has much to say. All of them are looked at every two seconds.
const EARLY_MAX: usize = 1_000;
/// How long it is kept, in milliseconds: the time in which a large room is entered and its members learnt.
const EARLY_MS: u64 = 5 * 60 * 1000;

/// What a server said of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyPresence {
    /// The user.
    pub user_id: String,
    /// How present they are.
    pub claim: Claim,
    /// How active.
    pub activity: Activity,
    /// What they say about it; empty for nothing.
    pub text: String,
    /// When it came, in milliseconds since the epoch.
    pub told_ms: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct EarlyPresences(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// By server and user.
    servers: HashMap<String, HashMap<String, EarlyPresence>>,
    count: usize,
}

impl EarlyPresences {
    /// Keeps what `server` says, in the place of what it said of the user before. False if there is no room for it.
    pub fn keep(&self, server: &str, early: EarlyPresence) -> bool {
        let mut inner = self.0.lock();
        let of_server = inner.servers.get(server);
        let is_known = of_server.is_some_and(|users| users.contains_key(&early.user_id));
        let is_full = of_server.map_or(0, HashMap::len) >= EARLY_PER_SERVER_MAX || inner.count >= EARLY_MAX;
        if !is_known && is_full {
            return false;
        }
        inner.count += usize::from(!is_known);
        inner.servers.entry(server.to_owned()).or_default().insert(early.user_id.clone(), early);
        true
    }

    /// Takes out what `server` said of the user.
    pub fn take(&self, server: &str, user_id: &str) -> Option<EarlyPresence> {
        let mut inner = self.0.lock();
        let users = inner.servers.get_mut(server)?;
        let early = users.remove(user_id)?;
        if users.is_empty() {
            inner.servers.remove(server);
        }
        inner.count -= 1;
        Some(early)
    }

    /// The servers and users of whom something is kept, in order. What came too long ago is forgotten.
    pub fn kept(&self, now_ms: u64) -> Vec<(String, String)> {
        let mut inner = self.0.lock();
        if inner.count == 0 {
            return Vec::new();
        }
        inner.servers.retain(|_, users| {
            users.retain(|_, early| !has_come(early.told_ms + EARLY_MS, EARLY_MS, now_ms));
            !users.is_empty()
        });
        let mut kept: Vec<(String, String)> = Vec::new();
        for (server, users) in &inner.servers {
            kept.extend(users.keys().map(|user_id| (server.clone(), user_id.clone())));
        }
        inner.count = kept.len();
        kept.sort_unstable();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::schema::PresenceState, stream::ELSEWHERE};

    fn early(user_id: &str, told_ms: u64) -> EarlyPresence {
        EarlyPresence {
            user_id: user_id.to_owned(),
            claim: Claim { device: ELSEWHERE, state: PresenceState::Online, said_ms: 0, until_ms: u64::MAX },
            activity: Activity { last_active_ms: 0, currently_active: true },
            text: String::new(),
            told_ms,
        }
    }

    #[test]
    fn a_server_has_room_for_some_and_others_have_theirs() {
        let presences = EarlyPresences::default();
        let fill = |server: usize| {
            let server = format!("{server}.example");
            (0..=EARLY_PER_SERVER_MAX)
                .filter(|n| presences.keep(&server, early(&format!("@{n}:{server}"), 0)))
                .count()
        };
        assert_eq!(fill(0), EARLY_PER_SERVER_MAX);
        assert!(presences.keep("0.example", early("@0:0.example", 7)), "it takes the place of the last");
        let kept: usize = (1..10).map(fill).sum();
        assert_eq!(kept + EARLY_PER_SERVER_MAX, EARLY_MAX);
        assert_eq!(presences.kept(0).len(), EARLY_MAX);
        assert_eq!(presences.take("0.example", "@0:0.example"), Some(early("@0:0.example", 7)));
        assert_eq!(presences.take("0.example", "@0:0.example"), None);
        assert!(presences.keep("new.example", early("@a:new.example", 0)));
    }

    #[test]
    fn what_came_long_ago_is_forgotten() {
        let presences = EarlyPresences::default();
        for (user_id, told_ms) in [("@a:x", 0), ("@b:x", 1), ("@c:y", 0)] {
            let (_, server) = user_id.split_once(':').unwrap();
            assert!(presences.keep(server, early(user_id, told_ms)));
        }
        assert_eq!(presences.kept(EARLY_MS - 1).len(), 3);
        assert_eq!(presences.kept(EARLY_MS), [("x".to_owned(), "@b:x".to_owned())]);
        assert!(presences.kept(EARLY_MS + 1).is_empty());
        // What is told later than now was told before the clock was set back.
        assert!(presences.keep("x", early("@a:x", EARLY_MS)));
        assert!(presences.kept(0).is_empty());
    }
}
