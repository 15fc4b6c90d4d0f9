//! How deliveries to other servers fare, for administrators.

use std::sync::Arc;

use crate::{
    core::num::{RoomNum, StreamPos, TextNum},
    error::{Error, Result, What},
    outbox::{self, delivery},
    store::{Direction, Reader, schema, schema::Destination},
    view::View,
};

/// How deliveries to a server fare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationStatus {
    /// The server.
    pub destination: Arc<str>,
    /// Up to here it has everything.
    pub delivered_to: StreamPos,
    /// How often in a row it could not be reached, or since an administrator had it tried.
    pub failures: u32,
    /// Since when it cannot be reached, whoever had it tried meanwhile, in milliseconds since the epoch; zero without failures.
    pub failing_since_ms: u64,
    /// When it was last tried in vain, in milliseconds since the epoch; zero without failures.
    pub failed_ms: u64,
    /// When it will be tried again, in milliseconds since the epoch; zero for at once.
    pub retry_ms: u64,
    /// When it last took something, in milliseconds since the epoch; zero for never.
    pub succeeded_ms: u64,
    /// How many rooms have events for it.
    pub rooms_waiting: usize,
    /// How many messages to devices wait for it.
    pub messages_waiting: u32,
}

/// Of all servers that ever were in a room with this one, or were sent anything, those with such a name, by name. O(all of them).
pub struct Destinations<'a>(pub &'a dyn Fn(&str) -> bool);

impl View for Destinations<'_> {
    type Output = Vec<DestinationStatus>;

    fn read(&self, reader: &Reader) -> Result<Vec<DestinationStatus>> {
        let mut found = Vec::new();
        for (server, _) in delivery::known_servers(reader, reader.shared.clock.now_ms())? {
            let name = reader.text(server)?;
            if (self.0)(&name) {
                found.push(status(reader, server)?);
            }
        }
        found.sort_by(|a, b| a.destination.cmp(&b.destination));
        Ok(found)
    }
}

/// One of them, by its name.
pub struct DestinationOf<'a>(pub &'a str);

impl View for DestinationOf<'_> {
    /// Errors: [`What::Server`] not found.
    type Output = DestinationStatus;

    fn read(&self, reader: &Reader) -> Result<DestinationStatus> {
        status(reader, known(reader, self.0)?)
    }
}

fn known(reader: &Reader, name: &str) -> Result<TextNum> {
    let not_found = || Error::NotFound(What::Server);
    let server = reader.text_num(name)?.ok_or_else(not_found)?;
    if outbox::is_known(reader, server)? { Ok(server) } else { Err(not_found()) }
}

fn status(reader: &Reader, server: TextNum) -> Result<DestinationStatus> {
    let row: Destination = outbox::destination(reader, server)?;
    let is_failing = row.failures > 0;
    Ok(DestinationStatus {
        destination: reader.text(server)?,
        delivered_to: row.delivered_to,
        failures: row.failures,
        failing_since_ms: if is_failing { row.failing_since_ms } else { 0 },
        failed_ms: if is_failing { row.failed_ms } else { 0 },
        retry_ms: row.retry_ms,
        succeeded_ms: row.succeeded_ms,
        rooms_waiting: rooms_waiting(reader, server, row.delivered_to)?,
        messages_waiting: row.messages_waiting,
    })
}

/// How many rooms have events for the server. Those of before the start are known once it has been tried again; where nothing is
/// delivered, as without federation, all are looked for.
fn rooms_waiting(reader: &Reader, server: TextNum, delivered_to: StreamPos) -> Result<usize> {
    let waiting = &reader.shared.outbox;
    if let Some(count) = waiting.rooms_waiting(server) {
        return Ok(count);
    }
    let known_to = if waiting.is_loaded() { waiting.dispatched_to() } else { reader.pos };
    Ok(delivery::rooms_with_events(reader, server, delivered_to, known_to)?.len())
}

/// A room that another server is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomForServer {
    /// The room's id.
    pub room_id: Arc<str>,
    /// The position of the last event there that this server sent out; zero if it never did.
    pub last_event: StreamPos,
}

/// The rooms that a server is in now. O(rooms that it ever was in).
pub struct DestinationRooms<'a>(pub &'a str);

impl View for DestinationRooms<'_> {
    /// Errors: [`What::Server`] not found.
    type Output = Vec<RoomForServer>;

    fn read(&self, reader: &Reader) -> Result<Vec<RoomForServer>> {
        let server = known(reader, self.0)?;
        let mut rooms: Vec<RoomNum> = Vec::new();
        reader.scan(&schema::SERVER_STAYS, &server, Direction::Forward, |(_, room, _), end| {
            if end == StreamPos::MAX {
                rooms.push(room);
            }
            true
        })?;
        let mut found = Vec::with_capacity(rooms.len());
        for room in rooms {
            let mut last_event = StreamPos::ZERO;
            reader.scan(
                &schema::OUTGOING_EVENTS,
                &room,
                Direction::Backward,
                |(_, pos): (RoomNum, StreamPos), _| {
                    last_event = pos;
                    false
                },
            )?;
            found.push(RoomForServer { room_id: reader.room_id(room)?, last_event });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture::World, view::federation::DueDestinations};

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const THERE: &str = "there.example";

    #[test]
    fn rooms_wait_also_while_nothing_is_delivered() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.join(ROOM, "@bob:there.example");
        let waiting = || world.engine.read(&DestinationOf(THERE)).unwrap().rooms_waiting;
        world.message(ROOM, ALICE, "hello");
        assert_eq!(waiting(), 1);
        // The same when somebody begins to ask what is to go out.
        for _ in 0..2 {
            world.engine.read(&DueDestinations { limit: 1, laggards_max: 1 }).unwrap();
        }
        assert_eq!(waiting(), 1);
    }
}
