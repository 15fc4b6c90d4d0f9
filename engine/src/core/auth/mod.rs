//! Authorisation: which events a room's rules let in, and by which state.
//!
//! Invariant: everything here is a function of its arguments: no clock, no network, no signature of an event is
//! looked at (that is done at the door, [`authorising_server`] included). The rules are numbered as in
//! "Authorisation rules" of the room versions; where the numbers differ, comments give those of version 11.

use std::sync::Arc;

use super::event::Pdu;
use super::membership::Membership;
use super::power_levels::{InvalidPowerLevels, Level, PowerLevels};
use super::version::RoomVersion;

mod auth_events_list;
mod denied;
mod member;
mod power;
mod redaction;
mod rules;
mod selection;
mod stated;
mod third_party;

#[cfg(test)]
mod tests;

pub use auth_events_list::{AuthEvent, check_auth_events};
pub use denied::{Denied, Reason};
pub use member::authorising_server;
pub use redaction::may_redact;
pub use rules::check;
pub use selection::auth_types;
pub use stated::{Kind, Stated};

/// The room state that an event is judged against: the state before it, its own auth events, or the current state.
pub trait AuthState {
    /// The state event for (`kind`, `state_key`), if the state has one.
    fn get(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>>;

    /// A user's membership; `None` also where it is none that the specification knows. Kept as the power levels are.
    fn membership(&self, user: &str) -> Option<Membership> {
        self.get("m.room.member", user)?.membership().and_then(Membership::from_name)
    }

    /// The room's power levels, those by default where it has no `m.room.power_levels`; `None` without a create
    /// event. Callers on a hot path keep them per event and hand them out instead of having them read again.
    fn power_levels(&self, version: &RoomVersion) -> Option<Arc<PowerLevels>> {
        let create = self.get("m.room.create", "")?;
        let event = self.get("m.room.power_levels", "");
        Some(Arc::new(PowerLevels::new(version, &create, event.as_deref())))
    }

    /// What the event that is being judged states. Kept as the room's power levels are.
    fn stated(&self, event: &Pdu) -> Stated {
        Stated::of(event)
    }

    /// The membership of the sender of the event that is being judged.
    fn sender_membership(&self, event: &Pdu) -> Option<Membership> {
        self.membership(&event.sender)
    }

    /// The membership of the user whom the `m.room.member` event that is being judged is about.
    fn target_membership(&self, event: &Pdu) -> Option<Membership> {
        self.membership(event.state_key.as_deref()?)
    }

    /// Whether the `m.room.member` event that is being judged is about `user`.
    fn is_about(&self, event: &Pdu, user: &str) -> bool {
        event.state_key.as_deref() == Some(user)
    }

    /// The level that `power_levels`, which are the room's, give to the sender of the event that is being judged.
    fn sender_level(&self, event: &Pdu, power_levels: &PowerLevels) -> Level {
        power_levels.user_level(&event.sender)
    }

    /// The levels that the `m.room.power_levels` event `event`, which is being judged, states. Kept as the room's are.
    ///
    /// # Errors
    /// As [`PowerLevels::validate`].
    fn stated_levels(
        &self,
        version: &RoomVersion,
        event: &Pdu,
    ) -> Result<Arc<PowerLevels>, InvalidPowerLevels> {
        PowerLevels::validate(version, &event.content)?;
        Ok(Arc::new(PowerLevels::from_content(version, &event.content)))
    }
}
