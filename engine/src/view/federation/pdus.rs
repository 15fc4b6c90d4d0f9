//! Lists of events that an answer to a peer consists of, read piece by piece.
//!
//! Invariant: a list is made by a view that has checked that the peer may have all of it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{core::num::EventNum, error::Result, store::Reader, view::View};

/// Events in one piece: a fraction of a millisecond of work each.
const PIECE_EVENTS_MAX: usize = 500;

/// Bytes of events with which a piece is long enough. A connection holds a whole one, which the peer may not take, and what
/// others say about themselves may take 64 KiB an event. Some 400 ordinary events have as much.
const PIECE_BYTES: usize = 256 * 1024;

/// Events read at once, by which a piece may come to be longer than that: by 256 KiB at most.
const READ_AT_ONCE: usize = 4;

/// Events for a peer, eight bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PduList(Arc<[EventNum]>);

impl PduList {
    pub(crate) fn new(nums: Vec<EventNum>) -> Self {
        Self(nums.into())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn read<T>(
        &self,
        reader: &Reader,
        from: usize,
        part: impl Fn((Arc<str>, Bytes)) -> T,
    ) -> Result<Piece<T>> {
        let rest = self.0.get(from..).unwrap_or_default();
        let rest = rest.get(..PIECE_EVENTS_MAX).unwrap_or(rest);
        let (mut items, mut bytes) = (Vec::new(), 0);
        for nums in rest.chunks(READ_AT_ONCE) {
            let bodies = reader.bodies(nums)?;
            bytes += bodies.iter().map(|(_, json)| json.len()).sum::<usize>();
            items.extend(bodies.into_iter().map(&part));
            if bytes >= PIECE_BYTES {
                break;
            }
        }
        let next = from + items.len();
        Ok(Piece { items, next: (next < self.len()).then_some(next) })
    }
}

/// A piece of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// What it has.
    pub items: Vec<T>,
    /// Where the next piece begins, if there is one.
    pub next: Option<usize>,
}

/// A piece of a list: the events as they are stored, with hashes and signatures.
pub struct Pdus<'a> {
    /// The list.
    pub list: &'a PduList,
    /// The index of the first event: zero, then each piece's `next`.
    pub from: usize,
}

impl View for Pdus<'_> {
    type Output = Piece<Bytes>;

    fn read(&self, reader: &Reader) -> Result<Piece<Bytes>> {
        self.list.read(reader, self.from, |(_, json)| json)
    }
}

/// A piece of a list: the events' ids.
pub struct EventIds<'a> {
    /// The list.
    pub list: &'a PduList,
    /// The index of the first event: zero, then each piece's `next`.
    pub from: usize,
}

impl View for EventIds<'_> {
    type Output = Piece<Arc<str>>;

    fn read(&self, reader: &Reader) -> Result<Piece<Arc<str>>> {
        self.list.read(reader, self.from, |(event_id, _)| event_id)
    }
}
