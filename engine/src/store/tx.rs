//! What every module receives: a reader (of a snapshot, or of the latest state under lanes) and, for writes, a
//! transaction around one that collects a batch and what it touched.
//!
//! Invariant: a transaction sees its own writes, then those staged before it, then the disk.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, Deref},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    Backend, Batch, Change, Direction, Family, Key, Read, StorageError, Value, ValueWriter,
    batch::{Write, WriteKind},
    intern::CarriedName,
    key::{self, prefix_end},
    schema::Keyspace,
};
use crate::{
    core::num::{EventNum, NodeId, StreamPos},
    engine::Shared,
    room::Event,
    stream::Touch,
};

/// Rows that were written but are not in the base they lie over; `None` for a removed key.
type Rows = BTreeMap<(Family, Vec<u8>), Option<Bytes>>;

/// One of them.
type Row = ((Family, Vec<u8>), Option<Bytes>);

/// A removed range of keys.
type RemovedRange = (Family, Vec<u8>, Vec<u8>);

/// What is staged but not yet known to be on disk, visible to the transactions that come after it.
#[derive(Default)]
pub(crate) struct Overlay {
    layers: RwLock<Layers>,
}

#[derive(Default)]
struct Layers {
    rows: BTreeMap<(Family, Vec<u8>), (u64, Option<Bytes>)>,
    removed: Vec<(u64, RemovedRange)>,
}

impl Overlay {
    /// Lays the changes of the batch staged as number `ticket` over what is there.
    pub fn lay(&self, ticket: u64, changes: &[Change]) {
        let mut layers = self.layers.write();
        for change in changes {
            match change {
                Change::Put(family, key, value) => {
                    layers.rows.insert((*family, key.clone()), (ticket, Some(value.clone())));
                }
                Change::Delete(family, key) => {
                    layers.rows.insert((*family, key.clone()), (ticket, None));
                }
                Change::DeleteRange(family, start, end) => {
                    let range = (*family, start.clone(), end.clone());
                    layers.rows.retain(|(found, key), _| !covers(&range, *found, key));
                    layers.removed.push((ticket, range));
                }
            }
        }
    }

    /// Forgets what batches up to `ticket` laid: it is on disk now.
    pub fn lift(&self, ticket: u64) {
        let mut layers = self.layers.write();
        layers.rows.retain(|_, (laid, _)| *laid > ticket);
        layers.removed.retain(|(laid, _)| *laid > ticket);
    }

    fn get(&self, family: Family, key: &[u8]) -> Option<Option<Bytes>> {
        let layers = self.layers.read();
        if let Some((_, value)) = layers.rows.get(&(family, key.to_vec())) {
            return Some(value.clone());
        }
        layers.removed.iter().any(|(_, range)| covers(range, family, key)).then_some(None)
    }

    fn copy_range(&self, family: Family, start: &[u8], end: Option<&[u8]>) -> (Rows, Vec<RemovedRange>) {
        let layers = self.layers.read();
        let rows = layers
            .rows
            .range(bounds(family, start, end))
            .take_while(|((found, _), _)| *found == family)
            .map(|(key, (_, value))| (key.clone(), value.clone()))
            .collect();
        (rows, layers.removed.iter().map(|(_, range)| range.clone()).collect())
    }
}

fn covers(range: &RemovedRange, family: Family, key: &[u8]) -> bool {
    range.0 == family && range.1.as_slice() <= key && key < range.2.as_slice()
}

type KeyBound = Bound<(Family, Vec<u8>)>;

fn bounds(family: Family, start: &[u8], end: Option<&[u8]>) -> (KeyBound, KeyBound) {
    // An empty range written backwards would panic in the map; it is made an empty one instead.
    let end = end.map(|end| if end < start { start.to_vec() } else { end.to_vec() });
    let to = end.map_or(Bound::Unbounded, |end| Bound::Excluded((family, end)));
    (Bound::Included((family, start.to_vec())), to)
}

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
        if !self.own.is_empty() || !self.own_removed.is_empty() {
            if let Some(value) = self.own.get(&(family, key.to_vec())) {
                return Ok(value.clone());
            }
            if self.own_removed.iter().any(|range| covers(range, family, key)) {
                return Ok(None);
            }
        }
        match &self.base {
            Base::Moment(moment) => moment.get(family, key),
            Base::Latest(backend, overlay) => match overlay.get(family, key) {
                Some(value) => Ok(value),
                None => backend.get(family, key),
            },
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

    /// The values under many keys, in their order; one bulk read when nothing lies over the base.
    pub fn get_many<K: Key, V: Value>(
        &self,
        keyspace: &Keyspace<K, V>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<V>>, StorageError> {
        let keys: Vec<Vec<u8>> = keys.into_iter().map(|key| key::encode(keyspace.id, &key).bytes).collect();
        let values = match &self.base {
            Base::Moment(moment) if self.own.is_empty() => moment.get_many(keyspace.family, &keys)?,
            _ => keys.iter().map(|key| self.get_bytes(keyspace.family, key)).collect::<Result<_, _>>()?,
        };
        values.into_iter().map(|bytes| bytes.map(|bytes| keyspace.read_value(&bytes)).transpose()).collect()
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
        self.scan_bytes(keyspace, &start, Some(&end), direction, visit)
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
        let (over, removed) = self.rows_over_base(keyspace.family, start, end);
        let base: &dyn Read = match &self.base {
            Base::Moment(moment) => &**moment,
            Base::Latest(backend, _) => &**backend,
        };
        if over.is_empty() && removed.is_empty() {
            base.scan(keyspace.family, start, end, direction, &mut |key, value| {
                decode(key, Bytes::copy_from_slice(value))
            })?;
        } else {
            let mut merge = Merge { over, removed, direction, family: keyspace.family };
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

    fn rows_over_base(&self, family: Family, start: &[u8], end: Option<&[u8]>) -> (Rows, Vec<RemovedRange>) {
        let (mut rows, mut removed) = match &self.base {
            Base::Moment(_) => (Rows::new(), Vec::new()),
            Base::Latest(_, overlay) => overlay.copy_range(family, start, end),
        };
        for range in &self.own_removed {
            rows.retain(|(found, key), _| !covers(range, *found, key));
            removed.push(range.clone());
        }
        let own = self.own.range(bounds(family, start, end)).take_while(|((found, _), _)| *found == family);
        rows.extend(own.map(|(key, value)| (key.clone(), value.clone())));
        (rows, removed)
    }
}

/// Merges rows that lie over a base into a scan of it.
struct Merge {
    over: Rows,
    removed: Vec<RemovedRange>,
    direction: Direction,
    family: Family,
}

impl Merge {
    fn next_before(&mut self, key: &[u8]) -> Option<Row> {
        let next = match self.direction {
            Direction::Forward => self.over.first_entry(),
            Direction::Backward => self.over.last_entry(),
        }?;
        let comes_first = match self.direction {
            Direction::Forward => next.key().1.as_slice() <= key,
            Direction::Backward => next.key().1.as_slice() >= key,
        };
        comes_first.then(|| next.remove_entry())
    }

    fn step(&mut self, key: &[u8], value: &[u8], visit: &mut impl FnMut(&[u8], Bytes) -> bool) -> bool {
        while let Some(((_, over_key), over_value)) = self.next_before(key) {
            let replaces = over_key == key;
            if over_value.is_some_and(|over_value| !visit(&over_key, over_value)) {
                return false;
            }
            if replaces {
                return true;
            }
        }
        if self.removed.iter().any(|range| covers(range, self.family, key)) {
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
            let Some(((_, key), value)) = next else { return };
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
    pub(crate) touches: Vec<Touch>,
    /// Events made by this transaction, each with the index of its position, which they are told when it is staged.
    pub(crate) positions: Vec<(Arc<Event>, u32)>,
    /// Whether it wrote an event anew that was there before.
    pub(crate) rewrites: bool,
    /// States that were resolved, by the snapshots that they were made of.
    pub(crate) resolved: Vec<(Vec<NodeId>, NodeId)>,
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
            touches: Vec::new(),
            positions: Vec::new(),
            rewrites: false,
            resolved: Vec::new(),
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
        let mut out = ValueWriter { bytes: Vec::with_capacity(64), slot: None };
        value.write(&mut out);
        self.put_bytes(keyspace, key, out);
    }

    fn put_bytes<K: Key, V: Value>(&mut self, keyspace: &Keyspace<K, V>, key: &K, value: ValueWriter) {
        let key = key::encode(keyspace.id, key);
        let own = (keyspace.family, key.bytes.clone());
        self.reader.own.insert(own, Some(Bytes::copy_from_slice(&value.bytes)));
        let kind = WriteKind::Put(value.bytes, value.slot);
        self.batch.writes.push(Write { family: keyspace.family, key: key.bytes, key_slot: key.slot, kind });
    }

    /// Removes `key`.
    pub fn delete<K: Key, V: Value>(&mut self, keyspace: &Keyspace<K, V>, key: &K) {
        let key = key::encode(keyspace.id, key);
        self.reader.own.insert((keyspace.family, key.bytes.clone()), None);
        let kind = WriteKind::Delete;
        self.batch.writes.push(Write { family: keyspace.family, key: key.bytes, key_slot: key.slot, kind });
    }

    /// Removes every row whose key begins with `prefix`.
    pub fn delete_prefix<K: Key, V: Value, P: Key>(&mut self, keyspace: &Keyspace<K, V>, prefix: &P) {
        let start = key::encode(keyspace.id, prefix).bytes;
        // Every key begins with its keyspace's id, which is never the last byte value, so there always is an end.
        let Some(end) = prefix_end(&start) else { return };
        let family = keyspace.family;
        let range = (family, start.clone(), end.clone());
        self.reader.own.retain(|(found, key), _| !covers(&range, *found, key));
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

    pub(crate) fn carry_name(&mut self, name: CarriedName) {
        self.names.push(name);
    }
}
