//! A local user who has come into a room by way of another server finds there what they set for the room that it replaces.
//!
//! Not here: joins that this server decides, which bring the settings along themselves (`change_membership`).

use crate::{
    command::{Command, Lanes},
    error::Result,
    room::upgrade,
    store::Tx,
};

/// A local user has come into a room: once another server has let them in, and this one has taken the join in
/// ([`crate::command::EnterRoom`], [`crate::command::ReceivePdus`]).
///
/// Specification: client-server API, "Room Upgrades": "When a user joins the new room, the server should automatically
/// transfer/replicate some of the user's personalized settings".
#[derive(Clone, Debug)]
pub struct CarrySettings {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
}

impl Command for CarrySettings {
    /// Nothing is done for a user who is not in the room, nor in one that replaces no room that they were in.
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        match tx.user_num(&self.user_id)? {
            Some(user) => upgrade::carry_settings_of_member(tx, user, &self.room_id),
            None => Ok(()),
        }
    }
}
