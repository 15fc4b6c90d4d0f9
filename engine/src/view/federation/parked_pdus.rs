//! Events of other servers that wait for what it takes to judge them, and rooms whose members are still asked for: what
//! is taken up again after a restart.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    core::num::RoomNum,
    error::Result,
    store::{
        Direction, Key, Reader, Value, schema,
        schema::{Keyspace, PartialJoin},
    },
    view::View,
};

/// The rooms in which events wait. O(rooms).
pub struct ParkedRooms;

impl View for ParkedRooms {
    /// Their ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        rooms_with_rows(reader, &schema::PARKED_PDUS, |(room, _)| *room)
    }
}

/// The rooms in which receipts wait for what they are for. O(rooms).
pub struct RoomsWithEarlyReceipts;

impl View for RoomsWithEarlyReceipts {
    /// Their ids.
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        rooms_with_rows(reader, &schema::EARLY_RECEIPTS, |(room, _, _)| *room)
    }
}

/// The ids of the rooms with which keys begin; from each it is leapt to the next.
fn rooms_with_rows<K: Key, V: Value>(
    reader: &Reader,
    keyspace: &Keyspace<K, V>,
    room_of: impl Fn(&K) -> RoomNum,
) -> Result<Vec<String>> {
    let mut rooms = Vec::new();
    let mut from = RoomNum(0);
    loop {
        let mut next = None;
        reader.scan_between(keyspace, &from, &RoomNum(u64::MAX), Direction::Forward, |key: K, _| {
            next = Some(room_of(&key));
            false
        })?;
        let Some(room) = next else { return Ok(rooms) };
        rooms.push(reader.room_id(room)?.to_string());
        from = RoomNum(room.0 + 1);
    }
}

/// The servers whose events wait in a room. O(events that wait there), of which there are a thousand at most.
pub struct ParkedOrigins<'a> {
    /// The room's id.
    pub room_id: &'a str,
}

impl View for ParkedOrigins<'_> {
    type Output = BTreeSet<String>;

    fn read(&self, reader: &Reader) -> Result<BTreeSet<String>> {
        let mut origins = BTreeSet::new();
        let Some(room) = reader.room_num(self.room_id)? else { return Ok(origins) };
        reader.scan(&schema::PARKED_PDUS, &room, Direction::Forward, |_: (RoomNum, String), row| {
            origins.insert(row.origin);
            true
        })?;
        Ok(origins)
    }
}

/// The events of one server that wait in a room.
pub struct ParkedPdus<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The server.
    pub origin: &'a str,
}

/// An event that waits.
#[derive(Clone, Debug)]
pub struct WaitingPdu {
    /// Its id.
    pub event_id: String,
    /// When it came, in milliseconds since the epoch.
    pub since_ms: u64,
    /// The event as JSON; nothing of it has been believed yet.
    pub json: Bytes,
}

impl View for ParkedPdus<'_> {
    type Output = Vec<WaitingPdu>;

    fn read(&self, reader: &Reader) -> Result<Vec<WaitingPdu>> {
        let mut waiting = Vec::new();
        let Some(room) = reader.room_num(self.room_id)? else { return Ok(waiting) };
        reader.scan(
            &schema::PARKED_PDUS,
            &room,
            Direction::Forward,
            |(_, key): (RoomNum, String), row| {
                if row.origin == self.origin {
                    let event_id = row.event_id(&key).to_owned();
                    let json = row.json.into();
                    waiting.push(WaitingPdu { event_id, since_ms: row.since_ms, json });
                }
                true
            },
        )?;
        Ok(waiting)
    }
}

/// The rooms that this server has joined without their members, which are still to be asked for; each by its last such join, or,
/// where that is whole, by all earlier ones.
pub struct PartialRooms;

/// A room that lacks members, by one of its joins.
#[derive(Clone, Debug)]
pub struct PartialRoom {
    /// Its id.
    pub room_id: String,
    /// The join before which the state is to become whole.
    pub join_event_id: String,
    /// When it was joined, in milliseconds since the epoch.
    pub since_ms: u64,
    /// The servers that were in it before.
    pub servers: Vec<String>,
    /// Whether this server is in it no more, so that nobody tells it.
    pub is_left: bool,
    /// Whether the join is of an earlier stay, since which the room has become whole.
    pub is_past: bool,
}

impl View for PartialRooms {
    type Output = Vec<PartialRoom>;

    fn read(&self, reader: &Reader) -> Result<Vec<PartialRoom>> {
        let mut rows = BTreeMap::new();
        reader.scan(&schema::PARTIAL_JOINS, &(), Direction::Forward, |room: RoomNum, row| {
            rows.insert(room, row);
            true
        })?;
        // What others say of now is asked for first.
        let mut earlier = Vec::new();
        reader.scan(
            &schema::EARLIER_JOINS,
            &(),
            Direction::Forward,
            |(room, event_id): (RoomNum, String), ()| {
                if !rows.contains_key(&room) {
                    earlier.push((room, event_id));
                }
                true
            },
        )?;
        let mut rooms = Vec::with_capacity(rows.len() + earlier.len());
        for (room, row) in rows {
            rooms.push(PartialRoom::of(reader, room, row, false)?);
        }
        for (room, event_id) in earlier {
            let servers = reader.counted_servers(room)?.into_iter().map(|server| reader.text(server));
            let servers = servers.map(|name| Ok(name?.to_string())).collect::<Result<_>>()?;
            rooms.push(PartialRoom::of(reader, room, PartialJoin { event_id, servers }, true)?);
        }
        Ok(rooms)
    }
}

impl PartialRoom {
    fn of(reader: &Reader, room: RoomNum, row: PartialJoin, is_past: bool) -> Result<PartialRoom> {
        let PartialJoin { event_id, servers } = row;
        let is_left = !reader.is_server_in_room(&reader.shared.server_name, room)?;
        let join = reader.event_num(&event_id)?.map(|num| reader.event(num)).transpose()?;
        let since_ms = join.map(|join| join.pdu()).transpose()?.map_or(0, |join| join.origin_server_ts);
        let room_id = reader.room_id(room)?.to_string();
        Ok(PartialRoom { room_id, join_event_id: event_id, since_ms, servers, is_left, is_past })
    }
}
