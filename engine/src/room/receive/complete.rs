//! A state that lacked members becomes whole.
//!
//! Invariant: what came after the join, as history too, is judged again, each after what it follows and what allows it, by the states that it
//! would have been judged by; what is not allowed after all is withdrawn, and what was rejected and is allowed is taken in.
//! Afterwards nothing that follows the join tells that members were ever missing, but for the room's current state at each of
//! the events, which is what clients were told then; how far that goes is noted (`PARTIAL_STRETCHES`).

use std::{collections::HashSet, sync::Arc};

use super::{
    AtHand, GivenState, allowing, given_entries, judge_by_auth_events, judge_by_state,
    order::after_what_they_name,
    withdraw::{end_changes, withdraw},
};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos},
    error::{Missing, Result},
    room::{
        Event, RoomCtx,
        accept::{reinstate, rewrite_header, settle},
        fork, policy, redactions, state,
    },
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{EventHeader, EventStatus},
    },
    stream::Touch,
};

/// How many rejected events that came live are judged again, the first ones. Who lacks members rejects few that are allowed; and each
/// that is taken in may have a gap before it, so that a multitude would use up the positions that one batch can take. History that was
/// rejected gets no place in the timeline by that, and all of it is judged again.
pub(super) const REJECTED_JUDGED_MAX: usize = 200;

/// Puts the whole state before the join, `given`, in the place of the one that lacked members, and what followed on top.
/// If events of the state are not here, they are told as missing, and nothing is done; nor if the state is known by now.
pub(crate) fn complete_state(
    tx: &mut Tx,
    room: &mut RoomCtx,
    given: &GivenState,
    missing: &mut Missing,
) -> Result<()> {
    let Some(entries) = given_entries(tx, room, &given.state, &AtHand::default(), missing)? else {
        return Ok(());
    };
    let partial = partial_events(tx, room.num)?;
    let Some(join) = partial.iter().find(|event| event.event_id == given.event_id).cloned() else {
        return Ok(());
    };
    let whole = state::build(tx, room.num, entries)?;
    let ordered = after_what_they_name(&partial);
    let (is_left, followed) = (is_left(tx, room, given)?, followed(&ordered));
    let mut judged = Judged { is_left, followed, ..Judged::default() };
    let others = before_other_joins(tx, room, &partial, join.num)?;
    let states = States { join: join.num, lacking: join.header.state_before, whole, others };
    for event in ordered {
        // As it is now: it may have come to be behind a gap.
        let event = tx.event(event.num)?;
        // What follows another join whose state is not known yet, or leads to it, goes on without it.
        let Some(before) = states.before(tx, room, &event)? else { continue };
        judged.judge_again(tx, room, &event, before)?;
    }
    // The states of events are others now than the room's was when they came.
    room.head.forked = true;
    end_changes(tx, room, &join, &judged.withdrawn, judged.reinstated > 0)?;
    settle(tx, room, &join)?;
    if room.head.extremities.is_empty() {
        // The join was all that there was of the room.
        tx.delete(&schema::ROOM_HEADS, &room.num);
        tx.delete(&schema::PUBLIC_ROOMS, &room.num);
    } else {
        let whole_since = tx.next_position();
        // If this server has entered the room anew since, the stretch has ended there.
        if !tx.has(&schema::PARTIAL_STRETCHES, &(room.num, join.pos()))? {
            tx.put(&schema::PARTIAL_STRETCHES, &(room.num, join.pos()), &whole_since);
        }
        room.save(tx);
    }
    Ok(())
}

/// The events of the room whose state lacks members, in the order in which they came to be known.
fn partial_events(reader: &Reader, room: RoomNum) -> Result<Vec<Arc<Event>>, StorageError> {
    let mut nums: Vec<EventNum> = Vec::new();
    reader.scan(&schema::PARTIAL_STATES, &room, Direction::Forward, |_: (RoomNum, StreamPos), num| {
        nums.push(num);
        true
    })?;
    // What was rejected meanwhile is followed by others all the same.
    let mut off_timeline: Vec<EventNum> = Vec::new();
    reader.scan(&schema::OFF_TIMELINE, &room, Direction::Forward, |(_, num): (RoomNum, EventNum), ()| {
        off_timeline.push(num);
        true
    })?;
    reader.each_header(&off_timeline, |num, header| {
        if header.partial_state {
            nums.push(num);
        }
    })?;
    nums.sort_unstable();
    // A purge may have taken one, and left its row.
    reader.events_left(&nums)
}

/// The states before joins that left members out.
struct States {
    /// The join whose members have come.
    join: EventNum,
    /// The state before it without them.
    lacking: NodeId,
    whole: NodeId,
    /// Those before other joins, of which the members have not come.
    others: Vec<NodeId>,
}

impl States {
    /// The state before an event that follows the join, or leads to it; nothing if something that it follows still lacks members, or if
    /// it is itself another join that left members out, or leads to one.
    fn before(&self, tx: &mut Tx, room: &RoomCtx, event: &Event) -> Result<Option<NodeId>> {
        if event.num == self.join {
            return Ok(Some(self.whole));
        }
        let mut snapshots = Vec::with_capacity(event.header.prev.len() + 1);
        for num in &event.header.prev {
            let prev = tx.event(*num)?;
            if prev.header.partial_state {
                return Ok(None);
            }
            snapshots.push(prev.header.state_after);
        }
        if event.lacks_prev_events()? {
            let told = event.header.state_before;
            if is_other_join(tx, room, event)? || self.others.contains(&told) {
                return Ok(None);
            }
            // What another server told of the state before it is in the one that it had; history that leads to the join has that
            // before the join.
            snapshots.push(if told == self.lacking { self.whole } else { told });
        }
        Ok(Some(fork::merged(tx, room, snapshots)?))
    }
}

/// The states before the other joins among events that lack members.
fn before_other_joins(
    reader: &Reader,
    room: &RoomCtx,
    partial: &[Arc<Event>],
    join: EventNum,
) -> Result<Vec<NodeId>> {
    let mut states = Vec::new();
    for event in partial.iter().filter(|event| event.num != join) {
        if event.lacks_prev_events()? && is_other_join(reader, room, event)? {
            states.push(event.header.state_before);
        }
    }
    Ok(states)
}

/// Whether the event is a join of which the members that it left out are still asked for. A user who came in by way of another
/// server while this one was in the room has a join like any other.
fn is_other_join(reader: &Reader, room: &RoomCtx, event: &Event) -> Result<bool, StorageError> {
    let last = reader.get(&schema::PARTIAL_JOINS, &room.num)?;
    Ok(last.is_some_and(|last| *last.event_id == *event.event_id)
        || reader.has(&schema::EARLIER_JOINS, &(room.num, event.event_id.to_string()))?)
}

/// What has become of the events that were judged again.
#[derive(Default)]
struct Judged {
    /// Those that were part of the room and are not any more.
    withdrawn: Vec<EventNum>,
    /// How many are part of the room that were not.
    reinstated: usize,
    /// How many were looked at that had been rejected as they came live.
    rejected: usize,
    /// Whether this server has entered the room anew since: what came before that is at no end of it.
    is_left: bool,
    /// Events that accepted ones follow.
    followed: HashSet<EventNum>,
}

impl Judged {
    /// Judges an event by the state before it that is known now, and lets what follows it stand on what comes of that.
    fn judge_again(
        &mut self,
        tx: &mut Tx,
        room: &mut RoomCtx,
        event: &Arc<Event>,
        before: NodeId,
    ) -> Result<()> {
        let was_accepted = event.header.status == EventStatus::Accepted;
        let status = self.status(tx, room, event, before)?;
        let after = match event.state_key_id() {
            Some(key) if status != EventStatus::Rejected => state::set(tx, room.num, before, key, event.num)?,
            _ => before,
        };
        let header = EventHeader {
            state_before: before,
            state_after: after,
            // Of history nobody was told.
            room_state: if event.header.is_filled_in { after } else { event.header.room_state },
            partial_state: false,
            status,
            ..event.header.clone()
        };
        let is_accepted = status == EventStatus::Accepted;
        if was_accepted {
            let pos = tx.position_of(event);
            tx.delete(&schema::PARTIAL_STATES, &(room.num, pos));
            if !is_accepted {
                withdraw(tx, room, event, pos)?;
                self.withdrawn.push(event.num);
            }
        }
        if is_accepted && !was_accepted {
            self.reinstated += 1;
            return reinstate(tx, room, event, header);
        }
        rewrite_header(tx, event, header)?;
        if event.pdu()?.redacts.is_some() {
            let redaction = tx.event(event.num)?;
            redactions::take_effect(tx, room, &redaction)?;
            tx.touch(Touch::Withdrawn(room.num));
        }
        Ok(())
    }

    /// What becomes of an event. One that was rejected may be allowed after all: only the state that lacked members, or an event
    /// that was rejected by it, stood against it.
    fn status(&mut self, tx: &mut Tx, room: &RoomCtx, event: &Event, before: NodeId) -> Result<EventStatus> {
        let was = event.header.status;
        let was_rejected = was == EventStatus::Rejected;
        let takes_share = was_rejected && !event.header.is_filled_in;
        self.rejected += usize::from(takes_share);
        let is_left_out = takes_share && self.rejected > REJECTED_JUDGED_MAX;
        if is_left_out || !is_allowed(tx, room, event, before)? {
            return Ok(EventStatus::Rejected);
        }
        if was_rejected {
            // What was replaced meanwhile would be the last that clients are told of the entry.
            // And history would be told as if it were new.
            let is_past = event.header.is_filled_in
                || self.followed.contains(&event.num) && is_replaced(tx, room, event)?;
            // Nobody has asked for a policy server's signature on it.
            let is_shown =
                !self.is_left && !is_past && policy::lacks_signature(tx, room, &*event.pdu()?)?.is_none();
            return Ok(if is_shown { EventStatus::Accepted } else { EventStatus::SoftFailed });
        }
        Ok(was)
    }
}

/// Whether this server has entered the room anew since the join.
fn is_left(reader: &Reader, room: &RoomCtx, join: &GivenState) -> Result<bool, StorageError> {
    let last = reader.get(&schema::PARTIAL_JOINS, &room.num)?;
    Ok(!room.head.partial_state || last.is_some_and(|last| *last.event_id != *join.event_id))
}

/// The events that accepted ones among these follow, if need be by way of others; each comes after what it follows.
fn followed(ordered: &[Arc<Event>]) -> HashSet<EventNum> {
    let mut followed = HashSet::new();
    for event in ordered.iter().rev() {
        if event.header.status == EventStatus::Accepted || followed.contains(&event.num) {
            followed.extend(event.header.prev.iter().copied());
        }
    }
    followed
}

/// Whether a later event that was told of stands in the place of this one.
fn is_replaced(reader: &Reader, room: &RoomCtx, event: &Event) -> Result<bool, StorageError> {
    let Some(key) = event.state_key_id() else { return Ok(false) };
    let Some(num) = reader.state_num_at(room.num, room.head.state, key)? else { return Ok(false) };
    let standing = reader.event(num)?;
    Ok(standing.header.status == EventStatus::Accepted && standing.header.depth > event.header.depth)
}

/// An event that names one which has been rejected since is rejected too.
fn is_allowed(tx: &mut Tx, room: &RoomCtx, event: &Event, before: NodeId) -> Result<bool> {
    let pdu = event.pdu()?;
    // Everything that it names was here when it came.
    let allowing = allowing(tx, room, &pdu, &mut AtHand::default(), &mut Missing::default())?;
    let by_auth_events = match &allowing {
        Some(allowing) => judge_by_auth_events(room, &pdu, allowing)?,
        None => Ok(()),
    };
    Ok(by_auth_events.is_ok() && judge_by_state(tx, room, &pdu, before, &[])?.is_ok())
}
