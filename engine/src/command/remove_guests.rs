//! Guests leave a room that was closed to them, where the room's policy server has to sign that they do. To be run until nobody is
//! left ([`Received::has_guests_to_remove`](crate::command::Received), [`Sent`](crate::command::Sent)); elsewhere they leave with
//! what closes the room.
//!
//! Invariant: what closes the room leaves a mark, which goes when nobody is left: what a restart interrupts is taken up again.

use crate::{
    command::{Command, Lanes},
    error::Result,
    room::{RoomCtx, membership},
    store::{Tx, schema},
};

/// How many leave at once: the policy server is asked about one after the other, and the room may go on meanwhile.
const GUESTS_AT_ONCE_MAX: usize = 20;

/// Lets some guests of this server leave a room, if it does not admit guests.
pub struct RemoveGuests {
    /// The room's id.
    pub room_id: String,
}

impl Command for RemoveGuests {
    /// How many left.
    type Output = usize;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<usize> {
        let Some(mut room) = RoomCtx::find(tx, &self.room_id)? else { return Ok(0) };
        let removed = membership::remove_guests(tx, &mut room, GUESTS_AT_ONCE_MAX)?;
        if removed > 0 {
            room.save(tx);
        }
        if removed < GUESTS_AT_ONCE_MAX && tx.has(&schema::GUESTS_TO_REMOVE, &room.num)? {
            tx.delete(&schema::GUESTS_TO_REMOVE, &room.num);
        }
        Ok(removed)
    }
}

/// Guests stay in a room that was closed to them, as its policy server will have it: it is not among
/// [`crate::view::RoomsWithGuestsToRemove`] any more.
pub struct KeepGuests {
    /// The room's id.
    pub room_id: String,
}

impl Command for KeepGuests {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        if let Some(room) = tx.room_num(&self.room_id)? {
            tx.delete(&schema::GUESTS_TO_REMOVE, &room);
        }
        Ok(())
    }
}
