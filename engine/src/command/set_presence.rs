//! Users say how present they are, their devices show it by syncing, and time passes. But for what users say about it
//! nothing is written: who is there is known in memory only.
//!
//! Specification: client-server API, "Presence".

use crate::{
    account::{presence, users},
    command::{Command, Lanes},
    core::num::UserNum,
    error::Result,
    store::{Tx, schema::PresenceState},
    stream::PresenceChange,
};

/// `PUT /presence/{userId}/status`.
pub struct SetPresence {
    /// The user's id.
    pub user: String,
    /// The device that says so.
    pub device: Option<String>,
    /// How present.
    pub state: PresenceState,
    /// What the user says about it; empty for nothing.
    pub status_msg: String,
}

impl Command for SetPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, _) = users::active(tx, &self.user)?;
        let claim = presence::claim(tx, self.device.as_deref(), self.state, 0);
        presence::say(tx, user, claim, self.status_msg.clone())
    }
}

/// A device syncs, by which its user is present. To be run when the view `IsPresent` says that this is news.
pub struct ShowPresence {
    /// The user.
    pub user: UserNum,
    /// The device.
    pub device: Option<String>,
    /// How present the device says that its user is.
    pub state: PresenceState,
    /// How long the sync may last, in milliseconds.
    pub hold_ms: u64,
}

impl Command for ShowPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let claim = presence::claim(tx, self.device.as_deref(), self.state, self.hold_ms);
        presence::touch(tx, self.user, PresenceChange::Synced(claim))
    }
}

/// Ends the presence of those whose time is over, so that the others are told. To be run every few seconds.
pub struct EndPresence;

impl Command for EndPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let now_ms = tx.shared.clock.now_ms();
        for user in tx.shared.watch.presences.overdue(now_ms) {
            presence::touch(tx, user, PresenceChange::Passed)?;
        }
        Ok(())
    }
}
