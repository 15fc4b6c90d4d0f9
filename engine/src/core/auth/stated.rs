//! What an event states of itself, as far as every check of one asks: few small values in one place, read of its texts once.

use super::member::AUTHORISING_USER;
use crate::core::event::Pdu;
use crate::core::membership::Membership;

/// The types of events that have rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `m.room.create`
    Create,
    /// `m.room.aliases`
    Aliases,
    /// `m.room.member`
    Member,
    /// `m.room.third_party_invite`
    ThirdPartyInvite,
    /// `m.room.power_levels`
    PowerLevels,
    /// `m.room.redaction`
    Redaction,
    /// Any other.
    Other,
}

impl Kind {
    /// The kind of an event type.
    pub fn of(event_type: &str) -> Kind {
        match event_type {
            "m.room.create" => Kind::Create,
            "m.room.aliases" => Kind::Aliases,
            "m.room.member" => Kind::Member,
            "m.room.third_party_invite" => Kind::ThirdPartyInvite,
            "m.room.power_levels" => Kind::PowerLevels,
            "m.room.redaction" => Kind::Redaction,
            _ => Kind::Other,
        }
    }
}

/// What an event states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Its type.
    pub kind: Kind,
    /// Whether it has a state key.
    pub has_state_key: bool,
    /// Whether its state key is its sender.
    pub is_about_sender: bool,
    /// Whether it has a `membership`.
    pub has_membership: bool,
    /// Its `membership`, if that is one that the specification knows.
    pub membership: Option<Membership>,
    /// Whether it names a user who vouches for it.
    pub is_vouched_for: bool,
}

impl Stated {
    /// Reads an event.
    pub fn of(event: &Pdu) -> Stated {
        Stated {
            kind: Kind::of(&event.kind),
            has_state_key: event.state_key.is_some(),
            is_about_sender: event.state_key.as_ref() == Some(&event.sender),
            has_membership: event.content.contains_key("membership"),
            membership: event.membership().and_then(Membership::from_name),
            is_vouched_for: event.content.contains_key(AUTHORISING_USER),
        }
    }
}
