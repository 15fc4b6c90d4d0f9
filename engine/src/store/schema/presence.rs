//! Presence. Id 50.

use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{
    core::num::UserNum,
    store::{Positioned, record},
};

keyspaces! { TABLE:
    #[doc = "A user's presence, at the position under which it stands in the streams of those who share rooms with them."]
    50 PRESENCE: Users, UserNum => Positioned<Presence>;
}

/// How present a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PresenceState {
    /// There.
    Online,
    /// Connected, but not at the keyboard.
    Unavailable,
    /// Not there, or not willing to say.
    Offline,
}

impl PresenceState {
    /// Its name in `m.presence`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Unavailable => "unavailable",
            Self::Offline => "offline",
        }
    }
}

/// A user's presence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// How present.
    pub state: PresenceState,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// When the user was last seen to do something, in milliseconds since the epoch.
    pub last_active_ms: u64,
}

record!(Presence);
