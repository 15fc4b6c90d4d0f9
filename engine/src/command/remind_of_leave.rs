//! A server that goes on sending events of a room which this one has left is told again how its users left it.

use crate::{
    command::{Command, Lanes},
    error::Result,
    outbox,
    room::{RoomCtx, untold},
    store::Tx,
};

/// Puts how this server's users left a room into the queue of a server that it was delivered to, and that sends events of the room
/// ([`crate::view::federation::IsToBeReminded`]). It fetches what is before that.
#[derive(Clone, Debug)]
pub struct RemindOfLeave {
    /// The room's id.
    pub room_id: String,
    /// The server.
    pub server: String,
}

impl Command for RemindOfLeave {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        // A user of this server may be in the room again by now.
        let Some(room) = RoomCtx::find(tx, &self.room_id)? else { return Ok(()) };
        let Some(server) = tx.text_num(&self.server)? else { return Ok(()) };
        for event in untold::delivered_leave(tx, &room, server)? {
            outbox::send_event_again(tx, server, event.num)?;
        }
        Ok(())
    }
}
