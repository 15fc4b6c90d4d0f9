//! Events made without anything that is asked besides the room's rules, for fuzz targets. Nothing else may use it.

use std::sync::Arc;

use crate::{
    command::{Command, Lanes},
    core::{
        event::{JsonObject, Pdu},
        version::RoomVersion,
    },
    error::Result,
    room::{self, NewEvent, RoomCtx},
    store::Tx,
};

/// An event on the head of a room or, without a room, one that makes it.
#[derive(Clone, Debug)]
pub struct Append {
    /// The room's id; else its version.
    pub room: std::result::Result<String, &'static RoomVersion>,
    /// Who sends it.
    pub sender: String,
    /// Its type.
    pub kind: String,
    /// Given for a state event.
    pub state_key: Option<String>,
    /// The content.
    pub content: JsonObject,
}

impl Command for Append {
    /// The event.
    type Output = Arc<Pdu>;

    fn lanes(&self) -> Lanes {
        self.room.as_deref().map_or(Lanes::none(), |room_id| Lanes::default().room(room_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<Arc<Pdu>> {
        let new = NewEvent {
            sender: &self.sender,
            kind: &self.kind,
            state_key: self.state_key.as_deref(),
            content: self.content.clone(),
            redacts: None,
            origin_server_ts: tx.shared.clock.now_ms(),
            transaction: None,
        };
        let (room, event) = match &self.room {
            Ok(room_id) => {
                let mut room = RoomCtx::load(tx, room_id)?;
                let event = room::append(tx, &mut room, new)?;
                (room, event)
            }
            Err(version) => room::create(tx, version, new)?,
        };
        room.save(tx);
        Ok(event.pdu()?)
    }
}
