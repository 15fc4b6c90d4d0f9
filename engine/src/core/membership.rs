//! How a user stands to a room.

use serde::{Deserialize, Serialize};

/// A user's membership of a room; its number is part of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Membership {
    /// In the room.
    Join = 1,
    /// Asked to come.
    Invite = 2,
    /// Asking to come.
    Knock = 3,
    /// Gone, or turned away.
    Leave = 4,
    /// Shut out.
    Ban = 5,
}

impl Membership {
    /// Every membership.
    pub const ALL: [Self; 5] = [Self::Join, Self::Invite, Self::Knock, Self::Leave, Self::Ban];

    /// From its name in `m.room.member`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "join" => Self::Join,
            "invite" => Self::Invite,
            "knock" => Self::Knock,
            "leave" => Self::Leave,
            "ban" => Self::Ban,
            _ => return None,
        })
    }

    /// Its name in `m.room.member`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }
}
