//! A room's state is compared with what another server holds it to be, and what resolution makes of both is adopted.
//!
//! Invariant: nothing is adopted but by state resolution, which judges each event by the room's rules; what the other server
//! lacks says nothing. The room's last events keep their places, and stand on what was adopted from then on, so that
//! whatever follows them is judged by it. That their states do not follow from the events before them any more is noted
//! (`TOLD_STATES`).

use std::{collections::BTreeMap, sync::Arc};

use super::{GivenState, READ_AT_ONCE};
use crate::{
    core::num::{EventNum, NodeId, StateKeyId},
    error::{Conflict, Error, Result, What},
    room::{
        Event, RoomCtx,
        accept::{rewrite_header, settle},
        fork, gap, state,
    },
    store::{
        Reader, Tx, schema,
        schema::{EventHeader, EventStatus},
    },
};

/// Why an event that another server holds to be of the state does not count here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum LeftOut {
    /// It could not be had, or is not rightly signed, or what allows it could not be had.
    #[error("it is not here")]
    NotHere,
    /// The rules refuse it.
    #[error("it is rejected")]
    Rejected,
    /// It is no state event of this room.
    #[error("it is no state event of this room")]
    NotState,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adopted {
    /// How many entries of the other server's state are others than here.
    pub differing: usize,
    /// How many entries of the room's current state changed.
    pub changed: usize,
    /// Events of the other server's state that do not count here.
    pub left_out: Vec<(Arc<str>, LeftOut)>,
}

/// Compares the state after an event, as another server tells it with `given`, the state before it, with that which it has
/// here, and adopts into the current state what resolution makes of the difference.
///
/// Errors: [`What::Event`] not found if the event has no place in the room here; [`Conflict::PartialState`].
pub(crate) fn adopt_state(tx: &mut Tx, room: &mut RoomCtx, given: &GivenState) -> Result<Adopted> {
    if room.head.partial_state {
        return Err(Conflict::PartialState.into());
    }
    let end = gap::in_graph(tx, room.num, &given.event_id)?.ok_or(Error::NotFound(What::Event))?;
    let (mut told, left_out) = told_entries(tx, room, &given.state)?;
    if let Some(key) = end.state_key_id().filter(|_| end.header.status != EventStatus::Rejected) {
        told.insert(key, end.num);
    }
    for (key, num) in tx.state_entries(room.num, end.header.state_after)? {
        if told.get(&key) == Some(&num) {
            told.remove(&key);
        }
    }
    let mut adopted = Adopted { differing: told.len(), changed: 0, left_out };
    if told.is_empty() {
        return Ok(adopted);
    }
    let told: Vec<(StateKeyId, Option<EventNum>)> =
        told.into_iter().map(|(key, num)| (key, Some(num))).collect();
    let before = room.head.state;
    let theirs = state::apply(tx, room.num, before, &told)?;
    let resolved = fork::merged(tx, room, [before, theirs])?;
    if tx.state_difference(room.num, before, resolved)?.is_empty() {
        return Ok(adopted);
    }
    let mut last = end;
    for (num, _) in room.head.extremities.clone() {
        last = tx.event(num)?;
        stand_on(tx, room, &last, resolved)?;
    }
    settle(tx, room, &last)?;
    room.save(tx);
    tx.each_state_difference(room.num, before, room.head.state, |_| adopted.changed += 1)?;
    Ok(adopted)
}

/// A state as it is told: its entries, and the events that do not count.
type Told = (BTreeMap<StateKeyId, EventNum>, Vec<(Arc<str>, LeftOut)>);

/// The entries that the events make, and which of the events do not count.
fn told_entries(reader: &Reader, room: &RoomCtx, event_ids: &[Arc<str>]) -> Result<Told> {
    let mut left_out = Vec::new();
    let mut ids: BTreeMap<EventNum, Arc<str>> = BTreeMap::new();
    for event_ids in event_ids.chunks(READ_AT_ONCE) {
        let found = reader.get_many(&schema::EVENT_NUMS, event_ids.iter().map(ToString::to_string))?;
        for (event_id, num) in event_ids.iter().zip(found) {
            match num {
                Some(num) => drop(ids.insert(num, event_id.clone())),
                None => left_out.push((event_id.clone(), LeftOut::NotHere)),
            }
        }
    }
    let nums: Vec<EventNum> = ids.keys().copied().collect();
    let mut entries = BTreeMap::new();
    reader.each_header(&nums, |num, header| {
        let why = match header.state_key_id().filter(|_| header.room == room.num) {
            None => LeftOut::NotState,
            Some(_) if header.status == EventStatus::Rejected => LeftOut::Rejected,
            Some(key) => {
                entries.insert(key, num);
                return;
            }
        };
        left_out.extend(ids.get(&num).map(|event_id| (event_id.clone(), why)));
    })?;
    Ok((entries, left_out))
}

/// Puts a state under one of the room's last events. If that is a state event, it stays what it set.
fn stand_on(tx: &mut Tx, room: &RoomCtx, event: &Arc<Event>, resolved: NodeId) -> Result<()> {
    let own = event.state_key_id();
    let state_before = match own {
        Some(key) => {
            let set_before = tx.state_num_at(room.num, event.header.state_before, key)?;
            state::apply(tx, room.num, resolved, &[(key, set_before)])?
        }
        None => resolved,
    };
    let state_after = match own {
        Some(key) => state::set(tx, room.num, state_before, key, event.num)?,
        None => state_before,
    };
    tx.put(&schema::TOLD_STATES, &(room.num, event.num), &());
    rewrite_header(tx, event, EventHeader { state_before, state_after, ..event.header.clone() })?;
    Ok(())
}
