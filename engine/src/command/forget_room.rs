//! A local user forgets a room that they have left: it is not shown to them any more.

use crate::{
    command::{Command, Lanes},
    error::{Conflict, Result},
    room::out_of_band,
    store::{Tx, schema, schema::Membership},
};

/// `POST /rooms/{roomId}/forget`.
pub struct ForgetRoom {
    /// The room's id.
    pub room_id: String,
    /// Who forgets.
    pub user_id: String,
}

impl Command for ForgetRoom {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // The row is written with membership events too, which are made under the room's lane; what the user set for the room,
        // under theirs.
        Lanes::default().room(&self.room_id).user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        // Who never had to do with the room has nothing to forget.
        let Some(user) = tx.user_num(&self.user_id)? else { return Ok(()) };
        let Some(room) = tx.room_num(&self.room_id)? else { return Ok(()) };
        let Some(mut row) = tx.user_room(user, room)? else { return Ok(()) };
        if !matches!(row.value.membership, Membership::Leave | Membership::Ban) {
            return Err(Conflict::StillInRoom.into());
        }
        // Of a room that this server never was in nothing is kept but the news, by which the user's other devices learn of it, and an
        // answer that the room has not heard.
        if out_of_band::forget(tx, user, room)? {
            return Ok(());
        }
        if !row.value.forgotten {
            row.value.forgotten = true;
            tx.put(&schema::USER_ROOMS, &(user, room), &row);
        }
        Ok(())
    }
}
