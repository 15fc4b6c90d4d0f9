//! Events of a room's state that cannot be checked when the room is entered, since the keys of the servers that signed them cannot be
//! had: a server of a member is away, and nobody has told its keys.
//!
//! Invariant: nothing of them is believed, and nothing of them is lost: they are kept with what is allowed by them until the keys are
//! here, and are adopted into the room's state then as what another server tells of it ([`super::receive::adopt_state`]). Until then
//! nothing is rejected for want of a membership that one of them tells of.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

use crate::{
    core::num::{RoomNum, TextNum},
    store::{
        Direction, Reader, StorageError, Tx, schema,
        schema::{UncheckedEvent, UncheckedMember},
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

/// Whether the user's membership is told by an event that waits. O(1).
pub(crate) fn is_member(reader: &Reader, room: RoomNum, user_id: &str) -> Result<bool, StorageError> {
    reader.has(&schema::UNCHECKED_MEMBERS, &(room, user_id.to_owned()))
}

/// Keeps an event until the keys of a server are here.
pub(crate) fn keep(tx: &mut Tx, room: RoomNum, server: TextNum, event_id: &str, event: &UncheckedEvent) {
    tx.put(&schema::UNCHECKED_EVENTS, &(room, server, event_id.to_owned()), event);
    if let Some(user_id) = member_of(event) {
        let member = UncheckedMember { server, event_id: event_id.to_owned() };
        tx.put(&schema::UNCHECKED_MEMBERS, &(room, user_id), &member);
    }
}

/// Lets an event go. Another one that tells of the same user goes on doing so.
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
