//! Sessions by token, in memory, so that authenticating a request reads nothing from the store.
//!
//! Invariant: once a batch that ends or changes a session is published, the cache does not hold what was before it. What
//! a reader of an older moment has found out is not taken in.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use dashmap::DashMap;

use super::Session;
use crate::{
    core::num::{StreamPos, UserNum},
    store::schema::TokenHash,
    stream::Touch,
};

/// Sessions held at most, some 300 bytes each; beyond that all are forgotten and come back as they are used.
const SESSIONS_MAX: usize = 100_000;

/// See the module's text.
#[derive(Default)]
pub(crate) struct SessionCache {
    sessions: DashMap<TokenHash, Arc<Session>>,
    tokens: DashMap<UserNum, Vec<TokenHash>>,
    /// The position of the last change of any session.
    changed: AtomicI64,
}

impl SessionCache {
    /// The session of the token with this hash, if it is known.
    pub fn get(&self, hash: &TokenHash) -> Option<Arc<Session>> {
        self.sessions.get(hash).map(|session| session.clone())
    }

    /// Takes in what a reader at `pos` has found.
    pub fn insert(&self, hash: TokenHash, session: &Arc<Session>, pos: StreamPos) {
        if self.sessions.len() >= SESSIONS_MAX {
            // In this order, so that no session is left that its user does not list.
            self.tokens.clear();
            self.sessions.clear();
        }
        // Held while the position is compared: whoever forgets the user's sessions comes either before, and has moved
        // the position, or after, and finds this one.
        let mut tokens = self.tokens.entry(session.user).or_default();
        if pos.0 < self.changed.load(Ordering::SeqCst) {
            return;
        }
        if !tokens.contains(&hash) {
            tokens.push(hash);
        }
        self.sessions.insert(hash, session.clone());
    }

    /// Forgets the sessions that a batch has touched; `pos` is the last position of the batch. To be called before it is
    /// published.
    pub fn note(&self, pos: StreamPos, touches: &[Touch]) {
        for touch in touches {
            if let Touch::Sessions(user) = touch {
                self.changed.fetch_max(pos.0, Ordering::SeqCst);
                let tokens = self.tokens.remove(user).map(|(_, tokens)| tokens).unwrap_or_default();
                for hash in tokens {
                    self.sessions.remove(&hash);
                }
            }
        }
    }
}
