//! How much servers may have waiting for a device that share no room with its user: names of servers cost little, and whoever
//! is nobody's neighbour is not to fill the disk, device by device. Those who come before it is known that they share a room
//! have a few keys to bring, no more.
//!
//! Invariant: while messages of such servers wait for a device, `STRANGER_SHARES` says how many bytes each server, and all of
//! them together (as server zero), have put into its queue since the device had taken all of theirs, behind the position of
//! their last message. What a full queue has dropped meanwhile still counts. All writes happen under the lane of the queue's
//! user.

use crate::{
    core::num::{StreamPos, TextNum},
    outbox::shares::Queue,
    store::{Positioned, Reader, StorageError, Tx, schema},
};

/// The most bytes of one such server's messages that wait for a device: keys for a hundred rooms.
pub(crate) const SERVER_BYTES_MAX: u64 = 256 << 10;

/// The most bytes of all such servers' messages that wait for a device: for eight at once.
pub(crate) const ALL_BYTES_MAX: u64 = 2 << 20;

/// What a message counts for at least: its rows, and its place in a sync.
const MESSAGE_BYTES_MIN: u64 = 1 << 10;

/// Stands for all of these servers. Numbers of texts begin at one.
const ALL: TextNum = TextNum(0);

/// Whether one more message of so many bytes may wait for a device.
pub(crate) fn has_place(
    reader: &Reader,
    queue: Queue,
    server: TextNum,
    bytes: usize,
) -> Result<bool, StorageError> {
    let bytes = counted(bytes);
    let own = share(reader, queue, server)?.saturating_add(bytes);
    let all = share(reader, queue, ALL)?.saturating_add(bytes);
    Ok(own <= SERVER_BYTES_MAX && all <= ALL_BYTES_MAX)
}

/// A message of so many bytes waits for a device, under `pos`.
pub(crate) fn note(
    tx: &mut Tx,
    queue: Queue,
    server: TextNum,
    pos: StreamPos,
    bytes: usize,
) -> Result<(), StorageError> {
    for of in [server, ALL] {
        let value = share(tx, queue, of)?.saturating_add(counted(bytes));
        tx.put(&schema::STRANGER_SHARES, &(queue.0, queue.1, of), &Positioned { pos, value });
    }
    Ok(())
}

/// The device has taken what waited for it up to a position.
pub(crate) fn acknowledged(tx: &mut Tx, queue: Queue, up_to: StreamPos) -> Result<(), StorageError> {
    let all = tx.get(&schema::STRANGER_SHARES, &(queue.0, queue.1, ALL))?;
    if all.is_some_and(|all| all.pos <= up_to) {
        forget(tx, queue);
    }
    Ok(())
}

/// The queue is gone.
pub(crate) fn forget(tx: &mut Tx, queue: Queue) {
    tx.delete_prefix(&schema::STRANGER_SHARES, &queue);
}

fn share(reader: &Reader, queue: Queue, of: TextNum) -> Result<u64, StorageError> {
    let share = reader.get(&schema::STRANGER_SHARES, &(queue.0, queue.1, of))?;
    Ok(share.map_or(0, |share| share.value))
}

fn counted(bytes: usize) -> u64 {
    (bytes as u64).max(MESSAGE_BYTES_MIN)
}
