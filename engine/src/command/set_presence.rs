//! A user says how present they are. Specification: client-server API, "Presence".

use crate::{
    account::{presence, users},
    command::{Command, Lanes},
    error::Result,
    store::{Tx, schema::PresenceState},
};

/// `PUT /presence/{userId}/status`, and what a sync says with `set_presence`.
pub struct SetPresence {
    /// The user's id.
    pub user: String,
    /// How present.
    pub state: PresenceState,
    /// What the user says about it; `None` keeps what was said before.
    pub status_msg: Option<String>,
}

impl Command for SetPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, _) = users::active(tx, &self.user)?;
        presence::set(tx, user, self.state, self.status_msg.clone())
    }
}
