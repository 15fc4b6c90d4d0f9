//! Events by which it can be seen whether a policy server signs.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    core::{
        event::Pdu,
        num::{RoomNum, StreamPos},
    },
    error::Result,
    room::{
        RoomCtx,
        policy::{PolicyServer, UnsignedEvent},
    },
    store::{
        Direction, Reader, StorageError,
        schema::{self, Membership},
    },
    view::View,
};

/// How many events are looked at, the newest of the room.
const LOOKED_AT_MAX: usize = 200;

/// Events that a policy server has signed by the key that the room names.
pub struct PolicyProbes<'a> {
    /// The room's id.
    pub room_id: &'a str,
    /// Who is to have signed them.
    pub policy: &'a PolicyServer,
    /// The most events to give.
    pub limit: usize,
}

impl View for PolicyProbes<'_> {
    /// Of the newest events of the room, those that it has signed of who is in the room now: the newest first, each by somebody else, as it
    /// may have come to refuse all that one of them says; and last the oldest, as those who spoke since may all be such.
    ///
    /// Errors: [`crate::What::Room`] not found.
    type Output = Vec<UnsignedEvent>;

    fn read(&self, reader: &Reader) -> Result<Vec<UnsignedEvent>> {
        let room = RoomCtx::load(reader, self.room_id)?;
        let mut nums = Vec::new();
        reader.scan(
            &schema::TIMELINE,
            &room.num,
            Direction::Backward,
            |(_, _): (RoomNum, StreamPos), num| {
                nums.push(num);
                nums.len() < LOOKED_AT_MAX
            },
        )?;
        let events = reader.events(&nums)?;
        let (mut found, mut senders): (Vec<Arc<Pdu>>, _) = (Vec::new(), BTreeSet::new());
        let newest = if self.limit > 1 { self.limit - 1 } else { self.limit };
        for event in &events {
            if found.len() >= newest {
                break;
            }
            let pdu = event.pdu()?;
            if !senders.contains(&pdu.sender) && self.is_probe(reader, &room, &pdu)? {
                senders.insert(pdu.sender.clone());
                found.push(pdu);
            }
        }
        for event in events.iter().rev() {
            if found.len() >= self.limit {
                break;
            }
            let pdu = event.pdu()?;
            if self.is_probe(reader, &room, &pdu)? {
                if found.iter().all(|other| other.event_id != pdu.event_id) {
                    found.push(pdu);
                }
                break;
            }
        }
        let unsigned = |pdu| UnsignedEvent::new(room.version, pdu, self.policy.clone());
        Ok(found.into_iter().map(unsigned).collect())
    }
}

impl PolicyProbes<'_> {
    /// Whether it has signed the event, whose sender is in the room now: whom it has come to refuse is likely not.
    fn is_probe(&self, reader: &Reader, room: &RoomCtx, pdu: &Pdu) -> Result<bool, StorageError> {
        if !self.policy.shows_by(room.version, pdu)? {
            return Ok(false);
        }
        let Some(sender) = reader.user_num(&pdu.sender)? else { return Ok(false) };
        Ok(reader.membership(sender, room.num)? == Some(Membership::Join))
    }
}
