//! Strings to dense integers and back: rooms, users, texts.
//!
//! Invariant: a batch that uses a number carries the number's mapping rows until those rows are known to be on disk, so
//! that a crash can leave neither a dangling number nor one name with two numbers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::{DashMap, Entry};

use super::{Cache, Direction, Read, Reader, StorageError, Tx, key, schema};

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum InternedKind {
    Room = 0,
    User = 1,
    Text = 2,
}

const KINDS: [InternedKind; 3] = [InternedKind::Room, InternedKind::User, InternedKind::Text];

/// Names kept in memory per kind before those on disk are forgotten: a hundred thousand of some 100 bytes each.
const NAMES_IN_MEMORY_MAX: usize = 100_000;
/// Weight of the cache from number to name, in bytes.
const TEXTS_CACHE_BYTES: usize = 8 << 20;

#[derive(Clone, Copy)]
struct Known {
    num: u64,
    on_disk: bool,
}

/// The mapping, with what is in use held in memory.
pub(crate) struct Interner {
    names: [DashMap<Arc<str>, Known>; 3],
    next: [AtomicU64; 3],
    texts: Cache<(u8, u64), str>,
}

/// The first number of each kind that the store has not given out.
pub(crate) fn next_numbers(store: &dyn Read) -> Result<[u64; 3], StorageError> {
    let mut next = [1; 3];
    for kind in KINDS {
        let start = key::encode(schema::NAME_TEXTS.id, &(kind as u8)).bytes;
        let end = key::prefix_end(&start);
        let family = schema::NAME_TEXTS.family;
        store.scan(family, &start, end.as_deref(), Direction::Backward, &mut |key, _| {
            if let Some((_, num)) = key::decode::<(u8, u64)>(key) {
                next[kind as usize] = num + 1;
            }
            false
        })?;
    }
    Ok(next)
}

/// A name that a batch carries the mapping of.
pub(crate) type CarriedName = (InternedKind, Arc<str>);

impl Interner {
    /// An interner that gives out numbers from `next` on, one for each kind.
    pub fn new(next: [u64; 3]) -> Self {
        Self {
            names: Default::default(),
            next: next.map(AtomicU64::new),
            texts: Cache::new(TEXTS_CACHE_BYTES),
        }
    }

    fn names(&self, kind: InternedKind) -> &DashMap<Arc<str>, Known> {
        &self.names[kind as usize]
    }

    /// The number of `name`, if it has one.
    pub fn find(&self, reader: &Reader, kind: InternedKind, name: &str) -> Result<Option<u64>, StorageError> {
        if let Some(known) = self.names(kind).get(name) {
            return Ok(Some(known.num));
        }
        let found = reader.get(&schema::NAME_NUMS, &(kind as u8, name.to_owned()))?;
        if let Some(num) = found {
            self.remember(kind, name.into(), Known { num, on_disk: true });
        }
        Ok(found)
    }

    fn remember(&self, kind: InternedKind, name: Arc<str>, known: Known) {
        let names = self.names(kind);
        if names.len() >= NAMES_IN_MEMORY_MAX {
            names.retain(|_, known| !known.on_disk);
        }
        names.entry(name).or_insert(known);
    }

    /// The number of `name`, giving it one if it has none; the transaction carries the mapping while it must.
    pub fn intern(&self, tx: &mut Tx, kind: InternedKind, name: &str) -> Result<u64, StorageError> {
        self.find(tx, kind, name)?;
        let name: Arc<str> = name.into();
        let known = match self.names(kind).entry(name.clone()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                // `find` looked on disk and nobody can have put it there since without first putting it in this map,
                // unless the map was emptied in between: look once more, now that the place is held.
                let on_disk = tx.get(&schema::NAME_NUMS, &(kind as u8, name.to_string()))?;
                let known = match on_disk {
                    Some(num) => Known { num, on_disk: true },
                    None => Known {
                        num: self.next[kind as usize].fetch_add(1, Ordering::Relaxed),
                        on_disk: false,
                    },
                };
                *place.insert(known)
            }
        };
        if !known.on_disk {
            tx.put(&schema::NAME_NUMS, &(kind as u8, name.to_string()), &known.num);
            tx.put(&schema::NAME_TEXTS, &(kind as u8, known.num), &name.to_string());
            tx.carry_name((kind, name));
        }
        Ok(known.num)
    }

    /// Notes that the mappings of `names` are on disk.
    pub fn mark_on_disk(&self, names: &[CarriedName]) {
        for (kind, name) in names {
            if let Some(mut known) = self.names(*kind).get_mut(name) {
                known.on_disk = true;
            }
        }
    }

    /// The name behind a number.
    pub fn name(&self, reader: &Reader, kind: InternedKind, num: u64) -> Result<Arc<str>, StorageError> {
        if let Some(text) = self.texts.get(&(kind as u8, num)) {
            return Ok(text);
        }
        let text = reader
            .get(&schema::NAME_TEXTS, &(kind as u8, num))?
            .ok_or_else(|| StorageError::Corrupt(format!("{kind:?} number {num} has no name")))?;
        let text: Arc<str> = text.into();
        self.texts.insert((kind as u8, num), text.clone(), text.len() + 64);
        Ok(text)
    }
}
