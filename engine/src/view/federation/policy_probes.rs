//! Events by which it can be seen whether a policy server signs.

use std::collections::BTreeSet;

use crate::{
    core::num::{RoomNum, StreamPos},
    error::Result,
    room::{
        RoomCtx,
        policy::{PolicyServer, UnsignedEvent},
    },
    store::{Direction, Reader, schema},
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
    /// Of the newest events of the room, those that it has signed, the newest first, and each by somebody else: it may have come to refuse
    /// all that one of them says.
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
        let (mut found, mut senders) = (Vec::new(), BTreeSet::new());
        for event in reader.events(&nums)? {
            if found.len() >= self.limit {
                break;
            }
            let pdu = event.pdu()?;
            if !senders.contains(&pdu.sender) && self.policy.has_signed(room.version, &pdu)? {
                senders.insert(pdu.sender.clone());
                found.push(UnsignedEvent::new(room.version, pdu, self.policy.clone()));
            }
        }
        Ok(found)
    }
}
