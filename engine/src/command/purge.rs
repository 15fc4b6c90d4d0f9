//! Removing a room, or what is old of it. A purge is begun by one command and done by as many steps as it takes, so that
//! no batch is large and the room can be used between them. Not here: who may do it, and when.

use crate::{
    command::{Command, Lanes},
    core::num::StreamPos,
    error::Result,
    room::purge::{self, PurgeProgress, REMOVED_PER_STEP},
    store::Tx,
};

/// Begins to remove a whole room. It is gone for everybody at once, without a word to anybody; it can be joined anew when
/// the purge is over. Begun again, it tells how far it is.
pub struct PurgeRoom {
    /// The room's id.
    pub room_id: String,
    /// Also when users of this server are in it.
    pub force: bool,
}

impl Command for PurgeRoom {
    type Output = PurgeProgress;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<PurgeProgress> {
        purge::begin_whole(tx, &self.room_id, self.force)
    }
}

/// Where a purge of history ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeBefore {
    /// What stands before this position goes.
    Position(StreamPos),
    /// What stands before this event goes.
    Event(String),
}

/// Begins to remove a room's history; the room's state stays.
pub struct PurgeHistory {
    /// The room's id.
    pub room_id: String,
    /// Up to where.
    pub before: PurgeBefore,
}

impl Command for PurgeHistory {
    type Output = PurgeProgress;

    fn lanes(&self) -> Lanes {
        Lanes::default().room(&self.room_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<PurgeProgress> {
        let before = match &self.before {
            PurgeBefore::Position(pos) => *pos,
            PurgeBefore::Event(event_id) => purge::position_of(tx, &self.room_id, event_id)?,
        };
        purge::begin_history(tx, &self.room_id, before)
    }
}

/// Does a bounded piece of the purge that is under way in a room.
pub struct StepPurge {
    room_id: String,
    aliases: Vec<String>,
    /// How many events it removes at most; the less, the shorter others wait for the room.
    pub limit: usize,
}

impl StepPurge {
    /// The next step after what the last one, or the beginning, answered; or after a start of the server.
    pub fn after(room_id: &str, last: Option<&PurgeProgress>) -> Self {
        let aliases = last.map(|last| last.aliases.clone()).unwrap_or_default();
        Self { room_id: room_id.to_owned(), aliases, limit: REMOVED_PER_STEP }
    }
}

impl Command for StepPurge {
    type Output = PurgeProgress;

    fn lanes(&self) -> Lanes {
        self.aliases.iter().fold(Lanes::default().room(&self.room_id), |lanes, alias| lanes.name(alias))
    }

    fn run(&self, tx: &mut Tx) -> Result<PurgeProgress> {
        purge::step(tx, &self.room_id, &self.aliases, self.limit)
    }
}
