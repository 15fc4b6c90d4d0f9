//! What receipts waited for is here: they take effect.

use std::collections::BTreeSet;

use crate::{
    command::{Command, Lanes},
    error::Result,
    room::{RoomCtx, early_receipts},
    store::Tx,
};

/// Moves the receipts that wait in a room and need not any longer.
#[derive(Clone, Debug)]
pub struct SettleReceipts {
    /// The room's id.
    pub room_id: String,
    /// Whose ([`crate::view::federation::DueReceipts`]).
    pub users: BTreeSet<String>,
}

impl Command for SettleReceipts {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // Receipts are their users', not the room's.
        self.users.iter().fold(Lanes::default(), |lanes, user_id| lanes.user(user_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let Some(room) = RoomCtx::find(tx, &self.room_id)? else { return Ok(()) };
        let mut users = Vec::new();
        for user_id in &self.users {
            users.extend(tx.user_num(user_id)?);
        }
        early_receipts::settle(tx, &room, users)
    }
}
