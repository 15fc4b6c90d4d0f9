//! A local user who has come into a room by way of another server finds there what they set for the room that it replaces.
//!
//! Invariant: whoever has come in has a mark from the batch of their join on until they do, however long the join has waited, so
//! that what a restart interrupts is taken up again, and once only: what the user changes since stays. Who closed their account
//! meanwhile is to be taken out again.
//! Not here: joins that this server decides, which bring the settings along themselves (`change_membership`); what the server calls the
//! replaced room ([`crate::command::MoveNames`]).

use crate::{
    account::users,
    command::{Command, Lanes},
    core::num::RoomNum,
    error::Result,
    room::upgrade,
    store::{Tx, schema},
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
        // The mark is written with what the room's lane is for.
        Lanes::default().user(&self.user_id).room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let Some(user) = tx.user_num(&self.user_id)? else { return Ok(()) };
        // The join was under way when the rooms of the account were left. Here no account is closed meanwhile: its lane is held.
        if users::account(tx, user)?.is_some_and(|account| account.is_deactivated) {
            tx.put(&schema::DEACTIVATIONS, &user, &());
        }
        if let Some(room) = tx.room_num(&self.room_id)?
            && tx.has(&schema::UNCARRIED_SETTINGS, &(room, user))?
        {
            tx.delete(&schema::UNCARRIED_SETTINGS, &(room, user));
        }
        upgrade::carry_settings_of_member(tx, user, &self.room_id)
    }
}

/// Marks that the user is to be given their settings in the room.
pub(super) fn expect(tx: &mut Tx, room: RoomNum, user_id: &str) -> Result<()> {
    if let Some((user, _)) = users::find(tx, user_id)? {
        tx.put(&schema::UNCARRIED_SETTINGS, &(room, user), &());
    }
    Ok(())
}
