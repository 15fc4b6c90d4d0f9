//! Which messages to devices have come from a server, so that each comes once.
//!
//! Invariant: the last [`IDS_KEPT`] ids of each server are known for as long as pruning leaves them, and of twice as many none is
//! kept: whoever has a device here that takes all that comes for it must not fill the disk with ids. A message comes again only
//! because the answer to its transaction went lost, with which it came last, or a few transactions before where a server lost its
//! count; and an id takes a server nothing.

use crate::{
    core::num::TextNum,
    store::{Direction, Reader, StorageError, Tx, schema, schema::ReceivedCount},
};

/// So many ids of a server are known at least: those of fifty full transactions.
pub(crate) const IDS_KEPT: u32 = 5_000;

/// Whether a message of that id has come.
pub(crate) fn is_known(reader: &Reader, server: TextNum, message_id: &str) -> Result<bool, StorageError> {
    reader.has(&schema::RECEIVED_MESSAGES, &(server, message_id.to_owned()))
}

/// A message of that id has come. To be called with the lane of the server's name held. O(1), but for one time in [`IDS_KEPT`],
/// when those that came before as many are forgotten.
pub(crate) fn note(tx: &mut Tx, server: TextNum, message_id: &str) -> Result<(), StorageError> {
    let now_ms = tx.shared.clock.now_ms();
    let mut counted = match tx.get(&schema::RECEIVED_COUNTS, &server)? {
        Some(counted) if counted.count < IDS_KEPT => counted,
        before => begin(tx, server, before.map_or(0, |counted| counted.since_ms), now_ms)?,
    };
    counted.count += 1;
    tx.put(&schema::RECEIVED_COUNTS, &server, &counted);
    // Not before the others that are counted with it, should the clock have been set back.
    let came_ms = now_ms.max(counted.since_ms);
    tx.put(&schema::RECEIVED_MESSAGES, &(server, message_id.to_owned()), &came_ms);
    Ok(())
}

/// Begins to count anew, and forgets what came before `since_ms`, when that was done last. Whatever is left counts as come before
/// now, also where the clock was set back.
fn begin(tx: &mut Tx, server: TextNum, since_ms: u64, now_ms: u64) -> Result<ReceivedCount, StorageError> {
    let (mut old, mut last_ms) = (Vec::new(), 0);
    tx.scan(&schema::RECEIVED_MESSAGES, &server, Direction::Forward, |key: (TextNum, String), ms| {
        last_ms = ms.max(last_ms);
        if ms < since_ms {
            old.push(key);
        }
        true
    })?;
    for key in &old {
        tx.delete(&schema::RECEIVED_MESSAGES, key);
    }
    Ok(ReceivedCount { since_ms: now_ms.max(last_ms.saturating_add(1)), count: 0 })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::fixture::World;

    const THERE: &str = "there.example";

    /// So many messages come in transactions of a hundred.
    fn come(world: &World, ids: Range<u32>) {
        for first in ids.step_by(100) {
            world.pass_ms(1);
            let come = world.act(|tx| {
                let server = tx.intern_text(THERE)?;
                for id in first..first + 100 {
                    note(tx, server, &id.to_string())?;
                }
                Ok(())
            });
            come.unwrap();
        }
    }

    /// The last so many of the ids are known, and no more than twice as many.
    fn assert_last_known(world: &World, end: u32) {
        world.ask(|reader| {
            let server = reader.text_num(THERE)?.unwrap();
            for id in end - IDS_KEPT..end {
                assert!(is_known(reader, server, &id.to_string())?, "{id} of {end}");
            }
            let mut rows = 0;
            reader.scan(&schema::RECEIVED_MESSAGES, &(), Direction::Forward, |_: (TextNum, String), _| {
                rows += 1;
                true
            })?;
            assert!(rows <= 2 * IDS_KEPT, "{rows}");
            Ok(())
        });
    }

    #[test]
    fn of_each_server_the_last_ids_are_known_and_few_more() {
        let world = World::new();
        world.pass_ms(1_000_000);
        let ends = [IDS_KEPT, 2 * IDS_KEPT, 3 * IDS_KEPT + IDS_KEPT / 2];
        let mut come_to = 0;
        for end in ends {
            come(&world, come_to..end);
            assert_last_known(&world, end);
            come_to = end;
        }
        // Whatever the clock does: the first of these begins to count anew among what came before that.
        world.set_back_ms(500_000);
        for more in [IDS_KEPT / 2 + 100, 2 * IDS_KEPT, IDS_KEPT] {
            let end = come_to + more;
            come(&world, come_to..end);
            assert_last_known(&world, end);
            come_to = end;
        }
    }
}
