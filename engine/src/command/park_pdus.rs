//! Events of other servers that cannot be judged yet are kept until they can be, so that a transaction is answered at once
//! and nothing that was acknowledged is lost.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    core::{event::Pdu, num::RoomNum},
    error::Result,
    room::RoomCtx,
    store::{
        Direction, Tx, schema,
        schema::{ParkedPdu, parked_key},
    },
};

/// Events that may wait in one room. With 64 KiB each at most, they are some megabytes as a rule. What finds no place is not
/// lost: an event that follows it leads to it again.
const PARKED_PER_ROOM_MAX: usize = 1_000;
/// Of these, events that one server sent: nobody crowds the others out.
const PARKED_PER_ORIGIN_MAX: usize = 250;

/// Keeps events that wait for what it takes to judge them.
pub struct ParkPdus {
    /// The room's id.
    pub room_id: String,
    /// The server that sent them.
    pub origin: String,
    /// The events as JSON.
    pub pdus: Vec<Bytes>,
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// The ids of those that are kept.
    pub kept: Vec<Arc<str>>,
    /// The ids of those for which there is no place.
    pub refused: Vec<Arc<str>>,
}

impl Command for ParkPdus {
    /// Errors: [`crate::What::Room`] not found.
    type Output = Parked;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<Parked> {
        let room = RoomCtx::load(tx, &self.room_id)?;
        // What another server sent under the same id may be a forgery, and the event itself must not be held up by one.
        let (mut of_origin, mut of_all) = (HashSet::new(), 0);
        tx.scan(&schema::PARKED_PDUS, &room.num, Direction::Forward, |(_, key): (RoomNum, String), row| {
            of_all += 1;
            if row.origin == self.origin {
                of_origin.insert(row.event_id(&key).to_owned());
            }
            true
        })?;
        let mut parked = Parked::default();
        for json in &self.pdus {
            // What is no event of the room's version has been refused before.
            let Ok(pdu) = Pdu::parse(room.version, json) else { continue };
            let event_id = pdu.event_id.to_string();
            if of_origin.contains(&event_id) {
                parked.kept.push(pdu.event_id);
                continue;
            }
            if of_all >= PARKED_PER_ROOM_MAX || of_origin.len() >= PARKED_PER_ORIGIN_MAX {
                parked.refused.push(pdu.event_id);
                continue;
            }
            let row = ParkedPdu {
                origin: self.origin.clone(),
                since_ms: tx.shared.clock.now_ms(),
                json: json.to_vec(),
            };
            tx.put(&schema::PARKED_PDUS, &(room.num, parked_key(&event_id, &self.origin)), &row);
            of_origin.insert(event_id);
            of_all += 1;
            parked.kept.push(pdu.event_id);
        }
        Ok(parked)
    }
}

/// Lets events of a server go that have been judged, or have waited for too long.
pub struct ReleasePdus {
    /// The room's id.
    pub room_id: String,
    /// The server that sent them.
    pub origin: String,
    /// Their ids.
    pub event_ids: Vec<String>,
}

impl Command for ReleasePdus {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let Some(room) = tx.room_num(&self.room_id)? else { return Ok(()) };
        for event_id in &self.event_ids {
            tx.delete(&schema::PARKED_PDUS, &(room, parked_key(event_id, &self.origin)));
            // Those that were kept before one event could wait for several servers.
            let old = (room, event_id.clone());
            if tx.get(&schema::PARKED_PDUS, &old)?.is_some_and(|row| row.origin == self.origin) {
                tx.delete(&schema::PARKED_PDUS, &old);
            }
        }
        Ok(())
    }
}
