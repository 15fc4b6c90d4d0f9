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
    store::{Direction, Reader, StorageError, schema, schema::Membership},
};

/// The most receipts that are looked at together, whoever has read: some milliseconds.
const LOOKED_AT_MAX: usize = 2_000;
/// The most that are looked at in each room for a server that took all it was sent when this one ended. It lacks those of the last
/// seconds, and what comes before is looked at for each of thousands that may be in a room.
const LATEST_MAX: usize = 500;

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
}

impl Search {
    fn new(from: StreamPos, is_for_latest: bool) -> Self {
        Self { from, is_for_latest, room: RoomNum(0), before: StreamPos::MAX }
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
            let before = if room == self.room { self.before } else { StreamPos::MAX };
            let limit = if self.is_for_latest { LATEST_MAX.min(left) } else { left };
            let rows = receipts(reader, room, (from, before), limit)?;
            for (pos, user, kind, thread) in rows.iter().copied() {
                if found.len() >= max {
                    let before = StreamPos(pos.0.saturating_add(1));
                    return Ok((found, Some(Self { room, before, ..self })));
                }
                if is_told(reader, room, user, kind)? {
                    found.push(Ephemeral::Receipt(room, user, thread));
                }
            }
            left -= rows.len();
            if let Some((before, ..)) = rows.last().copied()
                && left == 0
            {
                return Ok((found, Some(Self { room, before, ..self })));
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

/// A row of a room's stream of receipts.
type Row = (StreamPos, UserNum, u8, TextNum);

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
        &schema::RECEIPT_STREAM,
        &(room, start),
        &(room, before),
        Direction::Backward,
        |(_, pos): (RoomNum, StreamPos), (user, kind, thread)| {
            rows.push((pos, user, kind, thread));
            rows.len() < limit
        },
    )?;
    Ok(rows)
}

/// Whether it is this server's to tell others that the user has read that far.
fn is_told(reader: &Reader, room: RoomNum, user: UserNum, kind: u8) -> Result<bool, StorageError> {
    Ok(kind == ReceiptKind::Read as u8
        && is_local(reader, &reader.user_id(user)?)
        && reader.membership(user, room)? == Some(Membership::Join))
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
    use super::*;
    use crate::{fixture::World, stream::Touch};

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:there.example";
    const THERE: &str = "there.example";

    #[test]
    fn much_is_looked_at_in_pieces_and_for_a_server_that_was_well_only_what_came_last() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        world.join(ROOM, BOB);
        // Alice has read first, and then very many others.
        let read = |tx: &mut crate::store::Tx| {
            let room = tx.room_num(ROOM)?.unwrap();
            let (alice, bob) = (tx.user_num(ALICE)?.unwrap(), tx.user_num(BOB)?.unwrap());
            let threads = [tx.intern_text("main")?, tx.intern_text("")?];
            let others = std::iter::repeat_n((bob, threads[0]), 2 * LOOKED_AT_MAX);
            for (user, thread) in threads.map(|thread| (alice, thread)).into_iter().chain(others) {
                let pos = tx.next_position();
                tx.put(&schema::RECEIPT_STREAM, &(room, pos), &(user, ReceiptKind::Read as u8, thread));
            }
            tx.touch(Touch::Receipt(room));
            Ok(threads.map(|thread| Ephemeral::Receipt(room, alice, thread)))
        };
        let [first, second] = world.act(read).unwrap();
        let look = |is_for_latest: bool, max: usize| {
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
        };
        assert_eq!(look(false, 100), (vec![second, first], 3));
        assert_eq!(look(false, 1), (vec![second, first], 4));
        assert_eq!(look(true, 100), (Vec::new(), 1));
    }
}
