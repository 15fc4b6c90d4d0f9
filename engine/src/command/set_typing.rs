//! A user starts or stops typing. Nothing is written: who types is known in memory only.
//!
//! Specification: client-server API, "Typing Notifications".

use crate::{
    command::{Command, Lanes},
    error::{Denied, Result},
    room::visibility::Viewer,
    store::Tx,
    stream::Touch,
};

/// How long a notice holds at most: clients renew it every few seconds.
const TYPING_MS_MAX: u64 = 120_000;
/// How long it holds when the client does not say.
const TYPING_MS_DEFAULT: u64 = 30_000;

/// `PUT /rooms/{roomId}/typing/{userId}`.
pub struct SetTyping {
    /// The room's id.
    pub room_id: String,
    /// Who types.
    pub user: String,
    /// Whether they do.
    pub typing: bool,
    /// For how long, in milliseconds.
    pub timeout_ms: Option<u64>,
}

impl Command for SetTyping {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (room, user) = {
            let (viewer, _) = Viewer::enter(tx, &self.room_id, &self.user)?;
            if !viewer.is_joined() {
                return Err(Denied::NotInRoom.into());
            }
            (viewer.room, viewer.user)
        };
        let timeout_ms = self.timeout_ms.unwrap_or(TYPING_MS_DEFAULT).min(TYPING_MS_MAX);
        let until_ms = if self.typing { tx.shared.clock.now_ms() + timeout_ms } else { 0 };
        tx.next_position();
        tx.touch(Touch::Typing { user, room, until_ms });
        Ok(())
    }
}

/// Ends the notices whose time is over, so that who waits is told. To be run every second or so.
pub struct EndTyping;

impl Command for EndTyping {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let now_ms = tx.shared.clock.now_ms();
        for (user, room) in tx.shared.watch.typing_over(now_ms) {
            tx.next_position();
            tx.touch(Touch::Typing { user, room, until_ms: 0 });
        }
        Ok(())
    }
}
