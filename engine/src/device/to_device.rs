//! Messages to devices: queues that are read until the device acknowledges.
//!
//! Invariant: a message is in the queue of each of its devices, under one position, until the device acknowledges that
//! position, or others take its place when the queue is full (`outbox::shares`); the count row counts the queue's rows. All
//! writes happen under the lane of the queue's user.
//! Specification: "Send-to-Device messaging".

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{parameter, strangers};
use crate::{
    core::{
        event::JsonObject,
        json::{self, Limits, Strictness},
        num::{StreamPos, TextNum, UserNum},
    },
    error::{Invalid, Result},
    outbox::shares::{self, Entry, Queue, Sender},
    store::{Direction, Reader, Tx, schema},
    stream::Touch,
};

/// The most bytes of a message's content, from users of this server and of others: what an event may have, since it has to
/// fit into one when it is sent on to another server.
pub const MESSAGE_BYTES_MAX: usize = 65_536;

/// The most bytes that one request may put into queues, messages to all devices counted for each: half of the largest
/// batch that a distributed store takes. The usual request, keys for 20 to 250 devices, has less than 1 MiB. What another
/// server sends as one request has the same measure.
pub const REQUEST_BYTES_MAX: usize = 5 << 20;

/// The most messages that wait for one device, a half of them of one user of this server, or of one other server. What comes
/// beyond takes the place of the oldest of whoever has most, or is dropped if that is its sender: a device that has been
/// away for so long has to ask for keys again, and one that never returns must not fill the disk.
pub const QUEUE_MESSAGES_MAX: u32 = 10_000;

/// A message's content.
///
/// Errors: it is not a JSON object, too large or too deep.
pub fn content(content: &[u8]) -> Result<JsonObject> {
    if content.len() > MESSAGE_BYTES_MAX {
        return Err(Invalid::TooLarge { what: "bytes of a message", max: MESSAGE_BYTES_MAX }.into());
    }
    let limits = Limits { bytes_max: MESSAGE_BYTES_MAX, strictness: Strictness::Lenient };
    json::parse_object(content, limits).map_err(|error| parameter("messages", error.to_string()))
}

/// The message as the device gets it.
///
/// Errors: those of [`content`].
pub fn event(sender: &str, kind: &str, content: &[u8]) -> Result<Bytes> {
    Ok(event_of(sender, kind, &self::content(content)?).0)
}

/// The same of a content that is known to be good; `None` if it is too large.
pub fn event_within_bounds(sender: &str, kind: &str, content: &JsonObject) -> Option<Bytes> {
    let (event, bytes) = event_of(sender, kind, content);
    (bytes <= MESSAGE_BYTES_MAX).then_some(event)
}

/// The message, and how many bytes its content has as it is written.
fn event_of(sender: &str, kind: &str, content: &JsonObject) -> (Bytes, usize) {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"content\":");
    let before = out.len();
    json::write_object(&mut out, content);
    let bytes = out.len() - before;
    out.extend_from_slice(b",\"sender\":");
    json::write_string(&mut out, sender);
    out.extend_from_slice(b",\"type\":");
    json::write_string(&mut out, kind);
    out.push(b'}');
    (out.into(), bytes)
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits for the device.
    Taken,
    /// It does, in the place of another one.
    InPlaceOfAnother,
    /// It is dropped.
    Dropped,
}

/// Puts a message of `sender` into the queue of a device, under `pos`.
pub fn enqueue(
    tx: &mut Tx,
    (user, device): (UserNum, TextNum),
    pos: StreamPos,
    sender: Sender,
    event: &Bytes,
) -> Result<Enqueued> {
    let (mut count, mut enqueued) = (waiting(tx, user, device)?, Enqueued::Taken);
    let queue = (user, device);
    if shares::is_to_enter(tx, queue, count)? {
        if !shares::are_counted(tx, queue, count)? {
            let messages = senders(tx, queue)?;
            shares::count(tx, queue, messages)?;
        }
        match shares::enter(tx, queue, sender, pos, QUEUE_MESSAGES_MAX, &[])? {
            Entry::Refused => return Ok(Enqueued::Dropped),
            Entry::Free => {}
            Entry::InPlaceOf(other) => {
                tx.delete(&schema::TO_DEVICE, &(user, device, other));
                count -= 1;
                enqueued = Enqueued::InPlaceOfAnother;
            }
        }
    }
    tx.put(&schema::TO_DEVICE, &(user, device, pos), event);
    tx.put(&schema::TO_DEVICE_COUNTS, &(user, device), &(count + 1));
    tx.touch(Touch::User(user));
    Ok(enqueued)
}

/// The positions of a queue's messages, each with who sent it.
fn senders(reader: &Reader, queue: Queue) -> Result<Vec<(StreamPos, String)>> {
    let mut messages = Vec::new();
    reader.scan(&schema::TO_DEVICE, &queue, Direction::Forward, |(_, _, pos), message| {
        messages.push((pos, shares::sender_in(&message)));
        true
    })?;
    Ok(messages)
}

/// How many messages wait for a device.
pub fn waiting(reader: &Reader, user: UserNum, device: TextNum) -> Result<u32> {
    Ok(reader.get(&schema::TO_DEVICE_COUNTS, &(user, device))?.unwrap_or_default())
}

/// All devices of a user, by id.
pub fn devices(reader: &Reader, user: UserNum) -> Result<BTreeSet<String>> {
    let mut devices = BTreeSet::new();
    reader.scan(&schema::DEVICES, &user, Direction::Forward, |(_, device_id), _| {
        devices.insert(device_id);
        true
    })?;
    Ok(devices)
}

/// The messages to a device after `after`, up to and with `up_to`, oldest first and at most `limit`; and the position
/// up to which the answer is complete: `up_to`, or that of the last message when there may be more. Whoever tells the
/// client of a later position than that must not acknowledge by it, or what was held back is lost.
pub fn since(
    reader: &Reader,
    user: UserNum,
    device: TextNum,
    after: StreamPos,
    up_to: StreamPos,
    limit: usize,
) -> Result<(Vec<Bytes>, StreamPos)> {
    let mut messages = Vec::new();
    let mut complete_to = up_to;
    let start = (user, device, StreamPos(after.0.saturating_add(1)));
    let end = (user, device, StreamPos(up_to.0.saturating_add(1)));
    reader.scan_between(&schema::TO_DEVICE, &start, &end, Direction::Forward, |(_, _, pos), message| {
        messages.push(message);
        if messages.len() >= limit {
            complete_to = pos;
        }
        messages.len() < limit
    })?;
    Ok((messages, complete_to))
}

/// Whether there is anything that an acknowledgement of `up_to` would remove.
pub fn has_acknowledged(reader: &Reader, user: UserNum, device: TextNum, up_to: StreamPos) -> Result<bool> {
    let mut any = false;
    let start = (user, device);
    let end = (user, device, StreamPos(up_to.0.saturating_add(1)));
    reader.scan_between(
        &schema::TO_DEVICE,
        &start,
        &end,
        Direction::Forward,
        |_: (UserNum, TextNum, StreamPos), _| {
            any = true;
            false
        },
    )?;
    Ok(any)
}

/// Removes the messages up to and with `up_to`, which the device has received. O(messages removed).
pub fn acknowledge(tx: &mut Tx, user: UserNum, device: TextNum, up_to: StreamPos) -> Result<()> {
    let before = waiting(tx, user, device)?;
    let is_counted = shares::are_counted(tx, (user, device), before)?;
    let mut received: Vec<(StreamPos, String)> = Vec::new();
    let start = (user, device);
    let end = (user, device, StreamPos(up_to.0.saturating_add(1)));
    tx.scan_between(&schema::TO_DEVICE, &start, &end, Direction::Forward, |(_, _, pos), message| {
        received.push((pos, if is_counted { shares::sender_in(&message) } else { String::new() }));
        true
    })?;
    if received.is_empty() {
        return Ok(());
    }
    let left = before.saturating_sub(received.len() as u32);
    for (pos, _) in &received {
        tx.delete(&schema::TO_DEVICE, &(user, device, *pos));
    }
    shares::gone(tx, (user, device), before, is_counted, received)?;
    strangers::acknowledged(tx, (user, device), up_to)?;
    if left == 0 {
        tx.delete(&schema::TO_DEVICE_COUNTS, &(user, device));
    } else {
        tx.put(&schema::TO_DEVICE_COUNTS, &(user, device), &left);
    }
    Ok(())
}
