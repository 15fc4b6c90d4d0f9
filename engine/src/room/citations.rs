//! Citations: auth edges the other way, by which state resolution goes up auth chains.
//!
//! Invariant: a state event has a row under each of its auth events, in the event's own batch and whatever became of the
//! event. Other events have none, since nothing rests on them: the way up an auth chain to the entries of a state leads
//! along state events alone. So a message writes nothing here, and what is cited by everything, like the power levels, has
//! as many rows as there are state events on it; whoever goes through them stops at the first that serves. The create event
//! has none either: every state event but itself rests on it, so that nobody needs to be told which do.

use std::{ops::ControlFlow, sync::Arc};

use super::Event;
use crate::{
    core::num::{EventNum, RoomNum, StateKeyId},
    store::{Direction, Reader, StorageError, Tx, schema, schema::EventHeader},
};

/// Writes the rows of the state event `citing`, which is the entry `key` of the state.
pub(super) fn write(
    tx: &mut Tx,
    room: RoomNum,
    auth: &[Arc<Event>],
    citing: EventNum,
    key: StateKeyId,
) -> Result<(), StorageError> {
    let create = tx.text_num("m.room.create")?;
    for cited in auth.iter().filter(|cited| Some(cited.header.kind) != create) {
        tx.put(&schema::CITATIONS, &(room, cited.num, citing), &key);
    }
    Ok(())
}

/// Removes the rows for auth events that the event named and, by `header`, names no more.
pub(super) fn cut(tx: &mut Tx, citing: EventNum, named: &[EventNum], header: &EventHeader) {
    if header.state_key.is_some() {
        for cited in named.iter().filter(|cited| !header.auth.contains(cited)) {
            tx.delete(&schema::CITATIONS, &(header.room, *cited, citing));
        }
    }
}

impl Reader {
    /// Tells `visit` the state events that have `cited` among their auth events, and the entry that each is of the state,
    /// until it breaks. The newest come first, which are mostly entries of the state still.
    pub(crate) fn citations(
        &self,
        room: RoomNum,
        cited: EventNum,
        mut visit: impl FnMut(EventNum, StateKeyId) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let visit = |(_, _, citing): (RoomNum, EventNum, EventNum), key| visit(citing, key).is_continue();
        self.scan(&schema::CITATIONS, &(room, cited), Direction::Backward, visit)
    }
}
