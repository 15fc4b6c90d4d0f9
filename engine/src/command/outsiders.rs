//! Events that servers send which have no user in the room: those whose users were banned or have left, or of whose join nothing is known.
//!
//! What is denied is kept, since what follows it has to be judged. Nobody follows what these make, and nothing would end what they may have
//! stored. Invariant: of a room, no more bytes of it are stored in a week than [`OUTSIDERS_BYTES_MAX`], with what it names, but for one write;
//! beyond that all they send is refused. What somebody in the room follows comes by way of them, and is kept. It is known in memory only.
//! Not here: a room of which the members are not known yet, or a server that is supposed to be there: as if it were.

use std::{collections::HashSet, sync::Arc};

use crate::{
    command::{ReceivePdus, Received},
    core::{
        checked::Refused,
        limits::{OUTSIDERS_BYTES_MAX, OUTSIDERS_PERIOD_MS},
        num::RoomNum,
    },
    error::Result,
    room::{RoomCtx, receive::Outcome, servers},
    store::{Cache, Reader, Tx},
};

/// Bytes for what is remembered of rooms: some ten thousand.
const BYTES_MAX: usize = 1 << 20;

/// What one of these weighs.
const WEIGHT: usize = 100;

/// What was stored of a room's outsiders: how many bytes, and since when, in milliseconds since the epoch.
pub(crate) struct Outsiders(Cache<RoomNum, (usize, u64)>);

impl Default for Outsiders {
    fn default() -> Self {
        Self(Cache::new(BYTES_MAX))
    }
}

impl Outsiders {
    /// Whether no more is to be stored of the room.
    pub fn has_no_place(&self, room: RoomNum, now_ms: u64) -> bool {
        self.of(room, now_ms).0 >= OUTSIDERS_BYTES_MAX
    }

    fn of(&self, room: RoomNum, now_ms: u64) -> (usize, u64) {
        let counted = self.0.get(&room).map(|counted| *counted);
        // It may be of later than now: the clock was set back.
        let is_recent = |(_, since_ms): &(usize, u64)| now_ms.abs_diff(*since_ms) < OUTSIDERS_PERIOD_MS;
        counted.filter(is_recent).unwrap_or((0, now_ms))
    }

    fn add(&self, room: RoomNum, bytes: usize, now_ms: u64) {
        let (counted, since_ms) = self.of(room, now_ms);
        self.0.replace(room, Arc::new((counted.saturating_add(bytes), since_ms)), WEIGHT);
    }
}

/// Whether the server that sent events has no user in the room.
pub(super) fn is_outside(reader: &Reader, room: &RoomCtx, sent_by: Option<&str>) -> Result<bool> {
    let Some(server) = sent_by.filter(|server| **server != *reader.shared.server_name) else {
        return Ok(false);
    };
    if room.head.partial_state {
        return Ok(false);
    }
    match reader.text_num(server)? {
        Some(server) => Ok(!servers::is_in_or_supposed(reader, server, room.num)?),
        None => Ok(true),
    }
}

/// All are refused.
pub(super) fn refuse(command: &ReceivePdus) -> Received {
    let given = command.pdus.iter().chain(&command.outliers);
    let refused = given.map(|checked| (checked.pdu().event_id.clone(), Outcome::Refused(Refused::Outsider)));
    Received { outcomes: refused.collect(), ..Received::default() }
}

/// Counts what was stored of them, and what was stored beside if the room took none.
pub(super) fn count(tx: &Tx, room: RoomNum, command: &ReceivePdus, outcomes: &[(Arc<str>, Outcome)]) {
    let takes_some = outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Accepted);
    let is_counted = |outcome: &Outcome| match outcome {
        Outcome::SoftFailed(_) | Outcome::NotRecommended | Outcome::Rejected(_) => true,
        Outcome::Stored => !takes_some,
        _ => false,
    };
    let counted = outcomes.iter().filter(|(_, outcome)| is_counted(outcome));
    let counted: HashSet<&str> = counted.map(|(event_id, _)| &**event_id).collect();
    let given = command.pdus.iter().chain(&command.outliers).map(|checked| checked.pdu());
    let bytes: usize = given.filter(|pdu| counted.contains(&*pdu.event_id)).map(|pdu| pdu.json.len()).sum();
    if bytes > 0 {
        tx.shared.outsiders.add(room, bytes, tx.shared.clock.now_ms());
    }
}
