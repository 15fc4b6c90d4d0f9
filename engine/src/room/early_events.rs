//! Events that came before the one that they are about, and wait for it, by its id: redactions, and what relates to it.
//!
//! Invariant: what waits is part of the room. Whatever takes an event out of it lets it wait no longer ([`forget`]).

use crate::{
    core::num::{EventNum, RoomNum},
    error::Result,
    store::{Tx, schema::Keyspace},
};

/// A keyspace of such events: by the room and the id of the event that they wait for.
pub(crate) type EarlyEvents = Keyspace<(RoomNum, String), Vec<EventNum>>;

/// Lets an event wait, unless it does or as many wait already as may.
pub(super) fn keep(
    tx: &mut Tx,
    keyspace: &EarlyEvents,
    room: RoomNum,
    target_id: &str,
    event: EventNum,
    count_max: usize,
) -> Result<()> {
    let key = (room, target_id.to_owned());
    let mut early = tx.get(keyspace, &key)?.unwrap_or_default();
    // History may come in anew, as one that is shown.
    if early.len() < count_max && !early.contains(&event) {
        early.push(event);
        tx.put(keyspace, &key, &early);
    }
    Ok(())
}

/// The events that wait for the one that has come, in the order in which they came: they wait no longer.
pub(super) fn take(
    tx: &mut Tx,
    keyspace: &EarlyEvents,
    room: RoomNum,
    target_id: &str,
) -> Result<Vec<EventNum>> {
    let key = (room, target_id.to_owned());
    let Some(early) = tx.get(keyspace, &key)? else { return Ok(Vec::new()) };
    tx.delete(keyspace, &key);
    Ok(early)
}

/// Lets an event wait no longer, if it does.
pub(super) fn forget(
    tx: &mut Tx,
    keyspace: &EarlyEvents,
    room: RoomNum,
    target_id: &str,
    event: EventNum,
) -> Result<()> {
    let key = (room, target_id.to_owned());
    let Some(mut early) = tx.get(keyspace, &key)? else { return Ok(()) };
    early.retain(|waiting| *waiting != event);
    if early.is_empty() {
        tx.delete(keyspace, &key);
    } else {
        tx.put(keyspace, &key, &early);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture::World, store::schema};

    const ROOM: RoomNum = RoomNum(1);
    const TARGET: &str = "$target";

    #[test]
    fn as_many_as_may_wait_and_leave_in_the_order_in_which_they_came() {
        let (world, keyspace) = (World::new(), &schema::EARLY_RELATIONS);
        let keep = |event| world.act(|tx| keep(tx, keyspace, ROOM, TARGET, EventNum(event), 2)).unwrap();
        let forget = |event| world.act(|tx| forget(tx, keyspace, ROOM, TARGET, EventNum(event))).unwrap();
        let has_row = || world.ask(|reader| Ok(reader.has(keyspace, &(ROOM, TARGET.to_owned()))?));
        [7, 5, 6].into_iter().for_each(keep);
        forget(7);
        forget(6);
        keep(4);
        let taken = world.act(|tx| take(tx, keyspace, ROOM, TARGET)).unwrap();
        assert_eq!((taken, has_row()), (vec![EventNum(5), EventNum(4)], false));
        keep(8);
        forget(8);
        assert!(!has_row());
    }
}
