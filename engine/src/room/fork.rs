//! Forks: where a room's graph has more than one end, and what its state is there.
//!
//! Invariant: a resolution is remembered only with the batch that holds its nodes.

#[cfg(test)]
mod tests;

use std::{ops::ControlFlow, sync::Arc};

use super::{Event, RoomCtx, state};
use crate::{
    core::{
        limits::SET_ASIDE_MAX,
        num::{EventNum, NodeId, RoomNum, StateKeyId},
        resolve::{AuthFacts, ResolveError, StateGraph, resolve},
        version::RoomVersion,
    },
    store::{Reader, StorageError, Tx, schema::EventStatus},
};

/// The forward extremities that an event which follows `prev` leaves behind: those among `prev`, and those that soft-failed
/// or rejected events among them follow.
pub(super) fn followed_extremities(
    reader: &Reader,
    room: &RoomCtx,
    prev: &[EventNum],
) -> Result<Vec<EventNum>, StorageError> {
    let is_extremity = |num: &EventNum| room.head.extremities.iter().any(|(extremity, _)| extremity == num);
    let mut followed = Vec::new();
    let mut to_look_at = prev.to_vec();
    let mut looked_through = 0;
    while let Some(num) = to_look_at.pop() {
        if is_extremity(&num) {
            if !followed.contains(&num) {
                followed.push(num);
            }
            continue;
        }
        let event = reader.event(num)?;
        let set_aside = matches!(event.header.status, EventStatus::SoftFailed | EventStatus::Rejected);
        if set_aside && looked_through < SET_ASIDE_MAX {
            looked_through += 1;
            to_look_at.extend(&event.header.prev);
        }
    }
    Ok(followed)
}

/// A state of the room, and whether it lacks members.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    pub snapshot: NodeId,
    pub lacks_members: bool,
}

impl Side {
    /// That after an event.
    pub fn after(event: &Event) -> Self {
        Self { snapshot: event.header.state_after, lacks_members: event.header.partial_state }
    }

    /// One that has all members.
    pub fn whole(snapshot: NodeId) -> Self {
        Self { snapshot, lacks_members: false }
    }
}

/// Whether one of the states lacks members.
pub(super) fn lack_members(sides: &[Side]) -> bool {
    sides.iter().any(|side| side.lacks_members)
}

/// The states after a room's forward extremities.
pub(super) fn states_of_extremities(reader: &Reader, room: &RoomCtx) -> Result<Vec<Side>, StorageError> {
    room.head.extremities.iter().map(|(num, _)| Ok(Side::after(&*reader.event(*num)?))).collect()
}

/// Those of the events whose state lacks members.
pub(super) fn lacking_members(reader: &Reader, nums: &[EventNum]) -> Result<Vec<EventNum>, StorageError> {
    let events = reader.events(nums)?;
    Ok(events.iter().filter(|event| event.header.partial_state).map(|event| event.num).collect())
}

/// The state before an event that follows `prev`.
pub(super) fn state_after_all(
    tx: &mut Tx,
    room: &RoomCtx,
    prev: &[Arc<Event>],
) -> Result<NodeId, StorageError> {
    let extremities = &room.head.extremities;
    let is_head = prev.len() == extremities.len()
        && prev.iter().all(|event| extremities.iter().any(|(num, _)| *num == event.num));
    if is_head {
        return Ok(room.head.state);
    }
    merged_sides(tx, room, prev.iter().map(|event| Side::after(event)))
}

/// What stands in a list of snapshots between those that have all members and those that lack some, and before one of each that were made
/// into one. No snapshot has this number.
const LACKING: NodeId = NodeId(u64::MAX);

/// What state resolution makes of states of which some may lack members. The members of those that lack none stand in for these: of
/// nobody whom a state lacks it is known that they are not in the room, and in resolution it would be that on which the states
/// disagree, and be judged by the rules of today.
pub(crate) fn merged_sides(
    tx: &mut Tx,
    room: &RoomCtx,
    sides: impl IntoIterator<Item = Side>,
) -> Result<NodeId, StorageError> {
    let (mut lacking, mut whole) = (Vec::new(), Vec::new());
    for Side { snapshot, lacks_members } in sides {
        if lacks_members { &mut lacking } else { &mut whole }.push(snapshot);
    }
    if lacking.is_empty() || whole.is_empty() {
        return merged(tx, room, whole.into_iter().chain(lacking));
    }
    for snapshots in [&mut lacking, &mut whole] {
        snapshots.sort_unstable();
        snapshots.dedup();
    }
    let from = [&whole[..], &[LACKING], &lacking].concat();
    if let Some(known) = remembered(tx, &from) {
        return Ok(known);
    }
    for snapshot in &mut lacking {
        for other in &whole {
            *snapshot = with_members_of(tx, room, *snapshot, *other)?;
        }
    }
    let resolved = merged(tx, room, whole.into_iter().chain(lacking))?;
    tx.resolved.push((from, resolved));
    Ok(resolved)
}

/// A state with the members that only another has.
fn with_members_of(
    tx: &mut Tx,
    room: &RoomCtx,
    lacking: NodeId,
    other: NodeId,
) -> Result<NodeId, StorageError> {
    let from = vec![LACKING, other, lacking];
    if let Some(known) = remembered(tx, &from) {
        return Ok(known);
    }
    let Some(member) = tx.text_num("m.room.member")? else { return Ok(lacking) };
    // Built upon the other one, so that what the two have in common is stored once.
    let difference = tx.state_difference(room.num, lacking, other)?.into_iter();
    let own: Vec<(StateKeyId, Option<EventNum>)> = difference
        .filter(|change| change.key.kind() != member || change.before.is_some())
        .map(|change| (change.key, change.before))
        .collect();
    let made = state::apply(tx, room.num, other, &own)?;
    tx.resolved.push((from, made));
    Ok(made)
}

/// What was made of snapshots before.
fn remembered(tx: &Tx, snapshots: &Vec<NodeId>) -> Option<NodeId> {
    let own = tx.resolved.iter().find(|(from, _)| from == snapshots).map(|(_, resolved)| *resolved);
    own.or_else(|| tx.shared.resolved.get(snapshots).map(|resolved| *resolved))
}

/// What state resolution makes of the snapshots; the empty state of none.
pub(crate) fn merged(
    tx: &mut Tx,
    room: &RoomCtx,
    snapshots: impl IntoIterator<Item = NodeId>,
) -> Result<NodeId, StorageError> {
    let mut snapshots: Vec<NodeId> = snapshots.into_iter().collect();
    snapshots.sort_unstable();
    snapshots.dedup();
    match snapshots.as_slice() {
        [] => return Ok(NodeId(0)),
        [only] => return Ok(*only),
        _ => {}
    }
    if let Some(resolved) = remembered(tx, &snapshots) {
        return Ok(resolved);
    }
    let changes = resolved(tx, room.version, room.num, &snapshots)?;
    let first = snapshots.first().copied().unwrap_or_default();
    let resolved = state::apply(tx, room.num, first, &changes)?;
    tx.resolved.push((snapshots, resolved));
    Ok(resolved)
}

/// What state resolution changes in the first of the snapshots, which are at least two.
pub(crate) fn resolved(
    reader: &Reader,
    version: &'static RoomVersion,
    room: RoomNum,
    snapshots: &[NodeId],
) -> Result<Vec<(StateKeyId, Option<EventNum>)>, StorageError> {
    resolve(version, &Graph { reader, room }, snapshots).map_err(|error| match error {
        ResolveError::Graph(error) => error,
        error => StorageError::Corrupt(error.to_string()),
    })
}

/// A room's events and snapshots, as resolution reads them.
struct Graph<'a> {
    reader: &'a Reader,
    room: RoomNum,
}

impl StateGraph for Graph<'_> {
    type Error = StorageError;

    fn facts(&self, num: EventNum) -> Result<Arc<AuthFacts>, StorageError> {
        self.reader.event(num)?.auth_facts()
    }

    fn key(&self, kind: &str, state_key: &str) -> Result<Option<StateKeyId>, StorageError> {
        let (kind, state_key) = (self.reader.text_num(kind)?, self.reader.text_num(state_key)?);
        Ok(kind.zip(state_key).map(|(kind, state_key)| StateKeyId::new(kind, state_key)))
    }

    fn get(&self, snapshot: NodeId, key: StateKeyId) -> Result<Option<EventNum>, StorageError> {
        self.reader.state_num_at(self.room, snapshot, key)
    }

    fn difference(
        &self,
        before: NodeId,
        after: NodeId,
    ) -> Result<Vec<(StateKeyId, Option<EventNum>, Option<EventNum>)>, StorageError> {
        let changes = self.reader.state_difference(self.room, before, after)?;
        Ok(changes.into_iter().map(|change| (change.key, change.before, change.after)).collect())
    }

    fn citations(
        &self,
        event: EventNum,
        visit: &mut dyn FnMut(EventNum, StateKeyId) -> ControlFlow<()>,
    ) -> Result<bool, StorageError> {
        self.reader.citations(self.room, event, visit)?;
        Ok(true)
    }
}
