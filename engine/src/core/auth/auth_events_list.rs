//! The rules about the `auth_events` list itself, over the events that it names.
//!
//! Comments number the rules as room version 11 does (rule 2).

use super::denied::{Denied, Reason};
use super::selection::auth_types;
use crate::core::event::Pdu;
use crate::core::version::RoomVersion;

/// One of the events that an event's `auth_events` names, and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct AuthEvent<'a> {
    /// The event.
    pub pdu: &'a Pdu,
    /// Whether it was rejected on receipt.
    pub rejected: bool,
}

/// Whether `auth_events`, all those that `event` names, are what the rules let it name. A create event, which is
/// judged by rule 1 alone, passes.
///
/// # Errors
/// The first rule that rejects the event.
pub fn check_auth_events(
    version: &RoomVersion,
    event: &Pdu,
    auth_events: &[AuthEvent<'_>],
) -> Result<(), Denied> {
    check_list(version, event, auth_events).map_err(|reason| Denied::new(version, reason))
}

fn check_list(version: &RoomVersion, event: &Pdu, auth_events: &[AuthEvent<'_>]) -> Result<(), Reason> {
    if &*event.kind == "m.room.create" {
        return Ok(());
    }
    let expected =
        auth_types(version, &event.kind, &event.sender, event.state_key.as_deref(), &event.content);
    // 2.1 and 2.2: what is left of the expected pairs shows both, so that a long list costs no more than its length.
    let mut left = expected.clone();
    for AuthEvent { pdu, .. } in auth_events {
        let is_pair = |pair: &(&str, &str)| pdu.is_state(pair.0, pair.1);
        match left.iter().position(is_pair) {
            Some(index) => drop(left.swap_remove(index)),
            None if expected.iter().any(is_pair) => return Err(Reason::AuthEventsDuplicate),
            None => return Err(Reason::AuthEventsUnexpected),
        }
    }
    // 2.3
    if auth_events.iter().any(|entry| entry.rejected) {
        return Err(Reason::AuthEventsRejected);
    }
    // 2.4, where it is among those selected.
    if left.contains(&("m.room.create", "")) {
        return Err(Reason::CreateMissing);
    }
    // 2.5
    if auth_events.iter().any(|entry| entry.pdu.room_id != event.room_id) {
        return Err(Reason::AuthEventsOtherRoom);
    }
    Ok(())
}
