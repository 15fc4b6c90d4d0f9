//! Events that wait for the one that they are about: each is one that does, and what has to wait does.

use super::pass::{Pass, Row, readable};
use crate::{
    core::num::{EventNum, RoomNum},
    room::early_events::EarlyEvents,
    store::{StorageError, schema},
};

/// Whether an event of the room rightly waits for the one with this id.
pub(super) type Waits = fn(&Row<'_>, RoomNum, EventNum, &str) -> Result<bool, StorageError>;

/// Goes over the rows of such events; of one that does not rightly wait `problem` is told.
pub(super) fn pass(keyspace: &'static EarlyEvents, waits: Waits, problem: &'static str) -> Pass {
    Pass::over_derived(keyspace, move |row, (room, target), events: Vec<EventNum>| {
        if row.is_going(room) {
            return Ok(());
        }
        let mut right = Vec::with_capacity(events.len());
        for event in &events {
            if waits(row, room, *event, &target)? {
                right.push(*event);
            }
        }
        if !row.expect(right == events, problem) {
            match right.is_empty() {
                true => row.delete(keyspace, &(room, target)),
                false => row.put(keyspace, &(room, target), &right),
            }
        }
        Ok(())
    })
}

/// Expects an event to wait for the one with this id, which is not there.
pub(super) fn expect(
    row: &mut Row<'_>,
    keyspace: &'static EarlyEvents,
    (room, event, target_id): (RoomNum, EventNum, &str),
    count_max: usize,
    problem: &str,
) -> Result<(), StorageError> {
    let key = (room, target_id.to_owned());
    let early = readable(row.reader().get(keyspace, &key))?.unwrap_or_default();
    // Of very many only some wait.
    let waits = early.contains(&event) || early.len() >= count_max || was_purged(row, room)?;
    if !row.expect(waits, problem) {
        row.mend(keyspace.name, move |tx| {
            let mut early = tx.get(keyspace, &key)?.unwrap_or_default();
            early.push(event);
            tx.put(keyspace, &key, &early);
            Ok(())
        });
    }
    Ok(())
}

/// Whether history of the room has been purged. What was need not come again.
pub(super) fn was_purged(row: &Row<'_>, room: RoomNum) -> Result<bool, StorageError> {
    row.reader().has(&schema::HISTORY_STARTS, &room)
}
