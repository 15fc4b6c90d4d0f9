//! History visibility: whether a user may see an event of a room.
//!
//! Invariant: what is not understood is `shared` for a room and "never was in the room" for a user. Not here: finding
//! the state at the event, and whether the event was soft-failed or rejected, which nobody sees.
//! Source: "Room History Visibility" of the client-server API.

use serde_json::Value;

use super::event::JsonObject;

/// Who may see the events that are sent while this is the room's `history_visibility`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HistoryVisibility {
    /// Everybody.
    WorldReadable,
    /// Whoever is in the room, or joins it later.
    #[default]
    Shared,
    /// Whoever was in the room or invited to it.
    Invited,
    /// Whoever was in the room.
    Joined,
}

impl HistoryVisibility {
    /// Reads the content of the room's `m.room.history_visibility`, if it has one.
    pub fn from_content(content: Option<&JsonObject>) -> HistoryVisibility {
        match content.and_then(|content| content.get("history_visibility")).and_then(Value::as_str) {
            Some("world_readable") => HistoryVisibility::WorldReadable,
            Some("invited") => HistoryVisibility::Invited,
            Some("joined") => HistoryVisibility::Joined,
            _ => HistoryVisibility::Shared,
        }
    }
}

/// How a user stood to a room at an event, as far as visibility asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Presence {
    /// `join`.
    Joined,
    /// `invite`.
    Invited,
    /// `leave`, `ban`, `knock`, an unknown membership or none.
    #[default]
    Absent,
}

impl Presence {
    /// Reads a `membership`, if there is one.
    pub fn from_membership(membership: Option<&str>) -> Presence {
        match membership {
            Some("join") => Presence::Joined,
            Some("invite") => Presence::Invited,
            _ => Presence::Absent,
        }
    }
}

/// A value that the event itself may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtEvent<T> {
    /// The value in the state before the event.
    pub before: T,
    /// The value that the event sets, if it is the one that sets it.
    pub set: Option<T>,
}

impl<T: Copy> AtEvent<T> {
    /// The value at an event that does not change it.
    pub fn unchanged(before: T) -> AtEvent<T> {
        AtEvent { before, set: None }
    }

    /// The value at an event that sets it to `set`.
    pub fn changed(before: T, set: T) -> AtEvent<T> {
        AtEvent { before, set: Some(set) }
    }

    fn any(self, holds: impl Fn(T) -> bool) -> bool {
        holds(self.before) || self.set.is_some_and(holds)
    }
}

/// Whether a user may see an event.
///
/// `visibility` has a value set exactly if the event is the room's `m.room.history_visibility`; `presence` exactly if
/// it is the user's own `m.room.member`: of these, the value before *or* after is enough. `joined_later` says
/// whether the user joined at any point after the event, so it holds for all who are joined now.
pub fn may_see(
    visibility: AtEvent<HistoryVisibility>,
    presence: AtEvent<Presence>,
    joined_later: bool,
) -> bool {
    visibility.any(|visibility| presence.any(|presence| allows(visibility, presence, joined_later)))
}

/// The five rules, for one visibility and one membership.
fn allows(visibility: HistoryVisibility, presence: Presence, joined_later: bool) -> bool {
    match (visibility, presence) {
        // 1
        (HistoryVisibility::WorldReadable, _) => true,
        // 2
        (_, Presence::Joined) => true,
        // 3
        (HistoryVisibility::Shared, _) => joined_later,
        // 4
        (HistoryVisibility::Invited, Presence::Invited) => true,
        // 5
        (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use super::*;

    const PRESENCES: [Presence; 3] = [Presence::Joined, Presence::Invited, Presence::Absent];

    /// Rows: visibility; columns: joined, invited, absent, each without and with a later join.
    const TABLE: [(HistoryVisibility, [[bool; 2]; 3]); 4] = [
        (WorldReadable, [[true, true], [true, true], [true, true]]),
        (Shared, [[true, true], [false, true], [false, true]]),
        (Invited, [[true, true], [true, true], [false, false]]),
        (Joined, [[true, true], [false, false], [false, false]]),
    ];

    #[test]
    fn an_ordinary_event() {
        for (visibility, row) in TABLE {
            for (presence, expected) in PRESENCES.into_iter().zip(row) {
                for (joined_later, expected) in [false, true].into_iter().zip(expected) {
                    let seen =
                        may_see(AtEvent::unchanged(visibility), AtEvent::unchanged(presence), joined_later);
                    assert_eq!(seen, expected, "{visibility:?} {presence:?} {joined_later}");
                }
            }
        }
    }

    #[test]
    fn a_change_of_visibility_is_seen_by_whom_either_value_allows() {
        for (before, row_before) in TABLE {
            for (after, row_after) in TABLE {
                for (index, presence) in PRESENCES.into_iter().enumerate() {
                    for joined_later in [false, true] {
                        let later = usize::from(joined_later);
                        let visibility = AtEvent::changed(before, after);
                        let seen = may_see(visibility, AtEvent::unchanged(presence), joined_later);
                        let expected = row_before[index][later] || row_after[index][later];
                        assert_eq!(seen, expected, "{before:?} to {after:?}, {presence:?} {joined_later}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_own_membership_is_seen_by_whom_either_value_allows() {
        for (visibility, row) in TABLE {
            for (before, row_before) in PRESENCES.into_iter().zip(row) {
                for (after, row_after) in PRESENCES.into_iter().zip(row) {
                    for joined_later in [false, true] {
                        let later = usize::from(joined_later);
                        let presence = AtEvent::changed(before, after);
                        let seen = may_see(AtEvent::unchanged(visibility), presence, joined_later);
                        let expected = row_before[later] || row_after[later];
                        assert_eq!(seen, expected, "{visibility:?}, {before:?} to {after:?} {joined_later}");
                    }
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_understood() {
        let read = |content: Value| HistoryVisibility::from_content(content.as_object());
        assert_eq!(HistoryVisibility::from_content(None), Shared);
        assert_eq!(read(json!({})), Shared);
        assert_eq!(read(json!({"history_visibility": "org.example.secret"})), Shared);
        assert_eq!(read(json!({"history_visibility": 5})), Shared);
        assert_eq!(read(json!({"history_visibility": "shared"})), Shared);
        assert_eq!(read(json!({"history_visibility": "joined"})), Joined);
        assert_eq!(read(json!({"history_visibility": "invited"})), Invited);
        assert_eq!(read(json!({"history_visibility": "world_readable"})), WorldReadable);
        for membership in [None, Some("leave"), Some("ban"), Some("knock"), Some("org.example.hover")] {
            assert_eq!(Presence::from_membership(membership), Presence::Absent);
        }
    }
}
