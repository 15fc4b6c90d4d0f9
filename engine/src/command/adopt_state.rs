//! A room is brought into agreement with what another server holds its state to be, as far as the rules allow it.

use std::collections::HashSet;

use super::receive_pdus::tell_found;
use crate::{
    command::{Command, Lanes},
    core::num::TextNum,
    error::Result,
    room::{
        RoomCtx, membership, outgoing,
        receive::{Adopted, GivenState, adopt_state},
    },
    store::Tx,
};

/// Compares the state before an event, as another server tells it, with what is known here, and adopts what state resolution
/// makes of both. The events of the state were stored as outliers before. Servers that are found in the room by it are told where it
/// ends. Doing it again changes nothing.
#[derive(Clone, Debug)]
pub struct AdoptState {
    /// The room's id.
    pub room_id: String,
    /// An event that is in the room here, one of the last ones there, and the state before it.
    pub state: GivenState,
}

impl Command for AdoptState {
    /// Errors: [`crate::What::Room`] not found; [`crate::What::Event`] not found, if the event has no place in the room here;
    /// [`crate::Conflict::PartialState`] while members are still on the way.
    type Output = Adopted;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<Adopted> {
        let mut room = RoomCtx::load(tx, &self.room_id)?;
        let (state, allowed_guests) = (room.head.state, membership::allows_guests(tx, &room)?);
        let known: HashSet<TextNum> = tx.counted_servers(room.num)?.into_iter().collect();
        let adopted = adopt_state(tx, &mut room, &self.state)?;
        tell_found(tx, &room, &known, None)?;
        outgoing::tell_again(tx, &room, state)?;
        membership::follow_guest_access(tx, &mut room, allowed_guests)?;
        Ok(adopted)
    }
}
