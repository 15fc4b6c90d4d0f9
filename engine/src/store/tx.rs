//! What every module receives: a reader (of a snapshot, or of the latest state under lanes) and, for writes, a
//! transaction around one that collects a batch and what it touched.
//!
//! Invariant: a transaction sees its own writes, then those staged before it, then the disk.

use std::{
    collections::{HashMap, HashSet},
    ops::Deref,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Backend, Batch, Change, Direction, Family, InternedKind, Key, NumberHash, Read, StorageError, Value,
    batch::{Write, WriteKind},
    intern::{CarriedName, NewNames},
    key::{self, prefix_end},
    overlay::{LAYER_ROWS_MIN, Laid, Overlay, RemovedRange, Row, Rows, covers, within},
    schema,
    schema::Keyspace,
};
use crate::{
    core::{
        event::Pdu,
        num::{EventNum, NodeId, StreamPos, UserNum},
    },
    engine::Shared,
    room::Event,
    stream::Touch,
};

/// What lies under a transaction's own writes.
pub(crate) enum Base {
    /// A moment that does not change.
    Moment(Arc<dyn Read>),
    /// The latest state, with what is staged over it.
    Latest(Arc<dyn Backend>, Arc<Overlay>),
}

/// Typed reads.
pub struct Reader {
    base: Base,
    /// The last position that this reader may tell about.
    pub pos: StreamPos,
    pub(crate) shared: Arc<Shared>,
    own: Rows,
    own_removed: Vec<RemovedRange>,
    own_events: HashMap<EventNum, Arc<Event>>,
    /// How often events had been written anew when this reader was made.
    rewrites: u64,
}

impl Reader {
    pub(crate) fn new(base: Base, pos: StreamPos, shared: Arc<Shared>, rewrites: u64) -> Self {
        let (own, own_removed, own_events) = (Rows::new(), Vec::new(), HashMap::new());
        Self { base, pos, shared, own, own_removed, own_events, rewrites }
    }

    /// How often events had been written anew when this reader was made, in this run.
    pub(crate) fn rewrites(&self) -> u64 {
        self.rewrites
    }

    /// Whether this database may have given out the position. It has not if it was restored from a copy that was made before.
    pub(crate) fn knows(&self, pos: StreamPos) -> bool {
        let skipped = &self.shared.skipped;
        let behind = skipped.partition_point(|(from, _)| *from < pos.0);
        let last = behind.checked_sub(1).and_then(|last| skipped.get(last));
        pos <= self.pos && last.is_none_or(|(_, to)| *to <= pos.0)
    }

    /// The event as this transaction or an earlier one left it, without looking at the disk.
    pub(crate) fn remembered_event(&self, num: EventNum) -> Option<Arc<Event>> {
        self.own_events.get(&num).cloned().or_else(|| self.shared.events.get(&num))
    }

    /// Remembers an event that was read from the disk, unless it may have been written anew since.
    pub(crate) fn remember_event(&self, event: &Arc<Event>) {
        if self.rewrites == self.shared.rewrites() {
            self.shared.events.insert(event.num, event.clone(), event.weight());
        }
    }

    fn get_bytes(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.over_base(key).map_or_else(|| self.base().get(family, key), Ok)
    }

    /// What lies over the base under `key`; `None` if nothing does, `Some(None)` if it is removed there.
    fn over_base(&self, key: &[u8]) -> Option<Option<Bytes>> {
        if let Some(value) = self.own.get(key) {
            return Some(value.clone());
        }
        if self.own_removed.iter().any(|range| covers(range, key)) {
            return Some(None);
        }
        match &self.base {
            Base::Moment(_) => None,
            Base::Latest(_, overlay) => overlay.get(key),
        }
    }

    fn base(&self) -> &dyn Read {
        match &self.base {
            Base::Moment(moment) => &**moment,
            Base::Latest(backend, _) => &**backend,
        }
    }

    /// The value under `key`.
    pub fn get<K: Key, V: Value>(
        &self,
        keyspace: &Keyspace<K, V>,
        key: &K,
    ) -> Result<Option<V>, StorageError> {
        let bytes = self.get_bytes(keyspace.family, &key::encode(keyspace.id, key).bytes)?;
        bytes.map(|bytes| keyspace.read_value(&bytes)).transpose()
    }

    /// Whether there is something under `key`.
    pub fn has<K: Key, V: Value>(&self, keyspace: &Keyspace<K, V>, key: &K) -> Result<bool, StorageError> {
        Ok(self.get_bytes(keyspace.family, &key::encode(keyspace.id, key).bytes)?.is_some())
    }

    /// The values under many keys, in their order; one bulk read of what does not lie over the base.
    pub fn get_many<K: Key, V: Value>(
        &self,
        keyspace: &Keyspace<K, V>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<V>>, StorageError> {
        let keys: Vec<Vec<u8>> =
            keys.into_iter().map(|key| key::encode(keyspace.id, &key).bytes.into()).collect();
        let over: Vec<Option<Option<Bytes>>> = keys.iter().map(|key| self.over_base(key)).collect();
        let absent = keys.into_iter().zip(&over).filter(|(_, over)| over.is_none()).map(|(key, _)| key);
        let mut read = self.base().get_many(keyspace.family, &absent.collect::<Vec<_>>())?.into_iter();
        let values = over.into_iter().map(|over| over.unwrap_or_else(|| read.next().flatten()));
        values.map(|bytes| bytes.map(|bytes| keyspace.read_value(&bytes)).transpose()).collect()
    }

    /// Visits all rows whose keys begin with `prefix`, until `visit` returns false.
    pub fn scan<K: Key, V: Value, P: Key>(
        &self,
        keyspace: &Keyspace<K, V>,
        prefix: &P,
        direction: Direction,
        visit: impl FnMut(K, V) -> bool,
    ) -> Result<(), StorageError> {
        let start = key::encode(keyspace.id, prefix).bytes;
        let end = prefix_end(&start);
        self.scan_bytes(keyspace, &start, end.as_deref(), direction, visit)
    }

    /// Visits all rows with keys from `start` up to, not including, `end` (both may be the first parts of a key), until
    /// `visit` returns false.
    pub fn scan_between<K: Key, V: Value, S: Key, E: Key>(
        &self,
        keyspace: &Keyspace<K, V>,
        start: &S,
        end: &E,
        direction: Direction,
        visit: impl FnMut(K, V) -> bool,
    ) -> Result<(), StorageError> {
        let start = key::encode(keyspace.id, start).bytes;
        let end = key::encode(keyspace.id, end).bytes;
        self.scan_bytes(keyspace, &start, Some(&*end), direction, visit)
    }

    fn scan_bytes<K: Key, V: Value>(
        &self,
        keyspace: &Keyspace<K, V>,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        mut visit: impl FnMut(K, V) -> bool,
    ) -> Result<(), StorageError> {
        let mut failure = None;
        let mut decode = |key: &[u8], value: Bytes| match (key::decode(key), keyspace.read_value(&value)) {
            (Some(key), Ok(value)) => visit(key, value),
            (_, value) => {
                failure = Some(value.err().unwrap_or_else(|| keyspace.corrupt()));
                false
            }
        };
        let (over, removed) = self.rows_over_base(start, end);
        let base = self.base();
        if over.is_empty() && removed.is_empty() {
            base.scan(keyspace.family, start, end, direction, &mut |key, value| {
                decode(key, Bytes::copy_from_slice(value))
            })?;
        } else {
            let mut merge = Merge { over, removed, direction };
            let mut stopped = false;
            base.scan(keyspace.family, start, end, direction, &mut |key, value| {
                stopped = !merge.step(key, value, &mut decode);
                !stopped
            })?;
            if !stopped {
                merge.rest(&mut decode);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn rows_over_base(&self, start: &[u8], end: Option<&[u8]>) -> (Rows, Vec<RemovedRange>) {
        let (mut rows, mut removed) = match &self.base {
            Base::Moment(_) => (Rows::new(), Vec::new()),
            Base::Latest(_, overlay) => overlay.copy_range(start, end),
        };
        for range in &self.own_removed {
            rows.retain(|key, _| !covers(range, key));
            removed.push(range.clone());
        }
        rows.extend(within(&self.own, start, end).map(|(key, value)| (key.clone(), value.clone())));
        (rows, removed)
    }
}

/// Merges rows that lie over a base into a scan of it.
struct Merge {
    over: Rows,
    removed: Vec<RemovedRange>,
    direction: Direction,
}

impl Merge {
    fn next_before(&mut self, key: &[u8]) -> Option<Row> {
        let next = match self.direction {
            Direction::Forward => self.over.first_entry(),
            Direction::Backward => self.over.last_entry(),
        }?;
        let comes_first = match self.direction {
            Direction::Forward => **next.key() <= *key,
            Direction::Backward => **next.key() >= *key,
        };
        comes_first.then(|| next.remove_entry())
    }

    fn step(&mut self, key: &[u8], value: &[u8], visit: &mut impl FnMut(&[u8], Bytes) -> bool) -> bool {
        while let Some((over_key, over_value)) = self.next_before(key) {
            let replaces = *over_key == *key;
            if over_value.is_some_and(|over_value| !visit(&over_key, over_value)) {
                return false;
            }
            if replaces {
                return true;
            }
        }
        if self.removed.iter().any(|range| covers(range, key)) {
            return true;
        }
        visit(key, Bytes::copy_from_slice(value))
    }

    fn rest(mut self, visit: &mut impl FnMut(&[u8], Bytes) -> bool) {
        loop {
            let next = match self.direction {
                Direction::Forward => self.over.pop_first(),
                Direction::Backward => self.over.pop_last(),
            };
            let Some((key, value)) = next else { return };
            if value.is_some_and(|value| !visit(&key, value)) {
                return;
            }
        }
    }
}

/// A transaction: reads that see its own writes, a batch, and what it touched.
pub struct Tx {
    reader: Reader,
    pub(crate) batch: Batch,
    pub(crate) names: Vec<CarriedName>,
    carried: HashSet<(u8, u64), NumberHash>,
    pub(super) new_names: NewNames,
    /// Users who had no number before.
    made_users: HashSet<UserNum, NumberHash>,
    pub(crate) touches: Vec<Touch>,
    /// Events made by this transaction, each with the index of its position, which they are told when it is staged.
    pub(crate) positions: Vec<(Arc<Event>, u32)>,
    /// Whether it wrote an event anew that was there before.
    pub(crate) rewrites: bool,
    /// States that were resolved, by the snapshots that they were made of.
    pub(crate) resolved: Vec<(Vec<NodeId>, NodeId)>,
    /// Events that an earlier attempt built, signed by the policy servers of their rooms.
    pub(crate) signed: Vec<Arc<Pdu>>,
}

impl Deref for Tx {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Tx {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader,
            batch: Batch::default(),
            names: Vec::new(),
            carried: HashSet::default(),
            new_names: NewNames::default(),
            made_users: HashSet::default(),
            touches: Vec::new(),
            positions: Vec::new(),
            rewrites: false,
            resolved: Vec::new(),
            signed: Vec::new(),
        }
    }

    /// Takes the next position of this batch; it becomes real when the batch is staged, and may stand in keys, and at the
    /// beginning of values ([`super::Positioned`]), until then.
    pub fn next_position(&mut self) -> StreamPos {
        let pos = StreamPos::placeholder(self.batch.positions);
        self.batch.positions += 1;
        pos
    }

    /// The position taken last.
    pub fn last_position(&self) -> StreamPos {
        StreamPos::placeholder(self.batch.positions.saturating_sub(1))
    }

    /// Writes `value` under `key`.
    pub fn put<K: Key, V: Value>(&mut self, keyspace: &Keyspace<K, V>, key: &K, value: &V) {
        let value = value.encoded();
        let key = key::encode(keyspace.id, key);
        self.reader.own.insert(key.bytes.clone(), Some(value.bytes.clone()));
        let kind = WriteKind::Put(value.bytes, value.slot);
        self.batch.writes.push(Write { family: keyspace.family, key: key.bytes, key_slot: key.slot, kind });
    }

    /// Removes `key`.
    pub fn delete<K: Key, V: Value>(&mut self, keyspace: &Keyspace<K, V>, key: &K) {
        let key = key::encode(keyspace.id, key);
        self.reader.own.insert(key.bytes.clone(), None);
        let kind = WriteKind::Delete;
        self.batch.writes.push(Write { family: keyspace.family, key: key.bytes, key_slot: key.slot, kind });
    }

    /// Removes every row whose key begins with `prefix`.
    pub fn delete_prefix<K: Key, V: Value, P: Key>(&mut self, keyspace: &Keyspace<K, V>, prefix: &P) {
        let start = key::encode(keyspace.id, prefix).bytes;
        // Every key begins with its keyspace's id, which is never the last byte value, so there always is an end.
        let Some(end) = prefix_end(&start) else { return };
        let family = keyspace.family;
        let range = (start.to_vec(), end.clone());
        self.reader.own.retain(|key, _| !covers(&range, key));
        self.reader.own_removed.push(range);
        let kind = WriteKind::DeleteRange(end);
        self.batch.writes.push(Write { family, key: start, key_slot: None, kind });
    }

    /// Notes what a client may now be told.
    pub fn touch(&mut self, touch: Touch) {
        self.touches.push(touch);
    }

    /// Takes `count` positions that stay free, and returns the last of them; what is to come before what follows can be
    /// placed there later.
    pub fn keep_positions_free(&mut self, count: u32) -> StreamPos {
        self.batch.positions += count;
        self.last_position()
    }

    /// Notes an event that this transaction makes at `pos`: one of its own positions, or one that is known.
    pub(crate) fn made_event(&mut self, event: &Arc<Event>, pos: StreamPos) {
        match pos.placeholder_index() {
            Some(index) => self.positions.push((event.clone(), index)),
            None => event.set_position(pos),
        }
    }

    /// The position of an event, which may be one of this transaction's own.
    pub(crate) fn position_of(&self, event: &Event) -> StreamPos {
        let own = self.positions.iter().rev().find(|(made, _)| made.num == event.num);
        own.map_or(event.pos(), |(_, index)| StreamPos::placeholder(*index))
    }

    /// Notes an event as it is stored from now on; `anew` when it was stored otherwise before.
    pub(crate) fn write_event(&mut self, event: &Arc<Event>, anew: bool) {
        self.rewrites |= anew;
        self.reader.own_events.insert(event.num, event.clone());
    }

    /// The events that this transaction wrote.
    pub(crate) fn written_events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.reader.own_events.values()
    }

    /// Notes a name that was given its number by this transaction.
    pub(super) fn made_name(&mut self, kind: InternedKind, num: u64) {
        if kind == InternedKind::User {
            self.made_users.insert(UserNum(num));
        }
    }

    /// Whether there is something under a key that begins with `user`. Of a user who had no number before there is only
    /// what this transaction wrote.
    pub(crate) fn has_of_user<K: Key, V: Value>(
        &self,
        keyspace: &Keyspace<K, V>,
        user: UserNum,
        key: &K,
    ) -> Result<bool, StorageError> {
        if self.made_users.contains(&user) {
            let key = key::encode(keyspace.id, key).bytes;
            return Ok(self.reader.own.get(&key).is_some_and(Option::is_some));
        }
        self.has(keyspace, key)
    }

    /// What it changes with its positions filled in, the first of which is `first`; if that is much, also as it lies over the
    /// store until it is there. The transaction no longer sees its own rows then.
    pub(crate) fn settle(&mut self, first: StreamPos) -> (Vec<Change>, Option<Laid>) {
        let batch = std::mem::take(&mut self.batch);
        if self.reader.own.len() < LAYER_ROWS_MIN {
            return (batch.resolve(first), None);
        }
        let mut rows = std::mem::take(&mut self.reader.own);
        for write in &batch.writes {
            write.fill_in(&mut rows, first);
        }
        let laid = Laid { rows, removed: std::mem::take(&mut self.reader.own_removed) };
        (laid.changes().unwrap_or_else(|| batch.resolve(first)), Some(laid))
    }

    /// Whether the mapping of a name is carried.
    pub(super) fn carries(&self, kind: InternedKind, num: u64) -> bool {
        self.carried.contains(&(kind as u8, num))
    }

    /// Carries the mapping of a name, once.
    pub(crate) fn carry_name(&mut self, kind: InternedKind, num: u64, name: &Arc<str>) {
        if self.carried.insert((kind as u8, num)) {
            self.put(&schema::NAME_NUMS, &(kind as u8, name.to_string()), &num);
            self.put(&schema::NAME_TEXTS, &(kind as u8, num), &name.to_string());
            self.names.push((kind, name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
        fixture::World,
        store::{Direction, Positioned, schema},
    };

    fn row(num: u64) -> (RoomNum, EventNum) {
        (RoomNum(7), EventNum(num))
    }

    #[test]
    fn many_are_read_as_they_are_one_by_one_wherever_they_lie() {
        let world = World::new();
        let names = |from: u64, to: u64| (from..to).map(|num| format!("$event-{num}"));
        let put = |from: u64, to: u64| {
            world.act(move |tx| {
                for (num, name) in names(from, to).enumerate() {
                    tx.put(&schema::EVENT_NUMS, &name, &EventNum(from + num as u64));
                }
                Ok(())
            })
        };
        put(0, 10).unwrap();
        let (many, single) = world
            .act(|tx| {
                // Own rows, removed ones, and some that are nowhere.
                tx.put(&schema::EVENT_NUMS, &"$event-3".to_owned(), &EventNum(33));
                tx.delete(&schema::EVENT_NUMS, &"$event-5".to_owned());
                tx.put(&schema::EVENT_NUMS, &"$event-12".to_owned(), &EventNum(12));
                let many = tx.get_many(&schema::EVENT_NUMS, names(0, 15))?;
                let single = names(0, 15).map(|name| tx.get(&schema::EVENT_NUMS, &name));
                Ok((many, single.collect::<Result<Vec<_>, _>>()?))
            })
            .unwrap();
        assert_eq!(many, single);
        let expected = (0..15).map(|num| match num {
            3 => Some(EventNum(33)),
            5 => None,
            0..=9 | 12 => Some(EventNum(num)),
            _ => None,
        });
        assert_eq!(many, expected.collect::<Vec<_>>());
    }

    /// Enough rows for a layer of their own, with positions in keys and in values.
    #[test]
    fn a_large_batch_is_written_and_seen_as_a_small_one_would_be() {
        let world = World::new();
        let rows = 1_000;
        world
            .act(|tx| {
                for num in 0..rows {
                    let pos = tx.next_position();
                    tx.put(&schema::TIMELINE, &(RoomNum(7), pos), &EventNum(num));
                    // The first of two values is none that counts.
                    let value = Positioned { pos, value: "first".to_owned() };
                    tx.put(&schema::TRANSACTIONS, &(UserNum(num), TextNum(1), String::new()), &value);
                    let pos = tx.next_position();
                    let value = Positioned { pos, value: "second".to_owned() };
                    tx.put(&schema::TRANSACTIONS, &(UserNum(num), TextNum(1), String::new()), &value);
                }
                tx.delete(&schema::TRANSACTIONS, &(UserNum(3), TextNum(1), String::new()));
                Ok(())
            })
            .unwrap();
        let (timeline, transactions) = world.ask(|reader| {
            let mut timeline: Vec<(StreamPos, EventNum)> = Vec::new();
            reader.scan(
                &schema::TIMELINE,
                &RoomNum(7),
                Direction::Forward,
                |(_, pos): (RoomNum, _), num| {
                    timeline.push((pos, num));
                    true
                },
            )?;
            let key = |num| (UserNum(num), TextNum(1), String::new());
            let transactions = reader.get_many(&schema::TRANSACTIONS, (0..rows).map(key))?;
            Ok((timeline, transactions))
        });
        assert_eq!(timeline.len() as u64, rows);
        for (num, (pos, event)) in timeline.iter().enumerate() {
            assert_eq!((pos.0, event.0), (timeline[0].0.0 + 2 * num as i64, num as u64));
            match &transactions[num] {
                None => assert_eq!(num, 3),
                Some(row) => assert_eq!((row.pos.0, &*row.value), (pos.0 + 1, "second")),
            }
        }
    }

    #[test]
    fn a_scan_of_own_rows_stays_in_its_keyspace() {
        let world = World::new();
        let found = world
            .act(|tx| {
                for num in [1, 2, 3] {
                    tx.put(&schema::OFF_TIMELINE, &row(num), &());
                }
                // A keyspace of another family whose id is the next.
                tx.put(&schema::PURGES, &RoomNum(7), &purge());
                tx.delete(&schema::OFF_TIMELINE, &row(2));
                let mut found = Vec::new();
                tx.scan(
                    &schema::OFF_TIMELINE,
                    &(),
                    Direction::Backward,
                    |(_, num): (RoomNum, EventNum), ()| {
                        found.push(num);
                        true
                    },
                )?;
                Ok(found)
            })
            .unwrap();
        assert_eq!(found, [EventNum(3), EventNum(1)]);
    }

    fn purge() -> schema::Purge {
        schema::Purge { work: schema::PurgeWork::Rows, done: 0, estimate: 0, removed: None }
    }
}
