//! Events of a room's state that cannot be checked when the room is entered, since the keys of the servers that signed them cannot be
//! had: a server of a member is away, and nobody has told its keys.
//!
//! Invariant: nothing of them is believed, and nothing of them is lost: they are kept with what is allowed by them until the keys are
//! here, and are adopted into the room's state then as what another server tells of it ([`super::receive::adopt_state`]). Until then
//! nothing is rejected for want of a membership that one of them tells of.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

use super::{Event, RoomCtx, accept::Arrival, gap, state};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, TextNum},
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{EventStatus, UncheckedEvent, UncheckedMember},
    },
};

/// Of whose membership an event of the state tells, if it does.
pub(crate) fn member_of(event: &UncheckedEvent) -> Option<String> {
    #[derive(Deserialize)]
    struct Member {
        #[serde(rename = "type")]
        kind: String,
        state_key: String,
    }
    let member = serde_json::from_slice::<Member>(&event.json).ok().filter(|_| event.is_state)?;
    (member.kind == "m.room.member").then_some(member.state_key)
}

/// What is known of the membership that a sender has in the state before their event, where that denies it.
pub(super) enum SenderBefore {
    /// What the state says.
    AsTold,
    /// Nothing yet: an event that waits tells of it.
    Unchecked,
    /// The state has none, since what tells of it was adopted into the room's state only behind what the event follows; with it the
    /// state is this.
    Adopted(NodeId),
}

/// Looks whether the state before an event lacks its sender because what tells of them could not be checked when the room was entered.
/// `is_told` if that state is another server's word. O(1).
pub(super) fn sender_before(
    tx: &mut Tx,
    room: &RoomCtx,
    arrival: &Arrival,
    is_told: bool,
) -> Result<SenderBefore, StorageError> {
    const MEMBER: &str = "m.room.member";
    let sender = &arrival.pdu.sender;
    if tx.state_event(room.num, arrival.state_before, MEMBER, sender)?.is_some() {
        return Ok(SenderBefore::AsTold);
    }
    if tx.has(&schema::UNCHECKED_MEMBERS, &(room.num, sender.to_string()))? {
        return Ok(SenderBefore::Unchecked);
    }
    let Some(member) = tx.state_event(room.num, room.head.state, MEMBER, sender)? else {
        return Ok(SenderBefore::AsTold);
    };
    // What came into the room as any other event stands where the graph shows it.
    let is_adopted = member.header.status == EventStatus::Outlier && has_told_states(tx, room.num)?;
    let is_named = arrival.auth.iter().any(|allowing| allowing.num == member.num);
    match member.state_key_id().filter(|_| is_adopted && is_named && !is_told) {
        Some(key) => {
            let snapshot = state::set(tx, room.num, arrival.state_before, key, member.num)?;
            Ok(SenderBefore::Adopted(snapshot))
        }
        None => Ok(SenderBefore::AsTold),
    }
}

fn has_told_states(reader: &Reader, room: RoomNum) -> Result<bool, StorageError> {
    let mut has = false;
    reader.scan(&schema::TOLD_STATES, &room, Direction::Forward, |_: (RoomNum, EventNum), ()| {
        has = true;
        false
    })?;
    Ok(has)
}

/// Notes of an event that was taken in whether its state has a membership that does not follow from what it follows.
pub(super) fn note_adopted(tx: &mut Tx, event: &Event, stands_on_adopted: bool) {
    if stands_on_adopted {
        tx.put(&schema::TOLD_STATES, &(event.header.room, event.num), &());
    }
}

/// The event with whose state the one is compared that the events are part of which waited: that before which they were told, or, where
/// a purge has taken that, one of the room's last.
pub(crate) fn compared_with(
    reader: &Reader,
    room: &RoomCtx,
    before: &str,
) -> Result<Option<Arc<str>>, StorageError> {
    if gap::in_graph(reader, before)?.is_some() {
        return Ok(Some(before.into()));
    }
    Ok(room.head.extremities.first().map(|(_, event_id)| event_id.as_str().into()))
}

/// Keeps an event until the keys of a server are here.
pub(crate) fn keep(tx: &mut Tx, room: RoomNum, server: TextNum, event_id: &str, event: &UncheckedEvent) {
    tx.put(&schema::UNCHECKED_EVENTS, &(room, server, event_id.to_owned()), event);
    if let Some(user_id) = member_of(event) {
        let member = UncheckedMember { server, event_id: event_id.to_owned() };
        tx.put(&schema::UNCHECKED_MEMBERS, &(room, user_id), &member);
    }
}

/// Lets an event go. A state has one event for each user.
pub(crate) fn let_go(
    tx: &mut Tx,
    room: RoomNum,
    server: TextNum,
    event_id: &str,
    event: &UncheckedEvent,
) -> Result<(), StorageError> {
    tx.delete(&schema::UNCHECKED_EVENTS, &(room, server, event_id.to_owned()));
    let Some(user_id) = member_of(event) else { return Ok(()) };
    let key = (room, user_id);
    if tx.get(&schema::UNCHECKED_MEMBERS, &key)?.is_some_and(|member| member.event_id == event_id) {
        tx.delete(&schema::UNCHECKED_MEMBERS, &key);
    }
    Ok(())
}

/// Lets all events of a room go. O(events that wait there).
pub(crate) fn let_all_go(tx: &mut Tx, room: RoomNum) -> Result<(), StorageError> {
    let mut keys = Vec::new();
    tx.scan(&schema::UNCHECKED_EVENTS, &room, Direction::Forward, |key, _| {
        keys.push(key);
        true
    })?;
    let mut users = Vec::new();
    tx.scan(&schema::UNCHECKED_MEMBERS, &room, Direction::Forward, |key, _| {
        users.push(key);
        true
    })?;
    keys.iter().for_each(|key| tx.delete(&schema::UNCHECKED_EVENTS, key));
    users.iter().for_each(|key| tx.delete(&schema::UNCHECKED_MEMBERS, key));
    Ok(())
}

/// For whose keys the events of a room wait, by their ids. O(events that wait there).
pub(crate) fn waited_for(reader: &Reader, room: RoomNum) -> Result<HashMap<Arc<str>, TextNum>, StorageError> {
    let mut servers = HashMap::new();
    reader.scan(
        &schema::UNCHECKED_EVENTS,
        &room,
        Direction::Forward,
        |(_, server, event_id): (RoomNum, TextNum, String), _| {
            servers.insert(event_id.into(), server);
            true
        },
    )?;
    Ok(servers)
}

/// When the newest of the events came that wait in a room, in milliseconds since the epoch; zero if there is none. O(events that
/// wait there).
pub(crate) fn newest_ms(reader: &Reader, room: RoomNum) -> Result<u64, StorageError> {
    let mut newest_ms = 0;
    reader.scan(
        &schema::UNCHECKED_EVENTS,
        &room,
        Direction::Forward,
        |_: (RoomNum, TextNum, String), row| {
            newest_ms = newest_ms.max(row.since_ms);
            true
        },
    )?;
    Ok(newest_ms)
}
