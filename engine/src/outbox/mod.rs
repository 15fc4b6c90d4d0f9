//! What other servers are sent: each is a cursor over the events that are for it, and has a queue for what belongs to no
//! room, or is for it alone.
//!
//! Invariant: an event that goes out writes one row, in its own batch, however many servers it goes to
//! (`OUTGOING_EVENTS`); who they are follows from when each server was in the room (`SERVER_STAYS`, both ends included),
//! so that nobody gets what was said before or after, but for the ends that a server finds when it comes in, which are in its
//! queue (`send_event`), as are those that it is told again, since it refused them (`send_event_again`). What a server was sent it has acknowledged before its position
//! (`Destination::delivered_to`) moves; a transaction is stored before it goes out, and is repeated under the same id
//! until then, also after a crash. Who has read what has its place in the rooms alone, and each server's row says up to where
//! it was told that (`missed`). What is in memory (`waiting`) only says whom it is worth looking at.
//! Not here: what is sent (`delivery` picks events, the commands render the rest), and any network.
//! Specification: server-server API, "Transactions", "PDUs", "EDUs".

mod back_off;
mod catch_up;
pub(crate) mod delivery;
mod ephemeral;
pub(crate) mod making_up;
mod missed;
mod reminders;
pub(crate) mod shares;
pub(crate) mod trimming;
mod waiting;

pub(crate) use back_off::{
    FIRST_WAIT_MS, Failure, OUTAGE_WAIT_MS_MAX, Pause, WAIT_MS_MAX, is_failure_past, wait_ms,
};
pub(crate) use ephemeral::Ephemeral;
pub(crate) use reminders::{Admissions, CROSSING_MS_MAX, Reminders};
use shares::{Entry, Sender};
use waiting::FirstEnds;
pub use waiting::OutgoingNews;
pub(crate) use waiting::Waiting;

use crate::{
    core::{
        identifiers::server_name,
        num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    },
    store::{
        Direction, HOUR_MS, Positioned, Reader, StorageError, Tx, schema, schema::Destination,
        schema::OutgoingEdu,
    },
    stream::{Outgoing, Touch},
};

/// How many messages to devices wait for one server, a half of them of one user. What comes beyond takes the place of the oldest
/// of whoever has most, or is dropped if that is its sender, as it is for a local device that is away for too long: a server
/// that never returns must not fill the disk. Ten times what one device may have waiting.
pub(crate) const MESSAGES_WAITING_MAX: u32 = 100_000;

/// The longest queue that is counted while a client waits: some tens of milliseconds. Longer ones that are not counted are
/// of before any were.
const COUNTED_AT_ONCE_MAX: u32 = 10_000;

/// How much of a server's queue, the last of it, is looked through for an event that is in it already. Behind more it may come twice.
const QUEUE_LOOKED_THROUGH_MAX: usize = 100;

/// How long it is known which events went out that some server has not been sent, in milliseconds: two weeks. Who was turned out
/// of a room while it could not be reached gets all of it from there, and what led to it (`room/peer.rs`), since nobody else gives
/// it anything of the room any more; and servers are seldom away for longer and then come back.
pub(crate) const UNDELIVERED_KEPT_MS: u64 = 14 * 24 * HOUR_MS;

/// How a destination stands; nothing was ever sent to one without a row.
pub(crate) fn destination(reader: &Reader, server: TextNum) -> Result<Destination, StorageError> {
    Ok(reader.get(&schema::DESTINATIONS, &server)?.unwrap_or_default())
}

/// Puts messages of `sender` to devices of another server's users into its queue. The lane of the server's name must be held.
pub(crate) fn send_messages(
    tx: &mut Tx,
    server: &str,
    sender: UserNum,
    content: Vec<u8>,
) -> Result<(), StorageError> {
    let server = tx.intern_text(server)?;
    let mut row = destination(tx, server)?;
    let pos = tx.next_position();
    if shares::is_to_enter(tx, shares::to_server(server), row.messages_waiting)? {
        match enter(tx, server, &row, sender, pos)? {
            Entry::Refused => return Ok(()),
            Entry::Free => {}
            Entry::InPlaceOf(other) => {
                tx.delete(&schema::OUTGOING_EDUS, &(server, other));
                row.messages_waiting -= 1;
            }
        }
    }
    row.messages_waiting += 1;
    tx.put(&schema::DESTINATIONS, &server, &row);
    enqueue(tx, server, pos, StreamPos::ZERO, OutgoingEdu::Direct(content));
    Ok(())
}

/// Whether the long queue of a server takes messages of `sender` at `pos`. What is on its way stays as it is.
fn enter(
    tx: &mut Tx,
    server: TextNum,
    row: &Destination,
    sender: UserNum,
    pos: StreamPos,
) -> Result<Entry, StorageError> {
    let queue = shares::to_server(server);
    if !shares::are_counted(tx, queue, row.messages_waiting)? {
        if row.messages_waiting > COUNTED_AT_ONCE_MAX {
            // Until it is counted, who comes first has the places.
            let is_full = row.messages_waiting >= MESSAGES_WAITING_MAX;
            return Ok(if is_full { Entry::Refused } else { Entry::Free });
        }
        count(tx, server)?;
    }
    let kept = row.in_flight.as_ref().map(|sent| &*sent.edus).unwrap_or_default();
    shares::enter(tx, queue, Sender::Here(sender), pos, MESSAGES_WAITING_MAX, kept)
}

/// Counts the queue of a server if that is long and not counted, while nobody waits. The lane of the server's name must be held.
pub(crate) fn count_long(tx: &mut Tx, server: TextNum, waiting: u32) -> Result<(), StorageError> {
    if waiting > COUNTED_AT_ONCE_MAX && !shares::are_counted(tx, shares::to_server(server), waiting)? {
        count(tx, server)?;
    }
    Ok(())
}

fn count(tx: &mut Tx, server: TextNum) -> Result<(), StorageError> {
    let mut messages = Vec::new();
    tx.scan(&schema::OUTGOING_EDUS, &server, Direction::Forward, |(_, pos), edu| {
        if let OutgoingEdu::Direct(content) = edu.value {
            messages.push((pos, shares::sender_in(&content)));
        }
        true
    })?;
    shares::count(tx, shares::to_server(server), messages)
}

/// Tells the servers of a change of the user's devices or keys: at the next position, behind the user's last change.
pub(crate) fn send_device_change(
    tx: &mut Tx,
    user: UserNum,
    edu: &OutgoingEdu,
    servers: impl IntoIterator<Item = TextNum>,
) -> Result<(), StorageError> {
    let before = tx.get(&schema::DEVICE_LIST_POSITIONS, &user)?.unwrap_or_default();
    let pos = tx.next_position();
    tx.put(&schema::DEVICE_LIST_POSITIONS, &user, &pos);
    for server in servers {
        enqueue(tx, server, pos, before, edu.clone());
    }
    Ok(())
}

/// Tells the servers of a device of the user as if it had changed, which is no change for others: at the next position, behind
/// the user's last change.
pub(crate) fn send_device_list(
    tx: &mut Tx,
    user: UserNum,
    device: TextNum,
    servers: impl IntoIterator<Item = TextNum>,
) -> Result<(), StorageError> {
    let before = tx.get(&schema::DEVICE_LIST_POSITIONS, &user)?.unwrap_or_default();
    let pos = tx.next_position();
    for server in servers {
        enqueue(tx, server, pos, before, OutgoingEdu::DeviceList(user, device));
    }
    Ok(())
}

/// Tells a server of an event of a room that it is in, which it is not told of with the others there.
pub(crate) fn send_event(tx: &mut Tx, server: TextNum, event: EventNum) {
    let pos = tx.next_position();
    enqueue(tx, server, pos, StreamPos::ZERO, OutgoingEdu::Event(event));
}

/// Tells a server of an event once more that it was told, and goes on as if it had not been; not if that is in its queue still.
pub(crate) fn send_event_again(tx: &mut Tx, server: TextNum, event: EventNum) -> Result<(), StorageError> {
    if !is_queued(tx, server, event)? {
        send_event(tx, server, event);
    }
    Ok(())
}

/// Whether an event is among the last in a server's queue, which it has not taken yet.
pub(crate) fn is_queued(reader: &Reader, server: TextNum, event: EventNum) -> Result<bool, StorageError> {
    let (mut is_queued, mut seen) = (false, 0);
    reader.scan(
        &schema::OUTGOING_EDUS,
        &server,
        Direction::Backward,
        |_: (TextNum, StreamPos), edu: Positioned<OutgoingEdu>| {
            is_queued = edu.value == OutgoingEdu::Event(event);
            seen += 1;
            !is_queued && seen < QUEUE_LOOKED_THROUGH_MAX
        },
    )?;
    Ok(is_queued)
}

fn enqueue(tx: &mut Tx, server: TextNum, pos: StreamPos, before: StreamPos, edu: OutgoingEdu) {
    tx.put(&schema::OUTGOING_EDUS, &(server, pos), &Positioned { pos: before, value: edu });
    tx.touch(Touch::Outgoing(Outgoing::Queued(server)));
}

/// Up to where all was sent to a server, whether or not it has taken the last of it.
pub(crate) fn sent_to(reader: &Reader, server: TextNum) -> Result<StreamPos, StorageError> {
    let row = destination(reader, server)?;
    let under_way = row.in_flight.map(|in_flight| in_flight.delivers_to).unwrap_or_default();
    Ok(row.delivered_to.max(under_way))
}

/// Whether what goes out of a room at `pos` is for the server, which was there then.
pub(crate) fn is_owed(
    reader: &Reader,
    server: TextNum,
    room: RoomNum,
    pos: StreamPos,
) -> Result<bool, StorageError> {
    let stays = delivery::stays(reader, server, room)?;
    Ok(stays.into_iter().any(|(start, end)| (start..=end).contains(&pos)))
}

/// Whether a user's server is still to be sent what turned them out of the room, or away from it. O(such events that it lacks).
pub(crate) fn is_owed_an_end(reader: &Reader, user: UserNum, room: RoomNum) -> Result<bool, StorageError> {
    let user_id = reader.user_id(user)?;
    let server = server_name(&user_id).map(|name| reader.text_num(name)).transpose()?.flatten();
    let Some(server) = server else { return Ok(false) };
    let delivered_to = destination(reader, server)?.delivered_to;
    let mut last = reader.user_room(user, room)?.map(|row| row.value.event);
    // Who was banned, and is not any more, was turned out by the former. States that others tell may lead round in a circle.
    let mut behind = StreamPos::MAX;
    while let Some(num) = last {
        let event = reader.event(num)?;
        let is_end = matches!(event.pdu()?.membership(), Some("leave" | "ban"));
        let pos = event.pos();
        if !is_end || pos <= delivered_to || pos >= behind {
            return Ok(false);
        }
        behind = pos;
        if reader.has(&schema::OUTGOING_EVENTS, &(room, pos))? && is_owed(reader, server, room, pos)? {
            return Ok(true);
        }
        last = match event.state_key_id() {
            Some(key) => reader.state_num_at(room, event.header.state_before, key)?,
            None => None,
        };
    }
    Ok(false)
}

/// Whether the server ever was in a room, or anything was for it.
pub(crate) fn is_known(reader: &Reader, server: TextNum) -> Result<bool, StorageError> {
    let mut is_known = reader.has(&schema::DESTINATIONS, &server)?;
    if !is_known {
        reader.scan(
            &schema::SERVER_STAYS,
            &server,
            Direction::Forward,
            |_: (TextNum, RoomNum, StreamPos), _| {
                is_known = true;
                false
            },
        )?;
    }
    Ok(is_known)
}
