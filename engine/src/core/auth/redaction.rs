//! Who may redact: rule 11 of room versions 1 and 2, and "Handling redactions" of those since.

use super::AuthState;
use super::denied::Reason;
use super::rules::{Context, allow_if};
use crate::core::event::Pdu;
use crate::core::identifiers::server_name;
use crate::core::power_levels::{Field, PowerLevels};
use crate::core::version::RoomVersion;

/// Whether `redaction`, which was accepted into the room, is to be applied to an event that `target_sender` sent,
/// under the `power_levels` at the redaction. That both are of the same room is for the caller to see to.
///
/// In room versions 1 and 2 the authorisation rules have decided already, so that an accepted one is applied.
pub fn may_redact(
    version: &RoomVersion,
    redaction: &Pdu,
    target_sender: &str,
    power_levels: &PowerLevels,
) -> bool {
    version.redaction_auth_rule
        || power_levels.user_level(&redaction.sender).reaches(power_levels.level(Field::Redact))
        || same_server(&redaction.sender, target_sender)
}

/// Rule 11 of room versions 1 and 2.
pub(super) fn check<S: AuthState>(context: &Context<'_, S>) -> Result<(), Reason> {
    let Context { event, power_levels, .. } = *context;
    // 11.1
    if power_levels.user_level(&event.sender).reaches(power_levels.level(Field::Redact)) {
        return Ok(());
    }
    // 11.2 and 11.3
    let own = event.redacts.as_deref().is_some_and(|redacts| same_server(redacts, &event.event_id));
    allow_if(own, Reason::Redaction)
}

/// Whether both ids have a server part, and the same one.
fn same_server(one: &str, other: &str) -> bool {
    server_name(one).is_some_and(|one| Some(one) == server_name(other))
}
