//! Presence. Ids 50 and 54.

use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{core::num::UserNum, store::record};

keyspaces! { TABLE:
    #[doc = "What a user says about their being there, and when they said it. Whether they are is known in memory only."]
    50 STATUS_MESSAGES: Users, UserNum => StatusMessage;
    #[doc = "Users who are there, however present: after a restart, those whom others take to be."]
    54 PRESENT_USERS: Users, UserNum => ();
}

/// How present a user is, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PresenceState {
    /// Not there, or not willing to say.
    Offline,
    /// Connected, but not at the keyboard.
    Unavailable,
    /// There.
    Online,
}

impl PresenceState {
    /// From its name in `m.presence`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Offline, Self::Unavailable, Self::Online].into_iter().find(|state| state.name() == name)
    }

    /// Its name in `m.presence`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Unavailable => "unavailable",
            Self::Offline => "offline",
        }
    }
}

/// What a user says about their being there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusMessage {
    /// What they say; empty for nothing.
    pub text: String,
    /// When they said it, in milliseconds since the epoch.
    pub said_ms: u64,
}

record!(StatusMessage);
