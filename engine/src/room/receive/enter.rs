//! Entering a room that this server was not in, or no longer: its state is what the resident server tells.
//!
//! Invariant: the state's events are all here before the room is entered, and most members' rows with them (`entrants`);
//! the room's head, what else its members need and the join are one batch, which makes the room.

use std::sync::Arc;

use super::{
    AtHand, Outcome, Standing, allowing, are_of_another_room,
    copies::{fuller, is_of_another_room},
    given_entries, is_of_other_version, judge_by_auth_events, judge_by_state, known_in_graph, receive,
};
use crate::{
    core::{
        checked::Refused,
        event::Pdu,
        num::{EventNum, NodeId, StateKeyId},
    },
    error::{Missing, Result},
    room::{
        RoomCtx,
        accept::{Arrival, accept, follow_changes},
        entrance, entrants, members,
        policy::Recommendation,
        state::{self, StateChange},
    },
    store::{Reader, StorageError, Tx, schema::EventStatus},
};

#[cfg(test)]
mod tests;

/// Makes the room's head out of the state before the join and the join itself, as `resident` tells it. `partial` when the state
/// lacks members.
///
/// A room that this server had left goes on from there: what it missed is a gap; and what its users said there of which the
/// resident had not been told when it let them in ([`crate::view::federation::UntoldEnds`]) is another end of the graph.
pub(crate) fn enter(
    tx: &mut Tx,
    room: &mut RoomCtx,
    join: &Arc<Pdu>,
    (untold, state_ids): (&[Arc<str>], &[Arc<str>]),
    partial: bool,
    missing: &mut Missing,
) -> Result<Outcome> {
    let mut at_hand = AtHand::default();
    let known = at_hand.find(tx, &join.event_id)?;
    if is_of_another_room(room, join, known.as_ref()) {
        return Ok(Outcome::Refused(Refused::OtherRoom));
    }
    if known.as_ref().is_some_and(|event| event.header.status != EventStatus::Outlier) {
        return Ok(Outcome::Known);
    }
    let join = &fuller(known.as_ref(), join)?;
    let named = join.prev_events.iter().chain(&join.auth_events);
    if are_of_another_room(tx, room, named, &mut at_hand)? {
        return Ok(Outcome::Refused(Refused::OtherRoom));
    }
    let prev = known_in_graph(tx, room.num, &join.prev_events)?;
    if !prev.is_empty() && join.prev_events.iter().all(|id| prev.iter().any(|event| event.event_id == *id)) {
        // Nothing was missed meanwhile, so that the join is an event like any other.
        let recommendation = Recommendation::NotNeeded;
        let standing = Standing { given: None, is_hearsay: false, recommendation };
        return receive(tx, room, join, standing, &mut at_hand, missing);
    }
    let Some(allowing) = allowing(tx, room, join, &mut at_hand, missing)? else {
        return Ok(Outcome::Waiting);
    };
    let Some(mut entries) = given_entries(tx, room, state_ids, &at_hand, missing)? else {
        return Ok(Outcome::Waiting);
    };
    // Of two events for one entry, which no honest server tells of, one counts everywhere.
    entries.sort_unstable();
    entries.dedup_by_key(|(key, _)| *key);
    if was_created_otherwise(tx, room, &entries)? {
        return Ok(Outcome::Refused(Refused::OtherVersion));
    }
    let is_new = room.head.extremities.is_empty();
    let mut snapshot = state::build(tx, room.num, entries.clone())?;
    if partial && !is_new {
        snapshot = with_own_outside(tx, room, join, snapshot, &mut entries)?;
    }
    let instead = if partial { allowing.auth.as_slice() } else { &[] };
    let verdict = match judge_by_auth_events(room, join, &allowing)? {
        Ok(()) => judge_by_state(tx, room, join, snapshot, instead)?,
        denied => denied,
    };
    if let Err(denied) = verdict {
        return Ok(Outcome::Rejected(denied));
    }
    // The others will merge what they have not heard of yet.
    let untold = known_in_graph(tx, room.num, untold)?;
    let before = std::mem::replace(&mut room.head.state, snapshot);
    room.head.extremities.retain(|(num, _)| untold.iter().any(|event| event.num == *num));
    room.head.partial_state = partial;
    room.head.forked |= !is_new;
    let arrival = Arrival {
        pdu: join.clone(),
        known_as: known.map(|event| event.num),
        prev: prev.iter().map(|event| event.num).collect(),
        auth: allowing.auth,
        state_before: snapshot,
        partial_state: partial,
        transaction: None,
        is_new: false,
    };
    if is_new {
        members::fill(tx, room, &entries)?;
        accept(tx, room, arrival)?;
    } else {
        come_back(tx, room, arrival, before)?;
    }
    Ok(Outcome::Accepted)
}

/// A state that leaves members out, with those users of this server in it of whom is known that they are not in the room: they are
/// invited, or banned, or have left. Until the members come they are what they were. Not who joins: they may have been invited since.
fn with_own_outside(
    tx: &mut Tx,
    room: &RoomCtx,
    join: &Pdu,
    told: NodeId,
    entries: &mut Vec<(StateKeyId, EventNum)>,
) -> Result<NodeId> {
    let Some(kind) = tx.text_num("m.room.member")? else { return Ok(told) };
    let mut outside = Vec::new();
    for change in tx.state_difference(room.num, room.head.state, told)? {
        let (Some(known), None) = (change.before, change.after) else { continue };
        if change.key.kind() != kind {
            continue;
        }
        let user_id = tx.text(change.key.state_key())?;
        if join.state_key.as_deref() != Some(&*user_id)
            && members::is_local(tx, &user_id)
            && tx.event(known)?.pdu()?.membership() != Some("join")
        {
            outside.push((change.key, known));
        }
    }
    if outside.is_empty() {
        return Ok(told);
    }
    entries.extend(outside);
    entries.sort_unstable();
    Ok(state::build(tx, room.num, entries.clone())?)
}

/// Whether the create event of a state says another version than the room is taken to be of.
fn was_created_otherwise(
    reader: &Reader,
    room: &RoomCtx,
    entries: &[(StateKeyId, EventNum)],
) -> Result<bool, StorageError> {
    let (Some(kind), Some(state_key)) = (reader.text_num("m.room.create")?, reader.text_num("")?) else {
        return Ok(false);
    };
    let key = StateKeyId::new(kind, state_key);
    match entries.iter().find(|(entry, _)| *entry == key) {
        Some((_, num)) => {
            let pdu = reader.event(*num)?.pdu()?;
            Ok(is_of_other_version(room, &pdu))
        }
        None => Ok(false),
    }
}

/// Writes the rows of the members among events that were stored, if the room is one that is about to be entered: `stored`
/// tells what became of each, and `at_hand` has them.
pub(crate) fn prepare(
    tx: &mut Tx,
    room: &RoomCtx,
    stored: &[(Arc<str>, Outcome)],
    at_hand: &mut AtHand,
) -> Result<()> {
    if !room.head.extremities.is_empty() {
        return Ok(());
    }
    let mut pos = None;
    for (event_id, _) in stored.iter().filter(|(_, outcome)| *outcome == Outcome::Stored) {
        let Some(event) = at_hand.find(tx, event_id)? else { continue };
        if &*event.pdu()?.kind == "m.room.member" {
            let pos = *pos.get_or_insert_with(|| tx.next_position());
            entrants::prepare(tx, room.num, &event, pos)?;
        }
    }
    Ok(())
}

/// Takes in the join by which this server comes back to a room, with what changed while it was not there: its state was `before` here.
fn come_back(tx: &mut Tx, room: &mut RoomCtx, join: Arrival, before: NodeId) -> Result<()> {
    let user = join.pdu.state_key.as_deref().map(|user_id| tx.text_num(user_id)).transpose()?.flatten();
    let key = tx.text_num(&join.pdu.kind)?.zip(user).map(|(kind, user)| StateKeyId::new(kind, user));
    let changes = tx.state_difference(room.num, before, join.state_before)?;
    // What becomes of the one who joins follows from the join.
    let (own, others): (Vec<StateChange>, Vec<StateChange>) =
        changes.into_iter().partition(|change| Some(change.key) == key);
    // Before the join, which is told to the servers that are there now.
    follow_changes(tx, room, &others)?;
    let event = accept(tx, room, join)?;
    let pos = tx.position_of(&event);
    entrance::note(tx, room.num, pos);
    // Against an end that was not left behind, an earlier join of the same user may stand and this one not. It is of the state that was
    // told, which the join was taken to change from.
    for change in own {
        let stands = tx.state_num_at(room.num, room.head.state, change.key)?;
        if stands == change.after && stands != Some(event.num) {
            follow_changes(tx, room, &[change])?;
        }
    }
    Ok(())
}
