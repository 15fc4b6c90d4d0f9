//! The mainline ordering: events by how old the power levels are that they were sent under.
//!
//! The mainline is read only as far down as an event asks for: auth depths fall along it, so what is not on it above
//! an event's depth and not there is not on it at all. Positions are remembered along the ways that led to them.

use std::cmp::Reverse;

use super::events::{Events, Place};
use super::facts::Role;
use super::{ResolveError, StateGraph};

/// The mainline position of an event that meets the mainline nowhere: greater than any other.
const NOWHERE: u32 = u32::MAX;

/// Sorts `events` by the mainline of the `m.room.power_levels` event `power_levels`.
pub(super) fn mainline_order<G: StateGraph>(
    events: &mut Events<'_, G>,
    power_levels: Option<Place>,
    places: Vec<Place>,
) -> Result<Vec<Place>, ResolveError<G::Error>> {
    let mut mainline = Mainline { known: Vec::new(), last: None, length: 0 };
    if let Some(power_levels) = power_levels {
        mainline.push(power_levels);
    }
    let mut rows = Vec::with_capacity(places.len());
    for place in places {
        let position = mainline.position(events, place)?;
        rows.push((Reverse(position), events.brief(place).time, place));
    }
    rows.sort_unstable_by(|one, other| {
        let by_id = || events.pdu(one.2).event_id.cmp(&events.pdu(other.2).event_id);
        (one.0, one.1).cmp(&(other.0, other.1)).then_with(by_id)
    });
    Ok(rows.into_iter().map(|row| row.2).collect())
}

struct Mainline {
    /// By place of a power levels event, the position of those that it and its like meet first.
    known: Vec<Option<u32>>,
    /// The oldest event read so far, while there may be one before it.
    last: Option<Place>,
    length: u32,
}

impl Mainline {
    fn push(&mut self, place: Place) {
        self.note(place, self.length);
        self.last = Some(place);
        self.length += 1;
    }

    fn note(&mut self, place: Place, position: u32) {
        if self.known.len() <= place {
            self.known.resize(place + 1, None);
        }
        if let Some(known) = self.known.get_mut(place) {
            *known = Some(position);
        }
    }

    fn known(&self, place: Place) -> Option<u32> {
        self.known.get(place).copied().flatten()
    }

    /// Reads on until the mainline is at or below `auth_depth`.
    fn read_to<G: StateGraph>(
        &mut self,
        events: &mut Events<'_, G>,
        auth_depth: u32,
    ) -> Result<(), ResolveError<G::Error>> {
        while let Some(last) = self.last.filter(|&last| events.brief(last).auth_depth > auth_depth) {
            match events.auth_of_role(last, Role::PowerLevels)? {
                Some(before) => self.push(before),
                None => self.last = None,
            }
        }
        Ok(())
    }

    /// Where the power levels that the event at `place` was sent under meet the mainline.
    fn position<G: StateGraph>(
        &mut self,
        events: &mut Events<'_, G>,
        place: Place,
    ) -> Result<u32, ResolveError<G::Error>> {
        let mut way = Vec::new();
        let mut next = events.auth_of_role(place, Role::PowerLevels)?;
        let mut position = NOWHERE;
        while let Some(power_levels) = next {
            self.read_to(events, events.brief(power_levels).auth_depth)?;
            if let Some(known) = self.known(power_levels) {
                position = known;
                break;
            }
            way.push(power_levels);
            next = events.auth_of_role(power_levels, Role::PowerLevels)?;
        }
        for power_levels in way {
            self.note(power_levels, position);
        }
        Ok(position)
    }
}
