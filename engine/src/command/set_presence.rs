//! Users say how present they are, their devices show it by syncing, time passes, and this server comes into rooms of users of
//! whom it was told before. But for what users say about it nothing is written: who is there is known in memory only.
//!
//! Specification: client-server API, "Presence".

use crate::{
    account::{presence, users},
    command::{Command, Lanes},
    core::num::UserNum,
    error::Result,
    store::{Tx, schema::PresenceState},
    stream::{EarlyPresence, PresenceChange},
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

/// Ends the presence of those whose time is over, so that the others are told; and tells other servers again of those who stay
/// as they are, which they forget else. To be run every two seconds.
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
        let unrepeated = tx.shared.watch.presences.unrepeated(now_ms);
        if !unrepeated.is_empty() {
            // One for all of them: without any, nothing would be noted.
            tx.next_position();
        }
        for user in unrepeated {
            presence::repeat(tx, user);
        }
        Ok(())
    }
}

/// Shows how present users of other servers are, of whom these told before it was known that they share a room with this one.
pub struct SettlePresence {
    /// What they told ([`crate::view::federation::TakeEarlyPresence`]).
    pub early: Vec<EarlyPresence>,
}

impl Command for SettlePresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        self.early.iter().fold(Lanes::default(), |lanes, early| lanes.user(&early.user_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        for EarlyPresence { user_id, claim, activity, text, .. } in &self.early {
            let Some(user) = tx.user_num(user_id)? else { continue };
            if tx.is_neighbour(user, None)? && !tx.shared.watch.presences.is_told_since(user, *claim) {
                presence::tell(tx, user, *claim, *activity, text.clone())?;
            }
        }
        Ok(())
    }
}
