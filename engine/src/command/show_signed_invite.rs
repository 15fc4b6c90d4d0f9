//! A local user is shown an invite to a room that this server takes part in, as far as it knows, though it has not come with the
//! room's events.

use crate::{
    command::{Command, Lanes},
    error::Result,
    room::signed_invites,
    store::Tx,
};

/// Shows an invite that was signed, and whose event does not come ([`crate::view::OverdueInvites`]).
#[derive(Clone, Debug)]
pub struct ShowSignedInvite {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
}

impl Command for ShowSignedInvite {
    /// Nothing is done where the event has come meanwhile, or the user. Who has closed their account since, or wants no invites any more, is
    /// not shown it later either. Errors: [`crate::Denied::TooManyInvites`]; it may be shown when the
    /// user has answered others.
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (Some(room), Some(user)) = (tx.room_num(&self.room_id)?, tx.user_num(&self.user_id)?) else {
            return Ok(());
        };
        match signed_invites::unseen_of(tx, user, room)? {
            Some(invite) => signed_invites::show(tx, user, room, invite),
            None => Ok(()),
        }
    }
}
