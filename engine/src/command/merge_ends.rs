//! The ends of a room that has forked in many places are brought together. To be run every few minutes for the rooms that
//! [`RoomsToMerge`](crate::view::RoomsToMerge) names, so that what is said there meanwhile does it first; and at once for one
//! that has very many ([`Received::has_many_ends`](crate::command::Received)), unless that was in vain a short time ago.

use crate::{
    command::{Command, Lanes},
    error::Result,
    room::{RoomCtx, merging},
    store::Tx,
};

/// Sends dummy events into a room until its ends are few, if some local member may.
pub struct MergeEnds {
    /// The room's id.
    pub room_id: String,
}

impl Command for MergeEnds {
    /// How many events were sent.
    type Output = usize;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<usize> {
        let Some(mut room) = RoomCtx::find(tx, &self.room_id)? else { return Ok(0) };
        let sent = merging::merge_ends(tx, &mut room)?;
        if sent > 0 {
            room.save(tx);
        }
        Ok(sent)
    }
}
