//! Strings to dense integers and back: rooms, users, texts.
//!
//! Invariant: a batch that uses a number carries the number's mapping rows until those rows are known to be on disk, so
//! that a crash can leave neither a dangling number nor one name with two numbers. A name that is not on disk is in memory
//! while any transaction carries it, and no longer: what a refused command named leaves nothing.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
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

/// Bytes of names kept in memory per kind before those on disk are forgotten: a hundred thousand names of usual length.
const NAMES_IN_MEMORY_MAX: usize = 12 << 20;
/// What a name costs in memory beside its bytes.
const NAME_BYTES: usize = 64;
/// Weight of the cache from number to name, in bytes.
const TEXTS_CACHE_BYTES: usize = 8 << 20;

#[derive(Clone, Copy)]
struct Known {
    num: u64,
    on_disk: bool,
    /// How many transactions carry the mapping, if it is not on disk. While there is one, nobody may give the name another.
    carriers: u32,
}

impl Known {
    fn on_disk(num: u64) -> Self {
        Self { num, on_disk: true, carriers: 0 }
    }
}

fn weight(name: &str) -> usize {
    name.len() + NAME_BYTES
}

/// What the names of a kind in memory weigh.
struct Weight {
    bytes: AtomicUsize,
    /// From how many bytes on names are forgotten. A large batch may hold more that are not on disk yet: then it is not looked
    /// for others again before there are twice as many.
    bytes_max: AtomicUsize,
}

impl Default for Weight {
    fn default() -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max: AtomicUsize::new(NAMES_IN_MEMORY_MAX) }
    }
}

/// The mapping, with what is in use held in memory.
pub(crate) struct Interner {
    names: [DashMap<Arc<str>, Known>; 3],
    weights: [Weight; 3],
    next: [AtomicU64; 3],
    /// How many names have come onto the disk.
    settled: [AtomicU64; 3],
    texts: Cache<(u8, u64), str>,
    /// How often names were forgotten: what was looked for on the disk before is worth nothing after.
    forgotten: AtomicU64,
}

/// Names of which a transaction knows that they have no number yet, unless they were given one and forgotten since.
#[derive(Default)]
pub(crate) struct NewNames {
    names: HashSet<(InternedKind, Arc<str>)>,
    /// How often names had been forgotten when these were looked for.
    forgotten: u64,
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
            weights: Default::default(),
            next: next.map(AtomicU64::new),
            settled: Default::default(),
            texts: Cache::new(TEXTS_CACHE_BYTES),
            forgotten: AtomicU64::new(0),
        }
    }

    fn names(&self, kind: InternedKind) -> &DashMap<Arc<str>, Known> {
        &self.names[kind as usize]
    }

    /// How many names of a kind have come onto the disk since the store was opened. As long as it stays so, no reader of a
    /// published moment finds a name that it did not find before.
    pub fn settled(&self, kind: InternedKind) -> u64 {
        self.settled[kind as usize].load(Ordering::Acquire)
    }

    /// The number of `name`, if it has one that the reader may know: on the disk, staged, or its own.
    pub fn find(&self, reader: &Reader, kind: InternedKind, name: &str) -> Result<Option<u64>, StorageError> {
        // One that another transaction has just given it may come to nothing.
        if let Some(known) = self.names(kind).get(name).filter(|known| known.on_disk) {
            return Ok(Some(known.num));
        }
        let found = reader.get(&schema::NAME_NUMS, &(kind as u8, name.to_owned()))?;
        if let Some(num) = found {
            self.remember(kind, name.into(), num);
        }
        Ok(found)
    }

    /// Keeps a name that was read in memory, unless it is there.
    fn remember(&self, kind: InternedKind, name: Arc<str>, num: u64) {
        if let Entry::Vacant(place) = self.names(kind).entry(name) {
            self.weights[kind as usize].bytes.fetch_add(weight(place.key()), Ordering::Relaxed);
            place.insert(Known::on_disk(num));
        }
        self.make_room(kind);
    }

    /// Forgets names that are on disk when they are too much. No place in the map may be held.
    fn make_room(&self, kind: InternedKind) {
        let Weight { bytes, bytes_max } = &self.weights[kind as usize];
        if bytes.load(Ordering::Relaxed) < bytes_max.load(Ordering::Relaxed) {
            return;
        }
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        let mut kept = 0;
        self.names(kind).retain(|name, known| {
            let weight = weight(name);
            if known.on_disk {
                bytes.fetch_sub(weight, Ordering::Relaxed);
            } else {
                kept += weight;
            }
            !known.on_disk
        });
        bytes_max.store(NAMES_IN_MEMORY_MAX.max(2 * kept), Ordering::Relaxed);
    }

    /// Looks which of many names have no number yet, with few reads, so that each need not be looked for by itself.
    pub fn look_for<'a>(
        &self,
        tx: &mut Tx,
        names: impl Iterator<Item = (InternedKind, &'a str)>,
    ) -> Result<(), StorageError> {
        let forgotten = self.forgotten.load(Ordering::Acquire);
        let unknown: Vec<(InternedKind, &str)> =
            names.filter(|(kind, name)| !self.names(*kind).contains_key(*name)).collect();
        let keys = unknown.iter().map(|(kind, name)| (*kind as u8, (*name).to_owned()));
        let found = tx.get_many(&schema::NAME_NUMS, keys)?;
        let mut new = HashSet::with_capacity(unknown.len());
        for ((kind, name), num) in unknown.into_iter().zip(found) {
            match num {
                Some(num) => self.remember(kind, name.into(), num),
                None => drop(new.insert((kind, name.into()))),
            }
        }
        tx.new_names = NewNames { names: new, forgotten };
        Ok(())
    }

    /// The number of `name`, giving it one if it has none; the transaction carries the mapping while it must.
    pub fn intern(&self, tx: &mut Tx, kind: InternedKind, name: &str) -> Result<u64, StorageError> {
        let found = self.names(kind).get(name).map(|found| *found);
        if let Some(known) = found.filter(|known| known.on_disk || tx.carries(kind, known.num)) {
            return Ok(known.num);
        }
        let name: Arc<str> = name.into();
        let (known, is_made) = self.place(tx, kind, &name)?;
        if is_made {
            tx.made_name(kind, known.num);
        }
        if !known.on_disk {
            tx.carry_name(kind, known.num, &name);
        }
        Ok(known.num)
    }

    /// Finds `name` on the disk, or gives it a number; whether it did that. One that is not on disk has another carrier then.
    fn place(&self, tx: &Tx, kind: InternedKind, name: &Arc<str>) -> Result<(Known, bool), StorageError> {
        let (known, is_made) = match self.names(kind).entry(name.clone()) {
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                known.carriers += u32::from(!known.on_disk);
                (*known, false)
            }
            // Nobody else can give it a number while the place is held.
            Entry::Vacant(place) => {
                let new = &tx.new_names;
                let is_new = new.forgotten == self.forgotten.load(Ordering::Acquire)
                    && new.names.contains(&(kind, name.clone()));
                let on_disk = match is_new {
                    true => None,
                    false => tx.get(&schema::NAME_NUMS, &(kind as u8, name.to_string()))?,
                };
                let known = match on_disk {
                    Some(num) => Known::on_disk(num),
                    None => Known {
                        num: self.next[kind as usize].fetch_add(1, Ordering::Relaxed),
                        on_disk: false,
                        carriers: 1,
                    },
                };
                self.weights[kind as usize].bytes.fetch_add(weight(name), Ordering::Relaxed);
                place.insert(known);
                (known, !known.on_disk)
            }
        };
        self.make_room(kind);
        Ok((known, is_made))
    }

    /// Notes that the mappings of `names` are on disk.
    pub fn mark_on_disk(&self, names: &[CarriedName]) {
        for (kind, name) in names {
            if let Some(mut known) = self.names(*kind).get_mut(name)
                && !std::mem::replace(&mut known.on_disk, true)
            {
                // Behind that: whoever counts it finds the name.
                self.settled[*kind as usize].fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Forgets the names that a transaction carried that was not staged, but for those that others carry, too. Those of one
    /// that was staged and not written stay: it may turn out to have been.
    pub fn release(&self, names: &[CarriedName]) {
        for (kind, name) in names {
            let Entry::Occupied(mut place) = self.names(*kind).entry(name.clone()) else { continue };
            let known = place.get_mut();
            if known.on_disk {
                continue;
            }
            known.carriers = known.carriers.saturating_sub(1);
            if known.carriers == 0 {
                place.remove();
                self.weights[*kind as usize].bytes.fetch_sub(weight(name), Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Error, What},
        fixture::World,
    };

    #[test]
    fn a_batch_carries_a_new_name_once_and_no_batch_one_that_is_on_disk() {
        let world = World::new();
        let rows = |names: &[&str]| {
            let names = names.to_vec();
            world.act(|tx| {
                let before = tx.batch.writes.len();
                names.iter().try_for_each(|name| tx.intern_text(name).map(drop))?;
                Ok(tx.batch.writes.len() - before)
            })
        };
        // A row each way.
        assert_eq!(rows(&["one", "two", "one", "two"]).unwrap(), 4);
        assert_eq!(rows(&["one", "three", "three"]).unwrap(), 2);
        let [one, again] = [0; 2].map(|_| world.act(|tx| Ok(tx.intern_text("one")?)).unwrap());
        assert_eq!(one, again);
        assert_eq!(world.ask(|reader| Ok(reader.text(one)?.to_string())), "one");
    }

    #[test]
    fn names_that_were_looked_for_together_are_numbered_as_they_would_be_alone() {
        let world = World::new();
        let known = world.act(|tx| Ok(tx.intern_text("known")?)).unwrap();
        let look_for = |tx: &mut Tx| {
            let shared = tx.shared.clone();
            let names = ["known", "new", "new", "other"].map(|name| (InternedKind::Text, name));
            shared.interner.look_for(tx, names.into_iter())
        };
        let [first, new, other] = world
            .act(|tx| {
                look_for(tx)?;
                Ok([tx.intern_text("known")?, tx.intern_text("new")?, tx.intern_text("other")?])
            })
            .unwrap();
        assert_eq!(first, known);
        assert!(new != known && new != other && other != known);
        // What another made, and what was then forgotten, is found all the same.
        let again = world
            .act(|tx| {
                let shared = tx.shared.clone();
                let interner = &shared.interner;
                interner.names(InternedKind::Text).clear();
                tx.new_names.names = HashSet::from([(InternedKind::Text, "new".into())]);
                interner.forgotten.fetch_add(1, Ordering::AcqRel);
                Ok(tx.intern_text("new")?)
            })
            .unwrap();
        assert_eq!(again, new);
    }

    fn in_memory(world: &World) -> (usize, usize) {
        let text = InternedKind::Text;
        world.ask(|reader| {
            let interner = &reader.shared.interner;
            Ok((interner.names(text).len(), interner.weights[text as usize].bytes.load(Ordering::Relaxed)))
        })
    }

    #[test]
    fn what_a_refused_command_named_is_forgotten() {
        let world = World::new();
        world.act(|tx| Ok(tx.intern_text("known")?)).unwrap();
        let before = in_memory(&world);
        let refused = world.act(|tx| {
            for name in 0..1_000 {
                tx.intern_text(&format!("refused {name}"))?;
            }
            tx.intern_text("known")?;
            Err::<(), _>(Error::NotFound(What::User))
        });
        assert!(refused.is_err());
        assert_eq!(in_memory(&world), before);
        let again = world.act(|tx| Ok(tx.intern_text("refused 1")?)).unwrap();
        assert_eq!(world.ask(|reader| Ok(reader.text(again)?.to_string())), "refused 1");
    }

    #[test]
    fn a_name_that_another_transaction_carries_keeps_its_number() {
        let world = World::new();
        let refuse = || Err::<(), _>(Error::NotFound(What::User));
        let before = in_memory(&world).0;
        // Two transactions at once, the one refused, and then the other.
        let [one, two] = world
            .act(|tx| {
                let one = tx.intern_text("one")?;
                let refused = world.act(|other| {
                    assert_eq!(other.text_num("one")?, None, "it may come to nothing");
                    assert_eq!(other.intern_text("one")?, one);
                    other.intern_text("two")?;
                    refuse()
                });
                assert!(refused.is_err());
                assert_eq!(tx.intern_text("one")?, one);
                Ok([one, tx.intern_text("two")?])
            })
            .unwrap();
        let refused = world.act(|tx| {
            let own = tx.intern_text("three")?;
            assert_eq!(world.act(|other| Ok(other.intern_text("three")?))?, own);
            refuse()
        });
        assert!(refused.is_err());
        world.ask(|reader| {
            assert_eq!(reader.text_num("one")?, Some(one));
            assert_eq!(reader.text_num("two")?, Some(two));
            let number = reader.text_num("three")?.unwrap();
            assert_eq!(&*reader.text(number)?, "three");
            Ok(())
        });
        assert_eq!(in_memory(&world).0, before + 3);
    }

    #[test]
    fn long_names_are_forgotten_sooner() {
        let world = World::new();
        let bytes = 8 * 1024;
        for number in 0..2 * NAMES_IN_MEMORY_MAX / bytes {
            let name = format!("{number:0bytes$}");
            world.act(|tx| Ok(tx.intern_text(&name)?)).unwrap();
        }
        let (count, weight) = in_memory(&world);
        assert!(weight <= NAMES_IN_MEMORY_MAX + 2 * bytes, "{count} names of {weight} bytes");
        assert!(count < NAMES_IN_MEMORY_MAX / bytes + 2);
    }

    #[test]
    fn names_that_were_forgotten_keep_their_numbers() {
        let world = World::new();
        let first = world.act(|tx| Ok(tx.intern_user("@first:here.example")?)).unwrap();
        world.ask(|reader| {
            reader.shared.interner.names(InternedKind::User).clear();
            Ok(())
        });
        assert_eq!(world.act(|tx| Ok(tx.intern_user("@first:here.example")?)).unwrap(), first);
        let other = world.act(|tx| Ok(tx.intern_user("@other:here.example")?)).unwrap();
        assert_ne!(other, first);
    }
}
