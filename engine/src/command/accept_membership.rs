//! `PUT /send_join`, `/send_knock`, `/send_leave`: another server's user changes their membership by way of this one.
//!
//! Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms".

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    command::{Command, Lanes, ReceivePdus},
    core::checked::CheckedPdu,
    error::{Denied, Invalid, Missing, Result},
    room::{
        RoomCtx,
        handshake::{self, Handshake},
        outgoing,
        receive::{Outcome, denied_by_present},
        stripped_state::identifying_state,
    },
    store::{Tx, schema::EventStatus},
};

/// A membership event that another server submits.
pub struct AcceptMembership {
    /// The room's id.
    pub room_id: String,
    /// The event's id.
    pub event_id: String,
    /// What it must be.
    pub handshake: Handshake,
    /// The event, checked; a join that our user vouches for has been countersigned before
    /// ([`crate::view::federation::CountersignJoin`]).
    pub event: Arc<CheckedPdu>,
    /// The server that submits it.
    pub server: String,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum AcceptedMembership {
    /// It is part of the room, perhaps since an earlier attempt. The answer to a join is
    /// [`crate::view::federation::JoinState`].
    Accepted {
        /// The event as it goes to the other servers.
        event: Bytes,
        /// After a knock, the events that tell what room it is.
        room_state: Vec<Bytes>,
    },
    /// It follows events that are not here, or the room's policy server has not signed it; it can be submitted again then.
    Waiting(Missing),
}

impl Command for AcceptMembership {
    /// Errors: [`crate::What::Room`] not found, if this server is not in the room; [`Denied::ServerAcl`];
    /// [`Invalid::Parameter`] when the event is not what the endpoint takes; [`Denied::Rule`] when the room refuses it.
    type Output = AcceptedMembership;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id).event_ids([&self.event])
    }

    fn run(&self, tx: &mut Tx) -> Result<AcceptedMembership> {
        let room = handshake::resident_room(tx, &self.room_id, &self.server)?;
        let pdu = self.event.pdu();
        handshake::check_submitted(pdu, &self.room_id, &self.event_id, &self.server, self.handshake)?;
        // Before it comes in, so that a knock cannot change what is shown of the room.
        let mut room_state = Vec::new();
        if self.handshake == Handshake::Knock {
            room_state.extend(identifying_state(tx, &room)?.into_iter().map(|event| event.json.clone()));
        }
        let was_there = tx.is_server_in_room(&self.server, room.num)?;
        let pdus = vec![self.event.clone()];
        let received =
            ReceivePdus { room_id: self.room_id.clone(), pdus, ..ReceivePdus::default() }.take_in(tx)?;
        let outcome = received.outcomes.into_iter().find(|(event_id, _)| *event_id == pdu.event_id);
        let outcome = match outcome.map(|(_, outcome)| outcome) {
            // Whoever submits it means to act now.
            Some(Outcome::Past) => denied_by_present(tx, &room, pdu)?.map(Outcome::SoftFailed),
            outcome => outcome,
        };
        match outcome {
            Some(Outcome::Accepted) => self.pass_on(tx, was_there)?,
            Some(Outcome::Known) if self.is_accepted(tx)? => {}
            Some(Outcome::Waiting) => return Ok(AcceptedMembership::Waiting(received.missing)),
            Some(Outcome::SoftFailed(denied) | Outcome::Rejected(denied)) => {
                return Err(Denied::Rule { rule: denied.rule, reason: denied.reason }.into());
            }
            Some(Outcome::Refused(refused)) => return Err(invalid(refused.to_string()).into()),
            Some(Outcome::Known | Outcome::Stored | Outcome::NotRecommended | Outcome::Past) | None => {
                return Err(invalid("it was refused before".to_owned()).into());
            }
        }
        Ok(AcceptedMembership::Accepted { event: pdu.json.clone(), room_state })
    }
}

fn invalid(why: String) -> Invalid {
    Invalid::Parameter { what: "event", why }
}

impl AcceptMembership {
    /// The other servers in the room learn of it from this one; and the one that comes in by it of what it does not follow.
    fn pass_on(&self, tx: &mut Tx, was_there: bool) -> Result<()> {
        let room = RoomCtx::load(tx, &self.room_id)?;
        let Some(num) = tx.event_num(&self.event_id)? else { return Ok(()) };
        let event = tx.event(num)?;
        outgoing::pass_on(tx, &room, &event);
        match self.handshake {
            Handshake::Join if !was_there => outgoing::tell_ends(tx, &room, &self.server, Some(num)),
            _ => Ok(()),
        }
    }

    fn is_accepted(&self, tx: &Tx) -> Result<bool> {
        let Some(num) = tx.event_num(&self.event_id)? else { return Ok(false) };
        Ok(tx.event(num)?.header.status == EventStatus::Accepted)
    }
}

#[cfg(test)]
mod tests;
