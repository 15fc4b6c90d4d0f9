//! Whose the messages are that wait in a queue, so that nobody fills one at others' cost.
//!
//! Invariant: a queue with fewer than [`FORGOTTEN_BELOW`] messages has no rows here, so that most cost nothing. One with
//! [`COUNTED_FROM`] is counted when the next message comes, from the messages themselves; from then on `QUEUE_SENDERS` has a
//! row for each, and `QUEUE_SHARES` and `QUEUE_RANKS` say how many each sender has. Rows that do not add up to what waits are made anew.
//! All writes happen under the lane of the queue.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;

use crate::{
    core::{
        identifiers,
        num::{StreamPos, TextNum, UserNum},
    },
    store::{Direction, Reader, StorageError, Tx, schema},
};

/// From how many messages on it is known whose they are. A device that is away for a night has fewer; to count so many,
/// once, takes some milliseconds.
const COUNTED_FROM: u32 = 1_000;

/// Below how many messages that is forgotten again: half as many, so that a queue that is about as long as what is counted is not
/// counted time and again.
const FORGOTTEN_BELOW: u32 = COUNTED_FROM / 2;

/// A queue: a device of a user of this server, or another server (behind the user zero, whom there is not).
pub(crate) type Queue = (UserNum, TextNum);

/// The queue of what goes to another server.
pub(crate) fn to_server(server: TextNum) -> Queue {
    (UserNum(0), server)
}

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    /// A user of this server.
    Here(UserNum),
    /// Another server: a user's name costs it nothing.
    Elsewhere(TextNum),
}

/// The two sides that a sender may be on. Each has a half of a full queue: a server's name costs little, too, and users of
/// this server are not to pay for any number of these.
const HERE: u8 = 0;
const ELSEWHERE: u8 = 1;
/// Stands for all of one side, beside the numbers of senders, which begin at one.
pub(crate) const ALL: u64 = 0;

/// Side and number.
type Place = (u8, u64);

impl Sender {
    /// Where the sender's rows are.
    pub(crate) fn place(self) -> Place {
        match self {
            Self::Here(user) => (HERE, user.0),
            Self::Elsewhere(server) => (ELSEWHERE, u64::from(server.0)),
        }
    }

    /// Whose a message of the user is. Names that nobody has are one sender.
    pub(crate) fn named(reader: &Reader, user_id: &str) -> Result<Self, StorageError> {
        Ok(match identifiers::server_name(user_id) {
            Some(server) if *server != *reader.shared.server_name => {
                Self::Elsewhere(reader.text_num(server)?.unwrap_or(TextNum(u32::MAX)))
            }
            _ => Self::Here(reader.user_num(user_id)?.unwrap_or(UserNum(u64::MAX))),
        })
    }
}

/// Who sent a message, as it says itself: its JSON has a `sender`, also on its way to another server.
pub(crate) fn sender_in(message: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        sender: Cow<'a, str>,
    }
    let message = serde_json::from_slice::<Message<'_>>(message);
    message.map(|message| message.sender.into_owned()).unwrap_or_default()
}

/// Whether a queue took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It had a place.
    Free,
    /// It takes the place of this one, the oldest of whoever has most, which the caller has to remove.
    InPlaceOf(StreamPos),
    /// Its sender has as much as anybody may.
    Refused,
}

/// Puts a message of `sender` at `pos` into the rows of a queue that is counted and takes `max`, of which one sender may have
/// a half. Those at `kept` make room for nobody. O(log of what is stored), and of `kept`, and of what has made room and is not
/// cleared away in the store yet.
pub(crate) fn enter(
    tx: &mut Tx,
    queue: Queue,
    sender: Sender,
    pos: StreamPos,
    max: u32,
    kept: &[StreamPos],
) -> Result<Entry, StorageError> {
    let own = share(tx, queue, sender.place())?;
    if own >= max / 2 {
        return Ok(Entry::Refused);
    }
    let (here, elsewhere) = (share(tx, queue, (HERE, ALL))?, share(tx, queue, (ELSEWHERE, ALL))?);
    let mut entry = Entry::Free;
    if here.saturating_add(elsewhere) >= max {
        let side = match (here > max / 2, elsewhere > max / 2) {
            (true, _) => HERE,
            (_, true) => ELSEWHERE,
            _ => sender.place().0,
        };
        let greatest = greatest(tx, queue, side)?.filter(|(most, _)| side != sender.place().0 || *most > own);
        let Some((_, num)) = greatest else { return Ok(Entry::Refused) };
        let Some(oldest) = oldest(tx, queue, (side, num), kept)? else { return Ok(Entry::Refused) };
        remove(tx, queue, (side, num), &[oldest])?;
        entry = Entry::InPlaceOf(oldest);
    }
    add(tx, queue, sender.place(), &[pos])?;
    Ok(entry)
}

/// How many messages a sender, or with [`ALL`] a side, has in the queue.
fn share(reader: &Reader, queue: Queue, (side, num): Place) -> Result<u32, StorageError> {
    Ok(reader.get(&schema::QUEUE_SHARES, &(queue.0, queue.1, side, num))?.unwrap_or_default())
}

/// Who of a side has most, behind how many these are.
fn greatest(reader: &Reader, queue: Queue, side: u8) -> Result<Option<(u32, u64)>, StorageError> {
    let (mut found, prefix) = (None, (queue.0, queue.1, side));
    reader.scan(&schema::QUEUE_RANKS, &prefix, Direction::Backward, |(_, _, _, share, num), ()| {
        found = Some((share, num));
        false
    })?;
    Ok(found)
}

/// The sender's oldest message that is not `kept`.
fn oldest(
    reader: &Reader,
    queue: Queue,
    (side, num): Place,
    kept: &[StreamPos],
) -> Result<Option<StreamPos>, StorageError> {
    let (mut found, prefix) = (None, (queue.0, queue.1, side, num));
    reader.scan(&schema::QUEUE_SENDERS, &prefix, Direction::Forward, |(_, _, _, _, pos), ()| {
        found = Some(pos).filter(|pos| !kept.contains(pos));
        found.is_none()
    })?;
    Ok(found)
}

/// How many messages of the queue are known by their senders.
pub(crate) fn counted(reader: &Reader, queue: Queue) -> Result<u32, StorageError> {
    Ok(share(reader, queue, (HERE, ALL))?.saturating_add(share(reader, queue, (ELSEWHERE, ALL))?))
}

/// Whether it is known whose the messages of a queue are in which `waiting` are.
pub(crate) fn are_counted(reader: &Reader, queue: Queue, waiting: u32) -> Result<bool, StorageError> {
    Ok(waiting >= FORGOTTEN_BELOW && counted(reader, queue)? == waiting)
}

/// Whether the next message of a queue in which `waiting` are has to be entered: the queue is counted already, or is long.
pub(crate) fn is_to_enter(reader: &Reader, queue: Queue, waiting: u32) -> Result<bool, StorageError> {
    Ok(waiting >= COUNTED_FROM || are_counted(reader, queue, waiting)?)
}

/// Counts a queue from its messages, each with its position and its sender's id. O(messages).
pub(crate) fn count(
    tx: &mut Tx,
    queue: Queue,
    messages: Vec<(StreamPos, String)>,
) -> Result<(), StorageError> {
    forget(tx, queue)?;
    for (sender, positions) in by_sender(tx, messages)? {
        add(tx, queue, sender.place(), &positions)?;
    }
    Ok(())
}

/// Notes that messages are gone from a queue in which `before` were, each with its position and, if the queue is counted,
/// its sender's id.
pub(crate) fn gone(
    tx: &mut Tx,
    queue: Queue,
    before: u32,
    is_counted: bool,
    messages: Vec<(StreamPos, String)>,
) -> Result<(), StorageError> {
    if before < FORGOTTEN_BELOW {
        return Ok(());
    }
    let left = before.saturating_sub(messages.len() as u32);
    if !is_counted || left < FORGOTTEN_BELOW {
        return forget(tx, queue);
    }
    for (sender, positions) in by_sender(tx, messages)? {
        remove(tx, queue, sender.place(), &positions)?;
    }
    Ok(())
}

fn by_sender(
    reader: &Reader,
    messages: Vec<(StreamPos, String)>,
) -> Result<BTreeMap<Sender, Vec<StreamPos>>, StorageError> {
    let mut by_user: BTreeMap<String, Vec<StreamPos>> = BTreeMap::new();
    for (pos, user_id) in messages {
        by_user.entry(user_id).or_default().push(pos);
    }
    let mut by_sender: BTreeMap<Sender, Vec<StreamPos>> = BTreeMap::new();
    for (user_id, positions) in by_user {
        by_sender.entry(Sender::named(reader, &user_id)?).or_default().extend(positions);
    }
    Ok(by_sender)
}

fn add(tx: &mut Tx, queue: Queue, (side, num): Place, positions: &[StreamPos]) -> Result<(), StorageError> {
    for pos in positions {
        tx.put(&schema::QUEUE_SENDERS, &(queue.0, queue.1, side, num, *pos), &());
    }
    let added = positions.len() as u32;
    change(tx, queue, (side, num), |share| share.saturating_add(added))
}

fn remove(
    tx: &mut Tx,
    queue: Queue,
    (side, num): Place,
    positions: &[StreamPos],
) -> Result<(), StorageError> {
    for pos in positions {
        tx.delete(&schema::QUEUE_SENDERS, &(queue.0, queue.1, side, num, *pos));
    }
    let removed = positions.len() as u32;
    change(tx, queue, (side, num), |share| share.saturating_sub(removed))
}

fn change(
    tx: &mut Tx,
    queue: Queue,
    (side, num): Place,
    to: impl Fn(u32) -> u32,
) -> Result<(), StorageError> {
    let (user, text) = queue;
    let of_side = share(tx, queue, (side, ALL))?;
    tx.put(&schema::QUEUE_SHARES, &(user, text, side, ALL), &to(of_side));
    let before = share(tx, queue, (side, num))?;
    let after = to(before);
    if before > 0 {
        tx.delete(&schema::QUEUE_RANKS, &(user, text, side, before, num));
    }
    if after > 0 {
        tx.put(&schema::QUEUE_SHARES, &(user, text, side, num), &after);
        tx.put(&schema::QUEUE_RANKS, &(user, text, side, after, num), &());
    } else {
        tx.delete(&schema::QUEUE_SHARES, &(user, text, side, num));
    }
    Ok(())
}

/// Forgets whose the messages of a queue are: it has become short, or is gone.
pub(crate) fn forget(tx: &mut Tx, queue: Queue) -> Result<(), StorageError> {
    let mut has_rows = false;
    for side in [HERE, ELSEWHERE] {
        has_rows |= tx.has(&schema::QUEUE_SHARES, &(queue.0, queue.1, side, ALL))?;
    }
    if has_rows {
        forget_rows(tx, queue);
    }
    Ok(())
}

/// The same without a look whether there are any.
pub(crate) fn forget_rows(tx: &mut Tx, queue: Queue) {
    tx.delete_prefix(&schema::QUEUE_SENDERS, &queue);
    tx.delete_prefix(&schema::QUEUE_SHARES, &queue);
    tx.delete_prefix(&schema::QUEUE_RANKS, &queue);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::World;

    #[test]
    fn a_queue_that_becomes_a_little_shorter_stays_counted() {
        let (world, queue, other) = (World::new(), (UserNum(1), TextNum(1)), (UserNum(1), TextNum(2)));
        let messages = |positions: std::ops::RangeInclusive<i64>| {
            positions.map(|pos| (StreamPos(pos), "@alice:here.example".to_owned())).collect::<Vec<_>>()
        };
        let gone = |before: u32, positions: std::ops::RangeInclusive<i64>| {
            world.act(|tx| Ok(super::gone(tx, queue, before, true, messages(positions.clone()))?)).unwrap();
        };
        let state =
            |waiting| world.ask(|reader| Ok((is_to_enter(reader, queue, waiting)?, counted(reader, queue)?)));
        world.act(|tx| Ok(count(tx, queue, messages(1..=1_000))?)).unwrap();
        gone(1_000, 1..=500);
        assert_eq!(state(500), (true, 500));
        gone(500, 501..=501);
        assert_eq!(state(499), (false, 0));
        // One that is not counted is when it is long.
        let is_to_enter = |waiting| world.ask(|reader| Ok(is_to_enter(reader, other, waiting)?));
        assert_eq!((is_to_enter(999), is_to_enter(1_000)), (false, true));
    }
}
