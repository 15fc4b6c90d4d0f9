//! What waits in rooms for the keys of servers ([`crate::room::unchecked`]).

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    core::{
        num::{RoomNum, TextNum},
        version::RoomVersion,
    },
    error::Result,
    room::RoomCtx,
    store::{Direction, Reader, schema},
    view::View,
};

/// Which servers' keys are waited for in which rooms. O(events that wait).
pub struct AwaitedKeys;

impl View for AwaitedKeys {
    /// A server, and a room's id; each pair once.
    type Output = Vec<(String, String)>;

    fn read(&self, reader: &Reader) -> Result<Self::Output> {
        let mut pairs: BTreeSet<(RoomNum, TextNum)> = BTreeSet::new();
        reader.scan(
            &schema::UNCHECKED_EVENTS,
            &(),
            Direction::Forward,
            |(room, server, _): (RoomNum, TextNum, String), _| {
                pairs.insert((room, server));
                true
            },
        )?;
        let name = |(room, server)| Ok((reader.text(server)?.to_string(), reader.room_id(room)?.to_string()));
        pairs.into_iter().map(name).collect()
    }
}

/// For which servers' keys events of a room wait. O(servers).
pub struct AwaitedServers<'a> {
    /// The room's id.
    pub room_id: &'a str,
}

impl View for AwaitedServers<'_> {
    /// The servers' names.
    type Output = HashSet<String>;

    fn read(&self, reader: &Reader) -> Result<HashSet<String>> {
        let mut servers = HashSet::new();
        let Some(room) = reader.room_num(self.room_id)? else { return Ok(servers) };
        let mut next = Some(TextNum(0));
        while let Some(start) = next.take() {
            reader.scan_between(
                &schema::UNCHECKED_EVENTS,
                &(room, start),
                &RoomNum(room.0 + 1),
                Direction::Forward,
                |(_, server, _): (RoomNum, TextNum, String), _| {
                    next = Some(server);
                    false
                },
            )?;
            if let Some(server) = next.as_mut() {
                servers.insert(reader.text(*server)?.to_string());
                *server = TextNum(server.0 + 1);
            }
        }
        Ok(servers)
    }
}

/// The events that wait in a room for the keys of a server, behind one of them.
pub struct UncheckedEvents<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// The server.
    pub server: &'a str,
    /// The id of the last one that was seen; empty for the first.
    pub after: &'a str,
    /// How many at most.
    pub limit: usize,
}

/// Events that wait.
#[derive(Clone, Debug, Default)]
pub struct WaitingForKeys {
    /// The room's version; `None` while this server is not in it.
    pub version: Option<&'static RoomVersion>,
    /// Their ids, in this order, and the events as JSON.
    pub events: Vec<(Arc<str>, Bytes)>,
}

impl View for UncheckedEvents<'_> {
    type Output = WaitingForKeys;

    fn read(&self, reader: &Reader) -> Result<WaitingForKeys> {
        let Some((room, server)) = reader.room_num(self.room_id)?.zip(reader.text_num(self.server)?) else {
            return Ok(WaitingForKeys::default());
        };
        let mut events = Vec::new();
        reader.scan_between(
            &schema::UNCHECKED_EVENTS,
            &(room, server, self.after.to_owned()),
            &(room, TextNum(server.0 + 1)),
            Direction::Forward,
            |(_, _, event_id): (RoomNum, TextNum, String), row| {
                if event_id != self.after {
                    events.push((event_id.into(), row.json.into()));
                }
                events.len() < self.limit
            },
        )?;
        let is_here = reader.is_server_in_room(&reader.shared.server_name, room)?;
        let version = RoomCtx::find(reader, self.room_id)?.filter(|_| is_here).map(|room| room.version);
        Ok(WaitingForKeys { version, events })
    }
}
