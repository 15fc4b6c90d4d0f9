//! The rules about `m.room.power_levels`: who may change which level to what.
//!
//! Comments number the rules as room version 11 does (rule 9). A level that the content does not state is taken as
//! having no value rather than its default: adding, changing or removing one is judged by the values that are stated.

use super::AuthState;
use super::denied::Reason;
use super::rules::Context;
use crate::core::power_levels::{Field, InvalidPowerLevels, Level, PowerLevels, creators};

impl From<InvalidPowerLevels> for Reason {
    fn from(invalid: InvalidPowerLevels) -> Reason {
        match invalid {
            InvalidPowerLevels::Field => Reason::PowerField,
            InvalidPowerLevels::Map => Reason::PowerMap,
            InvalidPowerLevels::Users => Reason::PowerUsers,
        }
    }
}

pub(super) fn check<S: AuthState>(context: &Context<'_, S>) -> Result<(), Reason> {
    let Context { version, event, create, power_levels: current, .. } = *context;
    // 9.1 to 9.3; before version 10 of `users` alone, in the forms of "Deprecated event content schemas".
    let new = context.state.stated_levels(version, event)?;
    // 10.4 of version 12.
    if version.privileged_creators && creators(version, create).any(|user| new.users().contains(user)) {
        return Err(Reason::PowerCreators);
    }
    // 9.4
    if !current.is_present() {
        return Ok(());
    }
    // What cannot be read cannot be compared. What could not be read of the current levels is not stated, and can be replaced.
    PowerLevels::validate_change(version, &event.content)?;
    let sender_level = context.sender_level();
    let above = |level: Option<i64>| level.is_some_and(|level| Level::Finite(level) > sender_level);
    // 9.5
    for field in Field::ALL {
        let (old_level, new_level) = (current.stated(field), new.stated(field));
        if old_level == new_level {
            continue;
        }
        if above(old_level) {
            return Err(Reason::PowerFieldCurrent);
        }
        if above(new_level) {
            return Err(Reason::PowerFieldNew);
        }
    }
    // 9.6 and 9.7
    let notifications =
        version.guard_notification_levels.then(|| (current.notifications(), new.notifications()));
    for (old, new) in [Some((current.events(), new.events())), notifications].into_iter().flatten() {
        for (_, old_level, new_level) in old.changes(new) {
            if above(old_level) {
                return Err(Reason::PowerEntryCurrent);
            }
            if above(new_level) {
                return Err(Reason::PowerEntryNew);
            }
        }
    }
    // 9.8 and 9.9
    for (user, old_level, new_level) in current.users().changes(new.users()) {
        let not_below = old_level.is_some_and(|level| Level::Finite(level) >= sender_level);
        if not_below && *user != *event.sender {
            return Err(Reason::PowerUserCurrent);
        }
        if above(new_level) {
            return Err(Reason::PowerUserNew);
        }
    }
    // 9.10
    Ok(())
}
