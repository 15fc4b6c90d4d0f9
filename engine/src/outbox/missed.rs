//! Receipts that a server is still to be told and that are in memory no more: they are looked for among those of the rooms that it
//! is in, where one is kept of each user and thread.
//!
//! Invariant: a receipt of a user of this server that came while another one was in the room, and that the other one has not taken,
//! came behind `Destination::receipts_told_to`, so that it is found after the end of this server; and it is at hand
//! (`ephemeral`), or came behind where a search begins or is to begin.

use super::ephemeral::{Ephemeral, earlier};
use crate::{
    core::num::{RoomNum, StreamPos, TextNum, UserNum},
    room::{members::is_local, receipts::ReceiptKind},
    store::{Direction, Reader, RestOfKey, StorageError, schema, schema::Membership},
};

/// The most receipts and rooms that are looked at together, whoever has read: some milliseconds.
const LOOKED_AT_MAX: usize = 2_000;
/// The most that are looked at in each room for a server that took all it was sent when this one ended. It lacks those of the last
/// seconds, and what comes before is looked at for each of thousands that may be in a room.
const LATEST_MAX: usize = 100;

/// A search for receipts: room by room, in each from the last one on backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    /// They came behind this position.
    pub from: StreamPos,
    /// Whether those are enough that came last in each room.
    is_for_latest: bool,
    /// The room in which it goes on.
    room: RoomNum,
    /// What came there before this is still to be looked at.
    before: StreamPos,
    /// How many were looked at there.
    looked: usize,
}

impl Search {
    fn new(from: StreamPos, is_for_latest: bool) -> Self {
        Self { from, is_for_latest, room: RoomNum(0), before: StreamPos::MAX, looked: 0 }
    }

    /// Goes on until `max` receipts are found, or much was looked at. Answers them, and what is left to be looked at.
    pub fn go_on(
        self,
        reader: &Reader,
        server: TextNum,
        max: usize,
    ) -> Result<(Vec<Ephemeral>, Option<Self>), StorageError> {
        let (mut found, mut left) = (Vec::new(), LOOKED_AT_MAX);
        for (room, came) in rooms(reader, server, self.room)? {
            let from = self.from.max(came);
            if !reader.shared.watch.marks.may_have_receipts(room, from) {
                continue;
            }
            let (before, looked) =
                if room == self.room { (self.before, self.looked) } else { (StreamPos::MAX, 0) };
            let limit = if self.is_for_latest { LATEST_MAX.saturating_sub(looked).min(left) } else { left };
            if limit == 0 {
                continue;
            }
            let rows = receipts(reader, room, (from, before), limit)?;
            let (count, last) = (rows.len(), rows.last().map_or(StreamPos::ZERO, |row| row.0));
            for (index, (pos, receipt)) in rows.into_iter().enumerate() {
                if found.len() >= max {
                    let before = StreamPos(pos.0.saturating_add(1));
                    return Ok((found, Some(Self { room, before, looked: looked + index, ..self })));
                }
                match receipt.and_then(|receipt| told(reader, room, receipt)) {
                    Ok(told) => found.extend(told),
                    Err(error @ StorageError::Corrupt(_)) => {
                        tracing::warn!(%error, "a receipt, or whose it is, cannot be read, and it is passed over");
                    }
                    Err(error) => return Err(error),
                }
            }
            // A room in which nobody has read costs a look too.
            left = left.saturating_sub(count + 1);
            if left == 0 {
                return Ok((found, Some(Self { room, before: last, looked: looked + count, ..self })));
            }
        }
        Ok((found, None))
    }
}

/// The rooms that the server is in, from this one on, and the positions at which it came. O(rooms that it ever was in).
fn rooms(reader: &Reader, server: TextNum, from: RoomNum) -> Result<Vec<(RoomNum, StreamPos)>, StorageError> {
    let mut rooms = Vec::new();
    reader.scan_between(
        &schema::SERVER_STAYS,
        &(server, from),
        &TextNum(server.0.saturating_add(1)),
        Direction::Forward,
        |(_, room, came): (TextNum, RoomNum, StreamPos), end| {
            if end == StreamPos::MAX {
                rooms.push((room, came));
            }
            true
        },
    )?;
    Ok(rooms)
}

/// Whose a receipt in a room's stream is, its kind and thread.
type Receipt = (UserNum, u8, TextNum);

/// A row of that stream; what cannot be read of it hides no other.
type Row = (StreamPos, Result<Receipt, StorageError>);

/// The last receipts of a room that came behind one position and before another, the newest first.
fn receipts(
    reader: &Reader,
    room: RoomNum,
    (from, before): (StreamPos, StreamPos),
    limit: usize,
) -> Result<Vec<Row>, StorageError> {
    let mut rows = Vec::new();
    let start = StreamPos(from.0.saturating_add(1));
    if start >= before {
        return Ok(rows);
    }
    reader.scan_between(
        &schema::RECEIPT_STREAM.raw(),
        &(room, start),
        &(room, before),
        Direction::Backward,
        |key: RestOfKey, receipt| {
            if let Some((_, pos)) = key.decode::<(RoomNum, StreamPos)>() {
                rows.push((pos, schema::RECEIPT_STREAM.read_value(&receipt)));
            }
            rows.len() < limit
        },
    )?;
    Ok(rows)
}

/// What others are told of the receipt, if it is this server's to tell them that its user has read that far.
fn told(
    reader: &Reader,
    room: RoomNum,
    (user, kind, thread): Receipt,
) -> Result<Option<Ephemeral>, StorageError> {
    let is_told = kind == ReceiptKind::Read as u8
        && is_local(reader, &reader.user_id(user)?)
        && reader.membership(user, room)? == Some(Membership::Join);
    Ok(is_told.then_some(Ephemeral::Receipt(room, user, thread)))
}

/// What is to be looked for that one server has missed.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// Behind this position came what is to be looked for once the search is over; `None` if nothing is.
    next_from: Option<StreamPos>,
    search: Option<Search>,
}

impl Missed {
    /// What a server may lack when this one has begun, that had been told all up to `told_to`.
    pub fn before_start(told_to: StreamPos, is_for_latest: bool) -> Self {
        Self { next_from: None, search: Some(Search::new(told_to, is_for_latest)) }
    }

    /// It has missed receipts that came behind this position.
    pub fn add(&mut self, from: StreamPos) {
        self.next_from = earlier(self.next_from, Some(from));
    }

    /// Whether more is to be looked for than what came last in each room.
    pub fn is_any(&self) -> bool {
        self.next_from.is_some() || self.search.is_some_and(|search| !search.is_for_latest)
    }

    /// Behind which position all came that is to be looked for; `None` if nothing is.
    pub fn behind(&self) -> Option<StreamPos> {
        earlier(self.next_from, self.search.map(|search| search.from))
    }

    /// The search that goes on, or begins.
    pub fn search(&mut self) -> Option<Search> {
        if self.search.is_none() {
            self.search = self.next_from.take().map(|from| Search::new(from, false));
        }
        self.search
    }

    /// This is left to be looked at.
    pub fn goes_on(&mut self, rest: Option<Search>) {
        self.search = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        fixture::World,
        store::{Memory, Tx},
        stream::Touch,
    };

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:there.example";
    const THERE: &str = "there.example";

    fn furnished(world: World) -> World {
        world.room(ROOM, ALICE, None);
        world.join(ROOM, BOB);
        world
    }

    /// These receipts come, of users and threads.
    fn come(tx: &mut Tx, room: RoomNum, receipts: impl IntoIterator<Item = (UserNum, TextNum)>) {
        for (user, thread) in receipts {
            let pos = tx.next_position();
            tx.put(&schema::RECEIPT_STREAM, &(room, pos), &(user, ReceiptKind::Read as u8, thread));
        }
        tx.touch(Touch::Receipt(room));
    }

    /// What is found with so many at most in each piece, and how many pieces it takes.
    fn look(world: &World, is_for_latest: bool, max: usize) -> (Vec<Ephemeral>, usize) {
        world.ask(|reader| {
            let server = reader.text_num(THERE)?.unwrap();
            let (mut found, mut looks) = (Vec::new(), 0);
            let mut next = Some(Search::new(StreamPos::ZERO, is_for_latest));
            while let Some(search) = next {
                let (more, rest) = search.go_on(reader, server, max)?;
                found.extend(more);
                (next, looks) = (rest, looks + 1);
            }
            Ok((found, looks))
        })
    }

    #[test]
    fn much_is_looked_at_in_pieces_and_for_a_server_that_was_well_only_what_came_last() {
        let world = furnished(World::new());
        // Alice has read first, and then very many others.
        let read = |tx: &mut Tx| {
            let room = tx.room_num(ROOM)?.unwrap();
            let (alice, bob) = (tx.user_num(ALICE)?.unwrap(), tx.user_num(BOB)?.unwrap());
            let threads = [tx.intern_text("main")?, tx.intern_text("")?];
            let others = std::iter::repeat_n((bob, threads[0]), 2 * LOOKED_AT_MAX);
            come(tx, room, threads.map(|thread| (alice, thread)).into_iter().chain(others));
            Ok(threads.map(|thread| Ephemeral::Receipt(room, alice, thread)))
        };
        let [first, second] = world.act(read).unwrap();
        assert_eq!(look(&world, false, 100), (vec![second, first], 3));
        assert_eq!(look(&world, false, 1), (vec![second, first], 4));
        assert_eq!(look(&world, true, 100), (Vec::new(), 1));
    }

    #[test]
    fn what_came_last_is_no_more_where_it_is_looked_for_in_pieces() {
        let world = furnished(World::new());
        let read = |tx: &mut Tx| {
            let (room, alice) = (tx.room_num(ROOM)?.unwrap(), tx.user_num(ALICE)?.unwrap());
            let mut read = Vec::new();
            for number in 0..6 * LATEST_MAX {
                read.push((alice, tx.intern_text(&format!("$thread_{number}"))?));
            }
            come(tx, room, read.iter().copied());
            let last = read.into_iter().rev().take(LATEST_MAX);
            Ok(last.map(|(user, thread)| Ephemeral::Receipt(room, user, thread)).collect::<Vec<_>>())
        };
        let last = world.act(read).unwrap();
        for max in [LATEST_MAX / 3, LATEST_MAX / 2, LATEST_MAX] {
            assert_eq!(look(&world, true, max).0, last, "{max}");
        }
    }

    #[test]
    fn many_rooms_in_which_nobody_has_read_are_looked_at_in_pieces() {
        let memory = Arc::new(Memory::default());
        let world = furnished(World::on(memory.clone()));
        let come_into_others = |tx: &mut Tx| {
            let server = tx.text_num(THERE)?.unwrap();
            for number in 0..2 * LOOKED_AT_MAX as u64 {
                let stay = (server, RoomNum(1_000 + number), StreamPos(1));
                tx.put(&schema::SERVER_STAYS, &stay, &StreamPos::MAX);
            }
            Ok(())
        };
        world.act(come_into_others).unwrap();
        drop(world);
        // It is not known where somebody has read before the start.
        assert_eq!(look(&World::on(memory), false, 100), (Vec::new(), 3));
    }

    #[test]
    fn a_receipt_that_cannot_be_read_hides_no_other() {
        let world = furnished(World::new());
        let read = |tx: &mut Tx| {
            let (room, alice) = (tx.room_num(ROOM)?.unwrap(), tx.user_num(ALICE)?.unwrap());
            let threads = [tx.intern_text("main")?, tx.intern_text("$thread")?, tx.intern_text("")?];
            come(tx, room, threads.map(|thread| (alice, thread)));
            Ok(threads.map(|thread| Ephemeral::Receipt(room, alice, thread)))
        };
        let [first, _, last] = world.act(read).unwrap();
        let spoil_the_second = |tx: &mut Tx| {
            let (rows, room) = (schema::RECEIPT_STREAM.raw(), tx.room_num(ROOM)?.unwrap());
            let mut keys = Vec::new();
            tx.scan(&rows, &room, Direction::Forward, |key: RestOfKey, _| {
                keys.push(key);
                true
            })?;
            tx.put(&rows, &keys[1], &bytes::Bytes::new());
            Ok(())
        };
        world.act(spoil_the_second).unwrap();
        assert_eq!(look(&world, false, 100), (vec![last, first], 1));
        assert_eq!(look(&world, false, 1), (vec![last, first], 2));
    }

    #[test]
    fn a_receipt_of_nobody_hides_no_other() {
        let world = furnished(World::new());
        let read = |tx: &mut Tx| {
            let (room, alice) = (tx.room_num(ROOM)?.unwrap(), tx.user_num(ALICE)?.unwrap());
            let threads = [tx.intern_text("main")?, tx.intern_text("")?];
            come(tx, room, [(alice, threads[0]), (UserNum(1_000_000), threads[0]), (alice, threads[1])]);
            Ok(threads.map(|thread| Ephemeral::Receipt(room, alice, thread)))
        };
        let [first, second] = world.act(read).unwrap();
        assert_eq!(look(&world, false, 100), (vec![second, first], 1));
    }
}
