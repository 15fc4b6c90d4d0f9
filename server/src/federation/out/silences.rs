//! Servers that did not answer a question of some kind are left alone for a while: who waits for several of them must not wait
//! for the same one again and again.

use std::time::Duration;

use dashmap::DashMap;
use ruma_common::{OwnedServerName, ServerName};
use tokio::time::Instant;

use crate::federation::limits::SILENT_SERVERS_MAX;

/// Until when servers that did not answer are left alone.
pub struct Silences {
    pause: Duration,
    until: DashMap<OwnedServerName, Instant>,
}

impl Silences {
    /// Each is left alone for `pause`.
    pub fn new(pause: Duration) -> Silences {
        Silences { pause, until: DashMap::new() }
    }

    pub fn is_silent(&self, server: &ServerName) -> bool {
        self.until.get(server).is_some_and(|until| *until > Instant::now())
    }

    /// Notes whether the server was silent when it was asked.
    pub fn note(&self, server: &ServerName, is_silent: bool) {
        if !is_silent {
            self.until.remove(server);
            return;
        }
        if self.until.len() >= SILENT_SERVERS_MAX {
            let now = Instant::now();
            self.until.retain(|_, until| *until > now);
            if self.until.len() >= SILENT_SERVERS_MAX {
                self.until.clear();
            }
        }
        self.until.insert(server.to_owned(), Instant::now() + self.pause);
    }
}
